"""The proof finds every wrong slice, however deep, and never passes a group that it cannot see."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgeecc.errors import GraphError
from edgeecc.graph.selfcheck import prove
from edgeecc.graph.spec import ChannelGroup, NetworkSpec, Slice
from edgeecc.graph.trace import trace
from tests import zoo
from tests.zoo import IMAGE, Fn, conv, head, pool


def image() -> torch.Tensor:
    return torch.randn(IMAGE, generator=torch.Generator().manual_seed(1))


def traced(name: str) -> tuple[nn.Module, tuple, NetworkSpec]:
    model, inputs = zoo.build(name)
    return model, inputs, trace(model, inputs, network=name)


def with_group(spec: NetworkSpec, group: ChannelGroup) -> NetworkSpec:
    return replace(spec, groups=tuple(group if g.name == group.name else g for g in spec.groups))


def reversed_readers(group: ChannelGroup) -> ChannelGroup | None:
    """Return the group with what one of its readers reads taken from the wrong end, or None without a reader."""
    for place, piece in enumerate(group.slices):
        if piece.role == "in" and piece.count == group.width and piece.repeats == 1:
            last = piece.start + (group.width - 1) * piece.step
            wrong = replace(piece, start=last, step=-piece.step)
            return replace(group, slices=(*group.slices[:place], wrong, *group.slices[place + 1 :]))
    return None


@pytest.mark.parametrize("name", sorted(zoo.ZOO))
def test_what_trace_proved_is_proved_again(name: str) -> None:
    model, inputs, spec = traced(name)
    assert prove(model, inputs, spec) == {}


@pytest.mark.parametrize("name", sorted(set(zoo.ZOO) - {"deep"}))
def test_a_reader_that_loses_other_channels_is_found(name: str) -> None:
    model, inputs, spec = traced(name)
    for group in spec.prunable:
        broken = reversed_readers(group)
        if broken is not None:
            assert group.name in prove(model, inputs, with_group(spec, broken)), group


def test_what_is_wrong_behind_thirty_layers_is_found() -> None:
    model, inputs, spec = traced("deep")
    assert len(spec.prunable) == 30
    for group in (spec.prunable[0], spec.prunable[15], spec.prunable[-1]):
        broken = reversed_readers(group)
        assert broken is not None
        assert list(prove(model, inputs, with_group(spec, broken))) == [group.name]


def test_dead_channels_and_zero_weights_hide_nothing() -> None:
    model, inputs, spec = traced("plain")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    broken = reversed_readers(spec.prunable[0])
    assert broken is not None
    assert prove(model, (torch.zeros(IMAGE),), spec) == {}
    assert list(prove(model, inputs, with_group(spec, broken))) == ["c1"]


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda m, x: m.c2(torch.relu(m.c1(x))) * 0.0 + m.side(x), "do not move the outputs"),
        (lambda m, x: m.c2(F.normalize(m.c1(x), dim=1)) + m.side(x), "changes the function"),
        (lambda m, x: m.c2(m.c1(x) - m.c1(x).mean(1, keepdim=True)) + m.side(x), "changes the function"),
        (lambda m, x: m.c2(m.c1(x) / m.c1(x).amax(1, keepdim=True)) + m.side(x), "changes the function"),
        (lambda m, x: m.c2(m.c1(x).reshape(1, 8, 8, 8)) + m.side(x), "forward fails"),
        (lambda m, x: m.c2(m.c1(x).roll(1, 1)) + m.side(x), "changes the function"),
        (lambda m, x: m.c2(m.c1(x).sort(1).values) + m.side(x), "changes the function"),
    ],
)  # fmt: skip
def test_functions_of_all_channels_are_seen(forward: object, reason: str) -> None:
    model = Fn(forward, c1=conv(3, 8), c2=conv(8, 4), side=conv(3, 4))
    group = next(g for g in trace(model, (image(),)).groups if g.name == "c1")
    assert not group.prunable
    assert reason in group.reason


def test_an_even_split_is_not_taken_for_free() -> None:
    """Halving an even width fits a split into halves; losing one channel does not."""

    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c1, self.c2 = conv(3, 8), conv(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.c1(x))
            return self.c2(y.reshape(1, 2, -1, 8, 8).reshape(1, -1, 8, 8))

    group = next(g for g in trace(Halves(), (image(),)).groups if g.name == "c1")
    assert not group.prunable
    assert "forward fails" in group.reason


def test_one_tensor_under_two_names_stays_whole() -> None:
    model = Fn(
        lambda m, x: m.fc(pool(torch.relu(m.c2(torch.relu(m.c1(torch.relu(m.c0(x)))))))),
        c0=conv(3, 6), c1=conv(6, 6), c2=conv(6, 6), fc=head(6),
    )  # fmt: skip
    model.c2.weight = model.c1.weight
    groups = {group.name: group for group in trace(model, (image(),)).groups}
    assert "are one tensor" in groups["c1"].reason
    assert not groups["c0"].prunable


def test_a_forward_in_float32_of_its_own_is_checked_there() -> None:
    model = Fn(
        lambda m, x: m.fc(pool(torch.relu(m.c2(torch.relu(m.c1(x.float())))))),
        c1=conv(3, 6), c2=conv(6, 4), fc=head(4),
    )  # fmt: skip
    spec = trace(model, (image(),))
    assert [group.name for group in spec.prunable] == ["c1", "c2"]
    broken = reversed_readers(spec.prunable[0])
    assert broken is not None
    assert list(prove(model, (image(),), with_group(spec, broken))) == ["c1"]


def test_a_forward_in_place_leaves_the_example_alone() -> None:
    model = Fn(lambda m, x: m.c2(m.c1(x.mul_(2.0)).relu_()), c1=conv(3, 6), c2=conv(6, 4))
    example = image()
    before = example.clone()
    assert [group.name for group in trace(model, (example,)).prunable] == ["c1"]
    assert torch.equal(example, before)


def test_outputs_of_an_unknown_kind_are_refused() -> None:
    class Result:
        pass

    model = Fn(lambda m, x: [m.c2(m.c1(x)), Result()], c1=conv(3, 6), c2=conv(6, 4))
    with pytest.raises(GraphError, match="forward returns a Result"):
        trace(model, (image(),))


def test_a_network_that_gives_no_numbers_is_told() -> None:
    model = Fn(lambda m, x: m.c2(m.c1(x)) * float("nan"), c1=conv(3, 6), c2=conv(6, 4))
    with pytest.raises(GraphError, match="values that are not numbers"):
        trace(model, (image(),))


def test_keyword_calls_and_leading_dimensions_are_counted() -> None:
    model = Fn(
        lambda m, x: m.fc(pool(torch.relu(m.c2(input=torch.relu(m.c1(input=x)))))),
        c1=conv(3, 6), c2=conv(6, 4), fc=head(4),
    )  # fmt: skip
    layers = {layer.name: layer for layer in trace(model, (image(),)).layers}
    assert layers["c2"].dense_macs == 64 * 9 * 6 * 4
    folded = Fn(
        lambda m, x: m.c2(torch.relu(m.c1(x.reshape(4, 3, 4, 4)))).reshape(1, -1), c1=conv(3, 6), c2=conv(6, 4)
    )  # fmt: skip
    layers = {layer.name: layer for layer in trace(folded, (image(),)).layers}
    assert layers["c1"].dense_macs == 64 * 9 * 3 * 6


def test_a_slice_beyond_its_tensor_is_no_traceback() -> None:
    model, inputs, spec = traced("plain")
    group = spec.prunable[0]
    outside = replace(group, slices=(Slice("c1.weight", 0, "out", 40, 1, 0, 8), *group.slices[1:]))
    failures = prove(model, inputs, with_group(spec, outside))
    assert list(failures) == ["c1"]
