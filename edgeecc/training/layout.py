"""Channels last: whether a network takes its images so, and which of its convolutions a CPU must not train in it.

oneDNN, which computes convolutions for torch on CPUs, goes wrong in the weight gradients of some of them when the
channels of a pixel lie together (`benchmarks/layout_gradients.py` shows it):

- 1x1 kernels with a stride and few channels, as pruning leaves them, write past a workspace (oneDNN issue 6035):
  crashes, or wrong values elsewhere.
- In bfloat16, dilated kernels read memory that nobody wrote: NaN, or wrong values without a sign.

All convolutions of the two kinds compute in torch's own layout, whatever their widths; the others keep the speed.
"""

from __future__ import annotations

import contextlib
import copy
from typing import Any, Dict, Iterator, Optional, Sequence, Tuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from edgeecc.config import Precision
from edgeecc.training.task import Task

#: Outputs of the two layouts may differ by so much, as a share of the largest: rounding of a deep network.
TOLERANCE = 1e-3


def is_unsafe(
    kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], precision: Precision
) -> bool:
    """Return whether a CPU cannot be trusted with a convolution's weight gradient channels last (ours).

    Args:
        kernel, stride, dilation: of the convolution, transposed or not, (height, width).
        precision: of the forward pass.
    """
    strided_point = max(kernel) == 1 and max(stride) > 1
    return strided_point or (precision != "fp32" and max(dilation) > 1)


@contextlib.contextmanager
def plain_where_unsafe(model: nn.Module, precision: Precision) -> Iterator[None]:
    """Let unsafe convolutions compute in torch's own layout while the context is open; others see no difference."""
    with contextlib.ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and is_unsafe(
                module.kernel_size, module.stride, module.dilation, precision
            ):
                before = module.register_forward_pre_hook(_to_plain, with_kwargs=True)
                after = module.register_forward_hook(_to_channels_last)
                stack.callback(before.remove)
                stack.callback(after.remove)
        yield


def _to_plain(
    module: nn.Module, args: Tuple[Any, ...], kwargs: Dict[str, Any]
) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
    del module
    return tuple(_plain(value) for value in args), {
        name: _plain(value) for name, value in kwargs.items()
    }


def _plain(value: Any) -> Any:
    """Return a tensor with the strides of torch's own layout; `contiguous` would leave those of a single channel."""
    if isinstance(value, torch.Tensor) and _is_channels_last(value):
        return value.clone(memory_format=torch.contiguous_format)
    return value


def _to_channels_last(
    module: nn.Module, args: Tuple[Any, ...], output: torch.Tensor
) -> torch.Tensor:
    del module, args
    return output.contiguous(memory_format=torch.channels_last)


def _is_channels_last(x: torch.Tensor) -> bool:
    return x.ndim == 4 and x.stride(1) == 1 and x.stride(3) >= x.shape[1]


def trouble(model: nn.Module, images: torch.Tensor, task: Task) -> str:
    """Return why a network cannot be fed channels last, empty where it can: the same outputs, up to rounding.

    Raises: RuntimeError where the network fails in that layout, as where it takes a view of what is not contiguous.
    """
    if images.ndim != 4:
        return f"images have {images.ndim - 1} axes"
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        plain = task.output_of(model(images))
        other = task.output_of(model(images.to(memory_format=torch.channels_last)))
    error = (plain - other).abs().max() / plain.abs().max().clamp_min(1e-30)
    fine = bool(error <= TOLERANCE) or torch.equal(plain, other)
    return "" if fine else f"its outputs change by {float(error):.1e}"


def left_unsafe(model: nn.Module, images: torch.Tensor, precision: Precision) -> str:
    """Return what unsafe convolutions a network calls that are no modules, which nothing guards; empty without any.

    Args:
        model: that takes its images channels last.
        images: (N, C, H, W).
        precision: of forward passes in training.
    """
    model = copy.deepcopy(model).eval()
    with torch.no_grad(), plain_where_unsafe(model, precision), _Convolutions(precision) as seen:
        model(images.to(memory_format=torch.channels_last))
    if not seen.unsafe:
        return ""
    return f"gradients of {seen.unsafe} of its convolutions, which are no modules, would be wrong on a CPU"


class _Convolutions(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Counts unsafe convolutions that read channels last."""

    def __init__(self, precision: Precision) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.unsafe = 0
        self._precision = precision

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Tuple[Any, ...] = (), kwargs: Optional[Dict[str, Any]] = None
    ) -> Any:  # fmt: skip
        del types
        if func is torch.ops.aten.convolution.default:
            x, weight, _, stride, _, dilation = args[:6]
            if _is_channels_last(x) and is_unsafe(
                weight.shape[2:], stride, dilation, self._precision
            ):
                self.unsafe += 1
        return func(*args, **(kwargs or {}))
