"""A layer as a matrix product: equal to the layer itself, for layers of every kind."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgeecc.errors import ConfigError
from edgeecc.solvers.unfold import (
    columns,
    from_matrix,
    is_known,
    matrix,
    outputs,
    pick,
    positions,
)  # fmt: skip


def product(
    module: nn.Module, x: torch.Tensor, y: torch.Tensor, places: object = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return matrix times columns plus bias, and what the layer gave in the same layout."""
    weight = matrix(module, module.weight)
    assert torch.equal(from_matrix(module, weight), module.weight)
    size = y.shape[2:] if isinstance(module, nn.modules.conv._ConvTransposeNd) else None
    rows = columns(module, x, places=places, size=size)
    groups, outs, inputs = weight.shape
    assert rows.shape[0] == groups
    assert rows.shape[2] == inputs
    got = rows @ weight.mT
    if module.bias is not None:
        got = got + module.bias.reshape(groups, 1, outs)
    return got, outputs(module, y, places=places)


def tensors(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fill_(module: nn.Module, seed: int) -> nn.Module:
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(tensors(seed, *parameter.shape))
    return module


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, torch.Tensor]:
    space = draw(st.integers(1, 2))
    pair = st.tuples(*[st.integers(1, 3)] * space)
    groups = draw(st.sampled_from([1, 2, 4]))
    inputs, outs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 2))
    kernel, stride, dilation = draw(pair), draw(pair), draw(st.tuples(*[st.integers(1, 2)] * space))
    padding = draw(st.one_of(st.tuples(*[st.integers(0, 2)] * space), st.sampled_from(["same", "valid"])))  # fmt: skip
    if padding == "same":
        stride = (1,) * space
    kind = (nn.Conv1d, nn.Conv2d)[space - 1]
    module = kind(
        inputs, outs, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups,
        bias=draw(st.booleans()), padding_mode=draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"])),
    )  # fmt: skip
    size = draw(st.tuples(*[st.integers(5, 8)] * space))
    return fill_(module, draw(st.integers(0, 9))), tensors(3, 2, inputs, *size)


@st.composite
def transposed(draw: st.DrawFn) -> tuple[nn.Module, torch.Tensor]:
    groups = draw(st.sampled_from([1, 2, 3]))
    inputs, outs = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 3))
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, stride, dilation = draw(pair), draw(pair), draw(pair)
    more = tuple(
        draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation)
    )  # torch: smaller than stride or dilation
    module = nn.ConvTranspose2d(
        inputs, outs, kernel, stride=stride, padding=draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
        output_padding=more, groups=groups, bias=draw(st.booleans()), dilation=dilation,
    )  # fmt: skip
    return fill_(module, draw(st.integers(0, 9))), tensors(4, 2, inputs, 6, 5)


@given(convolutions())
def test_convolutions(case: tuple[nn.Module, torch.Tensor]) -> None:
    module, x = case
    torch.testing.assert_close(*product(module, x, module(x)), rtol=1e-9, atol=1e-9)


@given(transposed())
def test_transposed_convolutions(case: tuple[nn.Module, torch.Tensor]) -> None:
    module, x = case
    torch.testing.assert_close(*product(module, x, module(x)), rtol=1e-9, atol=1e-9)


def test_a_transposed_convolution_called_with_a_size() -> None:
    module = fill_(nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2), 0)
    x = tensors(0, 2, 4, 5, 5)
    torch.testing.assert_close(
        *product(module, x, module(x, output_size=[10, 9])), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5), (2, 2, 3, 5)])
def test_linear_layers(shape: tuple[int, ...]) -> None:
    module, x = fill_(nn.Linear(5, 3), 1), tensors(2, *shape)
    y = module(x)
    torch.testing.assert_close(*product(module, x, y), rtol=1e-9, atol=1e-9)
    if len(shape) > 1:
        assert positions(module, y) * len(x) == y.numel() // 3


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(4, 6, 3, padding=1, stride=2, groups=2), (3, 4, 9, 7)),
        (nn.Conv1d(2, 4, 3), (3, 2, 9)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1), (3, 4, 4, 5)),
        (nn.Linear(4, 3), (3, 6, 2, 4)),
    ],
)
def test_a_sample_of_positions(module: nn.Module, shape: tuple[int, ...]) -> None:
    module, x = fill_(module, 5), tensors(6, *shape)
    y = module(x)
    generator = torch.Generator().manual_seed(0)
    places = pick(len(x), positions(module, y), 5, generator=generator)
    assert places.shape == (3, 5)
    assert all(len(set(row.tolist())) == 5 for row in places)
    assert not torch.equal(places[0], places[1])
    torch.testing.assert_close(*product(module, x, y, places), rtol=1e-9, atol=1e-9)
    everything = pick(len(x), positions(module, y), 10**6, generator=generator)
    sampled = columns(module, x, places=everything)
    assert torch.equal(sampled, columns(module, x))


def test_a_class_that_computes_something_else_is_not_known() -> None:
    class Scaled(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2.0 * super().forward(x)

    class Named(nn.Conv2d):
        pass

    assert not is_known(Scaled(1, 1, 1))
    assert is_known(Named(1, 1, 1))
    assert not is_known(nn.Bilinear(2, 2, 2))
    with pytest.raises(ConfigError, match=r"product of Scaled is not known; prune the layer"):
        matrix(Scaled(1, 1, 1), torch.ones(1, 1, 1, 1))
