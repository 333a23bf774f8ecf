"""The product that a layer computes, as matrices: outputs are weights times columns, plus the bias.

A column holds what one output position reads; a convolution is one product for each of its groups. Columns are
gathered for the positions that are asked for, so that a sample of positions costs a sample of the memory
(ours; `torch.nn.functional.unfold` makes them all). A transposed convolution is a convolution of its input with
zeros inserted, by the mirrored kernel.

Everywhere g is the number of groups, o outputs per group, and d inputs per group times the kernel's size. An
image that a linear layer reads has one position for each of its vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Sequence, Tuple, Union

import torch
from torch import nn
from torch.nn import functional as F

from edgeecc.errors import ConfigError

Ints = Tuple[int, ...]
Convolution = Union[nn.Conv1d, nn.Conv2d, nn.Conv3d]
Transposed = Union[nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def is_known(module: nn.Module) -> bool:
    """Return whether the product of a layer is known: a class that changes what its parent computes is not."""
    for kind in (*_CONVOLUTIONS, *_TRANSPOSED, nn.Linear):
        if isinstance(module, kind):
            return all(
                getattr(type(module), name, None) is getattr(kind, name, None)
                for name in ("forward", "_conv_forward")
            )
    return False


def matrix(module: nn.Module, weight: torch.Tensor) -> torch.Tensor:
    """Return a tensor in the layout of the layer's weight as matrices, (g, o, d).

    Raises: ConfigError for a layer that is not known.
    """
    _check(module)
    if isinstance(module, nn.Linear):
        return weight.unsqueeze(0)
    groups = _groups(module)
    if not isinstance(module, _TRANSPOSED):
        return weight.reshape(groups, len(weight) // groups, -1)
    kernel = range(2, weight.ndim)
    split = weight.flip(list(kernel)).reshape(groups, len(weight) // groups, *weight.shape[1:])
    return split.transpose(1, 2).reshape(groups, weight.shape[1], -1)


def from_matrix(module: nn.Module, matrices: torch.Tensor) -> torch.Tensor:
    """Return matrices, (g, o, d), in the layout of the layer's weight; the inverse of `matrix`.

    Raises: ConfigError for a layer that is not known.
    """
    _check(module)
    shape = module.get_parameter("weight").shape
    if not isinstance(module, _TRANSPOSED):
        return matrices.reshape(shape)
    groups = _groups(module)
    split = matrices.reshape(groups, shape[1], shape[0] // groups, *shape[2:])
    return split.transpose(1, 2).reshape(shape).flip(list(range(2, len(shape))))


def columns(
    module: nn.Module, x: torch.Tensor, *, places: Optional[torch.Tensor] = None, size: Optional[Ints] = None
) -> torch.Tensor:  # fmt: skip
    """Return what output positions read, (g, n * positions, d), image by image.

    Args:
        module: a layer that is known.
        x: what the layer reads: (n, channels, ...), or (n, ..., features) of a linear layer.
        places: (n, p) int64, output positions of each image, counted row by row; None takes all.
        size: of the output in space; only a transposed convolution that is called with a size needs it.
    Raises: ConfigError for a layer that is not known.
    """
    _check(module)
    if isinstance(module, nn.Linear):
        rows = x.reshape(len(x) if x.ndim > 1 else 1, -1, x.shape[-1])
        if places is not None:
            rows = rows.gather(1, places.unsqueeze(2).expand(-1, -1, x.shape[-1]))
        return rows.reshape(1, -1, x.shape[-1])
    view = _view(module, x, size)
    index = view.index(places)
    n, channels = view.x.shape[:2]
    flat = view.x.flatten(2)
    taken = flat.gather(2, index.reshape(len(index), 1, -1).expand(n, channels, -1))
    groups = _groups(module)
    split = taken.reshape(n, groups, channels // groups, *index.shape[1:])
    return split.permute(1, 0, 3, 2, 4).reshape(groups, n * index.shape[1], -1)


def outputs(
    module: nn.Module, y: torch.Tensor, *, places: Optional[torch.Tensor] = None
) -> torch.Tensor:
    """Return what the layer gave as rows, (g, n * positions, o), in the order of `columns`.

    Args:
        module: a layer that is known.
        y: (n, channels, ...), or (n, ..., features) of a linear layer.
        places: as for `columns`.
    Raises: ConfigError for a layer that is not known.
    """
    _check(module)
    linear = isinstance(module, nn.Linear)
    rows = y.reshape(len(y) if y.ndim > 1 else 1, -1, y.shape[-1]) if linear else y.flatten(2).mT
    if places is not None:
        rows = rows.gather(1, places.unsqueeze(2).expand(-1, -1, rows.shape[2]))
    groups = 1 if linear else _groups(module)
    return rows.reshape(-1, groups, rows.shape[2] // groups).transpose(0, 1)


def positions(module: nn.Module, y: torch.Tensor) -> int:
    """Return how many output positions an image has, from what the layer gave."""
    if isinstance(module, nn.Linear):
        return math.prod(y.shape[1:-1])
    return math.prod(y.shape[2:])


def pick(images: int, of: int, count: int, *, generator: torch.Generator) -> torch.Tensor:
    """Return `count` of the positions of each image, all when there are no more, (images, p) int64.

    They are drawn without repetition, of each image anew.
    """
    if of <= count:
        return torch.arange(of).expand(images, of)
    return torch.rand(images, of, generator=generator).topk(count).indices


@dataclass(frozen=True)
class _View:
    """A convolution that neither pads nor is transposed: padded input (n, c, ...), and how it is walked."""

    x: torch.Tensor
    kernel: Ints
    stride: Ints
    dilation: Ints

    def index(self, places: Optional[torch.Tensor]) -> torch.Tensor:
        """Return where in the flattened input each position reads, (n, p, kernel)."""
        space = self.x.shape[2:]
        size = [
            (length - dilation * (kernel - 1) - 1) // stride + 1
            for length, kernel, stride, dilation in zip(
                space, self.kernel, self.stride, self.dilation
            )
        ]
        device = self.x.device
        first = _offsets(size, self.stride, space, device)
        taps = _offsets(self.kernel, self.dilation, space, device)
        origin = first.expand(len(self.x), -1) if places is None else first[places.to(device)]
        return origin.unsqueeze(2) + taps


def _offsets(
    counts: Sequence[int], steps: Ints, space: torch.Size, device: torch.device
) -> torch.Tensor:
    """Return the places of a grid in flattened space, row by row."""
    total = torch.zeros(1, dtype=torch.int64, device=device)
    for axis, (count, step) in enumerate(zip(counts, steps)):
        along = torch.arange(count, device=device) * (step * math.prod(space[axis + 1 :]))
        total = (total.unsqueeze(1) + along).reshape(-1)
    return total


def _view(module: nn.Module, x: torch.Tensor, size: Optional[Ints]) -> _View:
    if isinstance(module, _TRANSPOSED):
        return _transposed_view(module, x, size)
    if isinstance(module, _CONVOLUTIONS):
        return _plain_view(module, x)
    raise ConfigError(f"the product of {type(module).__name__} is not known; leave the layer out")


def _plain_view(module: Convolution, x: torch.Tensor) -> _View:
    pads = []
    for axis, (kernel, dilation) in enumerate(zip(module.kernel_size, module.dilation)):
        if isinstance(module.padding, str):
            total = dilation * (kernel - 1) if module.padding == "same" else 0
            pads.append((total // 2, total - total // 2))
        else:
            pads.append((module.padding[axis], module.padding[axis]))
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    flat = [amount for pad in reversed(pads) for amount in pad]
    padded = F.pad(x, flat, mode=mode) if any(flat) else x
    return _View(padded, module.kernel_size, module.stride, module.dilation)


def _transposed_view(module: Transposed, x: torch.Tensor, size: Optional[Ints]) -> _View:
    space = [(length - 1) * step + 1 for length, step in zip(x.shape[2:], module.stride)]
    spread = x.new_zeros(*x.shape[:2], *space)
    known: Tuple[slice, ...] = tuple(slice(None, None, step) for step in module.stride)
    spread[(slice(None), slice(None)) + known] = x  # noqa: RUF005  # not in an index before Python 3.11
    pads = []
    for axis, (kernel, dilation) in enumerate(zip(module.kernel_size, module.dilation)):
        reach, padding = dilation * (kernel - 1), int(module.padding[axis])
        after = reach - padding + module.output_padding[axis]
        if size is not None:
            after = size[axis] - space[axis] + padding
        pads.append((reach - padding, after))
    flat = [amount for pad in reversed(pads) for amount in pad]
    ones = (1,) * len(space)
    return _View(F.pad(spread, flat), module.kernel_size, ones, module.dilation)


def _groups(module: nn.Module) -> int:
    groups = getattr(module, "groups", 1)
    return int(groups)


def _check(module: nn.Module) -> None:
    if not is_known(module):
        raise ConfigError(
            f"the product of {type(module).__name__} is not known; prune the layer without a local fit"
        )
