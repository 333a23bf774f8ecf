"""What cannot be traced is one line that names the module, or a reason in its group."""

from __future__ import annotations

import contextlib
import warnings
from typing import Callable, Iterator

import pytest
import torch
from torch import nn
from torch.ao.nn import quantized

from edgeecc.errors import GraphError
from edgeecc.graph.to_onnx import to_onnx
from edgeecc.graph.trace import trace
from tests.zoo import IMAGE, Fn, conv, head, pool


def classifier(**modules: nn.Module) -> nn.Module:
    return Fn(lambda m, x: m.fc(pool(m.c(x))), **{"c": conv(3, 8), "fc": head(8), **modules})


@contextlib.contextmanager
def deprecated() -> Iterator[None]:
    """Let torch say, once per process or always, that what users still have is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def weight_norm() -> nn.Module:
    with deprecated():
        model = classifier(c=nn.utils.weight_norm(conv(3, 8)))
    model(torch.zeros(IMAGE))
    return model


def recurrent(kind: type) -> Callable[[], nn.Module]:
    return lambda: Fn(
        lambda m, x: m.fc(m.r(m.c(x).flatten(2).transpose(1, 2))[0][:, -1]),
        c=conv(3, 8), r=kind(8, 6, batch_first=True), fc=head(6),
    )  # fmt: skip


def quantised() -> nn.Module:
    with deprecated():
        return classifier(fc=quantized.dynamic.Linear(8, 5))


def scripted() -> nn.Module:
    with deprecated():
        return Fn(lambda m, x: m.inner(x), inner=torch.jit.script(nn.Sequential(conv(3, 4))))


def foreign_output() -> nn.Module:
    return Fn(lambda m, x: iter([m.fc(pool(m.c(x)))]), c=conv(3, 8), fc=head(8))


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        (weight_norm, r"cannot be copied: .* \(remove_weight_norm\) first"),
        (recurrent(nn.LSTM), r"module r is recurrent \(LSTM\)"),
        (recurrent(nn.GRU), r"module r is recurrent \(GRU\)"),
        (scripted, "module inner is compiled by torch.jit"),
        (quantised, r"module fc is quantised \(Linear\)"),
        (lambda: classifier(c=nn.Conv2d(3, 8, 3, dtype=torch.complex64)), "c.weight holds complex numbers"),
        (foreign_output, "forward returns a list_iterator; return tensors"),
        (lambda: classifier(fc=head(9)), r"failed in module fc with input \(1, 8\)"),
        (lambda: classifier(c=nn.Conv3d(3, 8, 1)), "failed in module c"),
    ],
)  # fmt: skip
def test_refused_by_name(builder: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(GraphError, match=message) as caught:
        trace(builder(), (torch.zeros(IMAGE),))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("builder", "reason"),
    [
        (
            lambda: Fn(
                lambda m, x: m.fc(pool(m.d(m.c(x)))),
                c=nn.utils.parametrizations.weight_norm(conv(3, 8)), d=conv(8, 6), fc=head(6),
            ),
            "parametrised",
        ),
        (
            lambda: Fn(
                lambda m, x: m.fc(pool(m.c(x)) * m.e(torch.zeros(1, dtype=torch.long))),
                c=conv(3, 8), e=nn.Embedding(4, 8), fc=head(8),
            ),
            "does not cut Embedding",
        ),
        (
            lambda: Fn(
                lambda m, x: m.fc(m.a(*[m.c(x).flatten(2).transpose(1, 2)] * 3)[0].mean(1)),
                c=conv(3, 8), a=nn.MultiheadAttention(8, 2, batch_first=True), fc=head(8),
            ),
            "does not cut MultiheadAttention",
        ),
    ],
)  # fmt: skip
def test_kept_whole_with_the_reason(builder: Callable[[], nn.Module], reason: str) -> None:
    groups = {group.name: group for group in trace(builder(), (torch.randn(IMAGE),)).groups}
    assert not groups["c"].prunable
    assert reason in groups["c"].reason


def test_branching_on_values_is_explained() -> None:
    model = Fn(
        lambda m, x: m.fc(pool(m.c(x) if x.mean() > 0 else -m.c(x))), c=conv(3, 8), fc=head(8)
    )
    with pytest.raises(GraphError, match="branches on the values of a tensor"):
        to_onnx(model, (torch.ones(IMAGE),))
