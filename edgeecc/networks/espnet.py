"""ESPNet (Mehta et al. 2018) for semantic segmentation: efficient spatial pyramids, encoder and decoder.

Parameter names are those of the authors' checkpoints.
"""

from __future__ import annotations

from functools import partial
from typing import Tuple

import torch
from torch import nn

from edgeecc.errors import ConfigError

_EPSILON = 1e-3
_DILATIONS = (1, 2, 4, 8, 16)


class Conv(nn.Module):
    """Convolution without bias that keeps the size, up to its stride; parameter `conv`."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        padding = (kernel - 1) // 2 * dilation
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, padding, dilation=dilation, bias=False
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the map, (N, outputs, H / stride, W / stride)."""
        out: torch.Tensor = self.conv(image)
        return out


class BnPrelu(nn.Module):
    """Batch norm and PReLU with a slope for each channel; parameters `bn` and `act`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(width, eps=_EPSILON)
        self.act = nn.PReLU(width)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return a map of the same shape."""
        out: torch.Tensor = self.act(self.bn(image))
        return out


class ConvBnPrelu(BnPrelu):
    """A 3x3 convolution before batch norm and PReLU; parameters `conv`, `bn` and `act`."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(outputs)
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the map, (N, outputs, H / stride, W / stride)."""
        return super().forward(self.conv(image))


class Pyramid(nn.Module):
    """Reduce by `c1`, convolve at five dilations, add the larger ones up in turn, join (paper, section 3)."""

    def __init__(self, reduce: Conv, outputs: int) -> None:
        super().__init__()
        self.c1 = reduce
        thin = reduce.conv.out_channels
        for dilation in _DILATIONS:
            width = thin if dilation > 1 else outputs - 4 * thin
            self.add_module(f"d{dilation}", Conv(thin, width, 3, dilation=dilation))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the joined map, (N, outputs, H, W) at the size that `c1` leaves."""
        thin = self.c1(image)
        parts = [self.get_submodule(f"d{dilation}")(thin) for dilation in _DILATIONS]
        for place in range(2, len(parts)):
            parts[place] = parts[place - 1] + parts[place]
        return torch.cat(parts, 1)


class DownPyramid(Pyramid):
    """Pyramid at half the size, then batch norm and PReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(Conv(inputs, outputs // 5, 3, stride=2), outputs)
        self.bn = nn.BatchNorm2d(outputs, eps=_EPSILON)
        self.act = nn.PReLU(outputs)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the map, (N, outputs, H / 2, W / 2)."""
        out: torch.Tensor = self.act(self.bn(super().forward(image)))
        return out


class PyramidBlock(Pyramid):
    """Pyramid, added to its input where the widths are equal, then batch norm and PReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(Conv(inputs, outputs // 5, 1), outputs)
        self.bn = BnPrelu(outputs)
        self._residual = inputs == outputs

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the map, (N, outputs, H, W)."""
        joined = super().forward(image)
        out: torch.Tensor = self.bn(image + joined if self._residual else joined)
        return out


class Encoder(nn.Module):
    """Three levels, at a half, a quarter and an eighth of the size; the image goes into each.

    Args:
        classes: outputs.
        p, q: blocks of the second and third level.
        with_image: the first level is handed on joined with the image.
    """

    def __init__(self, classes: int, p: int, q: int, with_image: bool) -> None:
        super().__init__()
        self._with_image = with_image
        self.level1 = ConvBnPrelu(3, 16, 2)
        self.halve = nn.AvgPool2d(3, 2, 1)
        self.b1 = BnPrelu(16 + 3)
        self.level2_0 = DownPyramid(16 + 3, 64)
        self.level2 = nn.Sequential(*(PyramidBlock(64, 64) for _ in range(p)))
        self.b2 = BnPrelu(128 + 3)
        self.level3_0 = DownPyramid(128 + 3, 128)
        self.level3 = nn.Sequential(*(PyramidBlock(128, 128) for _ in range(q)))
        self.b3 = BnPrelu(256)
        self.classifier = Conv(256, classes, 1)

    def forward(self, image: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the maps of the three levels, of 16 or 19, 131 and `classes` channels."""
        half, alone = self.halve(image), self.level1(image)
        first = self.b1(torch.cat([alone, half], 1))
        down = self.level2_0(first)
        second = self.b2(torch.cat([self.level2(down), down, self.halve(half)], 1))
        down = self.level3_0(second)
        third = self.b3(torch.cat([down, self.level3(down)], 1))
        return first if self._with_image else alone, second, self.classifier(third)


class ESPNet(nn.Module):
    """Encoder and light decoder.

    The authors trained on images whose channels are blue, green, red; forward turns red, green, blue about, so
    that the public weights take images as every other network does.

    Args:
        classes: outputs, at least 5; 20 are Cityscapes with its void label.
        p, q: blocks of the second and third level, at least 1.
        with_image: the decoder reads the first level joined with the image, as the authors' train/Model.py has
            it, or alone, as their test/Model.py.
    Raises: ConfigError when one is too small.
    """

    def __init__(self, classes: int = 20, p: int = 2, q: int = 8, with_image: bool = False) -> None:
        if classes < len(_DILATIONS) or min(p, q) < 1:
            raise ConfigError(
                f"ESPNet with {classes} classes, p {p} and q {q} does not exist; it needs 5, 1 and 1"
            )
        super().__init__()
        self.encoder = Encoder(classes, p, q, with_image)
        self.level3_C = Conv(128 + 3, classes, 1)
        self.br = nn.BatchNorm2d(classes, eps=_EPSILON)
        self.conv = ConvBnPrelu((19 if with_image else 16) + classes, classes)
        self.up_l3 = nn.Sequential(_twice(classes))
        self.combine_l2_l3 = nn.Sequential(BnPrelu(2 * classes), PyramidBlock(2 * classes, classes))
        self.up_l2 = nn.Sequential(_twice(classes), BnPrelu(classes))
        self.classifier = _twice(classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return per-pixel logits, (N, classes, H, W), of images (N, 3, H, W), H and W multiples of 8."""
        first, second, third = self.encoder(image.flip(1))
        third = self.up_l3(self.br(third))
        second = self.up_l2(self.combine_l2_l3(torch.cat([self.level3_C(second), third], 1)))
        logits: torch.Tensor = self.classifier(self.conv(torch.cat([second, first], 1)))
        return logits


def _twice(classes: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(classes, classes, 2, stride=2, bias=False)


espnet_camvid = partial(ESPNet, classes=12, with_image=True)
