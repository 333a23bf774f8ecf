"""Zero padding as TensorFlow's SAME mode places it: the odd row and column go below and to the right."""

from __future__ import annotations

from typing import Tuple

import torch
from torch import nn
from torch.nn import functional


class SamePad(nn.Module):
    """Pad a map so that the strided convolution behind it gives ceil(size / stride).

    A module of its own, so that the convolution sees, and the cost models read, the padded size.

    Args:
        kernel: side of the kernel behind it.
        stride: of the convolution behind it, which must not pad.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self._kernel, self._stride = kernel, stride

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the padded map, (N, C, H', W'), of a map (N, C, H, W)."""
        height, width = image.shape[-2:]
        return functional.pad(image, (*self._sides(width), *self._sides(height)))

    def _sides(self, size: int) -> Tuple[int, int]:
        """Return the zeros before and behind an axis."""
        steps = -(-size // self._stride) - 1
        total = max(steps * self._stride + self._kernel - size, 0)
        return total // 2, total - total // 2
