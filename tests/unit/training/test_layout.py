"""Channels last on a CPU: gradients are right at every width that pruning may leave."""

from __future__ import annotations

import copy
import itertools
from typing import Any, Callable, Dict, List, Tuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgeecc.config import Precision, TrainConfig
from edgeecc.data.splits import TensorSplit
from edgeecc.errors import ConfigError
from edgeecc.solvers.finetune import FixedMasks
from edgeecc.training.compute import Compute
from edgeecc.training.dense import train_dense_
from edgeecc.training.layout import is_unsafe, left_unsafe, plain_where_unsafe
from edgeecc.training.loop import TorchTrainer

CPU = torch.device("cpu")
DTYPES: Dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
#: Norm of a gradient's error, as a share of the gradient's.
CLOSE: Dict[Precision, float] = {"fp32": 1e-4, "bf16": 0.02}
BLOCKS: Dict[str, Callable[[int, int], nn.Module]] = {
    "strided point": lambda ci, co: nn.Conv2d(ci, co, 1, stride=2),
    "strided point, transposed": lambda ci, co: nn.ConvTranspose2d(
        ci, co, 1, stride=2, output_padding=1
    ),
    "dilated": lambda ci, co: nn.Conv2d(ci, co, 3, padding=4, dilation=4),
    "dilated column": lambda ci, co: nn.Conv2d(ci, co, (3, 1), padding=(2, 0), dilation=(2, 1)),
    "dilated channel by channel": lambda ci, co: nn.Conv2d(
        ci, ci, 3, padding=4, dilation=4, groups=ci
    ),
}


def leave_nan() -> None:
    """Fill memory with NaN and free it, for who reads what nobody wrote."""
    for power in range(8, 22):
        filled = [torch.full((1 << power,), float("nan")) for _ in range(3)]
        del filled


def gradients(
    layer: nn.Module, images: torch.Tensor, of_output: torch.Tensor
) -> List[torch.Tensor]:
    """Return the gradients of the image and of all weights, float64."""
    layer = copy.deepcopy(layer).to(images.dtype)
    images = images.detach().requires_grad_()
    output = layer(images)
    leave_nan()
    output.backward(of_output)
    found = [images.grad, *(parameter.grad for parameter in layer.parameters())]
    return [gradient.double() for gradient in found if gradient is not None]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("block", list(BLOCKS))
def test_gradients_channels_last_are_those_of_float64(block: str, precision: Precision) -> None:
    generator = torch.Generator().manual_seed(0)
    for inputs, outputs in itertools.product((1, 3, 8, 12, 31), (5, 16, 24)):
        layer = BLOCKS[block](inputs, outputs)
        images = torch.randn((4, inputs, 23, 30), generator=generator)
        of_output = torch.randn(layer(images).shape, generator=generator)
        exact = gradients(layer, images.double(), of_output.double())
        last = [
            tensor.to(DTYPES[precision]).to(memory_format=torch.channels_last)
            for tensor in (images, of_output)
        ]
        layers = nn.Sequential(layer)
        with plain_where_unsafe(layers, precision):
            found = gradients(layers, *last)
        assert len(found) == len(exact) == 3
        for one, other in zip(found, exact):
            assert float((one - other).norm() / other.norm()) < CLOSE[precision], (inputs, outputs)


def test_only_what_is_unsafe_computes_in_another_layout() -> None:
    layers = [
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 1, stride=2),
        nn.ConvTranspose2d(4, 4, 1, stride=2),
    ]
    model = nn.Sequential(*layers)
    seen: List[bool] = []
    images = torch.randn(2, 4, 9, 9).to(memory_format=torch.channels_last)

    def look(module: nn.Module, args: Any) -> None:
        seen.append(args[0].is_contiguous(memory_format=torch.channels_last))

    plain = model(images)
    for precision, expected in (
        ("fp32", [True, True, True, False, False]),
        ("bf16", [True, True, False, False, False]),
    ):
        seen.clear()
        with plain_where_unsafe(model, precision):
            handles = [layer.register_forward_pre_hook(look) for layer in layers]
            output = model(images)
        for handle in handles:
            handle.remove()
        assert seen == expected
        assert output.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(output, plain)
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)


def test_one_channel_has_the_strides_of_its_layout() -> None:
    layer = nn.Conv2d(1, 4, 1, stride=2)
    strides: List[Tuple[int, ...]] = []
    with plain_where_unsafe(layer, "fp32"):
        handle = layer.register_forward_pre_hook(
            lambda module, args: strides.append(args[0].stride())
        )
        layer(torch.randn(2, 1, 6, 8).to(memory_format=torch.channels_last))
    handle.remove()
    assert strides == [(48, 48, 8, 1)]


def test_layers_may_be_called_by_name() -> None:
    layer = nn.Conv2d(4, 4, 1, stride=2)
    images = torch.randn(2, 4, 6, 8)
    with plain_where_unsafe(layer, "fp32"):
        named = layer(input=images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(named, layer(images))


class Net(nn.Sequential):
    """Gives what its layers give, averaged over pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = super().forward(x)
        return out.mean((2, 3))


class Functional(nn.Module):
    """Convolves without a module."""

    def __init__(self, dilation: int, stride: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(10, 1, 1, 1))
        self.dilation, self.stride = dilation, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight, stride=self.stride, dilation=self.dilation).mean((2, 3))


@pytest.mark.parametrize(
    ("dilation", "stride", "precision", "left"),
    [(1, 1, "bf16", False), (2, 1, "fp32", False), (2, 1, "bf16", True), (1, 2, "fp32", True)],
)
def test_what_no_module_computes_keeps_the_network_in_the_other_layout(
    dilation: int, stride: int, precision: Precision, left: bool
) -> None:
    model = Functional(dilation, stride)
    images = torch.randn(8, 1, 8, 8)
    assert bool(left_unsafe(model, images, precision)) is left
    split = TensorSplit(images, torch.arange(8))
    config = TrainConfig(batch_size=8)
    free, asked = (Compute(CPU, precision, wish) for wish in (None, True))
    trainer = TorchTrainer(model, split, split, config=config, compute=free)
    assert trainer.computed()["channels_last"] is not left
    if left:
        why = "gradients of 1 of its convolutions, which are no modules, would be wrong on a CPU; leave out"
        with pytest.raises(ConfigError, match=why):
            TorchTrainer(model, split, split, config=config, compute=asked)


def test_training_and_dense_training_are_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Conv2d(1, 10, 1, stride=2)
    model = Net(layer)
    split = TensorSplit(torch.randn(8, 1, 8, 8), torch.arange(8))
    inside: List[bool] = []

    def look(gradient: torch.Tensor) -> None:
        inside.append(bool(layer._forward_pre_hooks))

    layer.weight.register_hook(look)
    compute = Compute(CPU, "fp32", None)
    trainer = TorchTrainer(model, split, split, config=TrainConfig(batch_size=8), compute=compute)
    trainer.train("a", 1, FixedMasks({}, 1.0))
    train_dense_(model, split, steps=1, batch_size=8, lr=1e-3, seed=0, compute=compute)
    assert inside == [True, True]
    assert not layer._forward_pre_hooks


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "fp32", "bf16"),
    [
        ((3, 3), (2, 2), (1, 1), False, False),
        ((1, 1), (1, 1), (1, 1), False, False),
        ((1, 1), (1, 2), (1, 1), True, True),
        ((1, 3), (2, 2), (1, 1), False, False),
        ((3, 1), (1, 1), (8, 1), False, True),
    ],
)
def test_the_rule(kernel: Any, stride: Any, dilation: Any, fp32: bool, bf16: bool) -> None:
    assert is_unsafe(kernel, stride, dilation, "fp32") is fp32
    assert is_unsafe(kernel, stride, dilation, "bf16") is bf16
