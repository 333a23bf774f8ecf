"""MobileNetV1 and its small siblings: a stem, then pairs of depthwise and pointwise convolutions."""

from __future__ import annotations

from typing import Optional, Sequence, Tuple

import torch
from torch import nn

from edgeecc.errors import ConfigError

#: (output width, stride) of each pair of MobileNetV1 (Howard et al. 2017, table 1).
_V1 = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
_FASHION = ((32, 2), (64, 1), (64, 2), (128, 1), (128, 1), (128, 1))
#: Wide, so that its work outweighs the fixed 2.48 mJ that any inference costs on a TX2, and deep in the small maps,
#: so that it trains in seconds.
_DIGITS = (
    (64, 1),
    (128, 2),
    (256, 2),
    (512, 1),
    (1024, 2),
    (1536, 1),
    (1536, 1),
    (1536, 1),
    (1536, 1),
)


#: Stem width and pair widths of each family at width multiplier 1.
BASE_WIDTHS = {
    "mobilenet_v1": (32, *(width for width, _ in _V1)),
    "fashion_mobilenet": (16, *(width for width, _ in _FASHION)),
    "digits_mobilenet": (32, *(width for width, _ in _DIGITS)),
}
#: Largest width multiplier.
WIDEST = 16.0


class ConvBnRelu(nn.Sequential):
    """Convolution without bias, batch norm, ReLU6; parameters `conv` and `bn`."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU6()


class MobileNet(nn.Module):
    """A stem, depthwise-pointwise pairs, global average pooling and a linear head.

    Args:
        inputs: image channels.
        stem: (width, stride) of the first convolution.
        pairs: (width, stride) of each pair; the stride is the depthwise convolution's.
        classes: outputs.
    """

    def __init__(
        self, inputs: int, stem: Tuple[int, int], pairs: Sequence[Tuple[int, int]], classes: int
    ) -> None:  # fmt: skip
        super().__init__()
        self.stem = ConvBnRelu(inputs, stem[0], 3, stride=stem[1])
        self.dw, self.pw = nn.ModuleList(), nn.ModuleList()
        width = stem[0]
        for outputs, stride in pairs:
            self.dw.append(ConvBnRelu(width, width, 3, stride=stride, groups=width))
            self.pw.append(ConvBnRelu(width, outputs, 1))
            width = outputs
        self.fc = nn.Linear(width, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits, (N, classes), of images (N, C, H, W)."""
        out = self.stem(image)
        for depthwise, pointwise in zip(self.dw, self.pw):
            out = pointwise(depthwise(out))
        logits: torch.Tensor = self.fc(out.mean((2, 3)))
        return logits


def mobilenet_v1(width: float = 1.0, classes: int = 1000) -> MobileNet:
    """Build MobileNetV1 with a width multiplier (Howard et al. 2017)."""
    return _scaled(3, (32, 2), _V1, width, classes)


def fashion_mobilenet(width: float = 1.0, classes: int = 10) -> MobileNet:
    """Build the 16-32-64-64-128-128-128 network for 1x28x28 images."""
    return _scaled(1, (16, 1), _FASHION, width, classes)


def digits_mobilenet(width: float = 1.0, classes: int = 10) -> MobileNet:
    """Build the network of the demo, 32 to 1536 channels, for 1x8x8 images."""
    return _scaled(1, (32, 1), _DIGITS, width, classes)


def multiplier(base: Sequence[int], found: Sequence[int]) -> Optional[float]:
    """Return a width multiplier that rounds the base widths to those found, the one with fewest decimals, or None."""
    if len(base) != len(found):
        return None
    low = max((n - 0.5) / b if n > 1 else 0.0 for n, b in zip(found, base))
    high = min(WIDEST, min((n + 0.5) / b for n, b in zip(found, base)))
    if low >= high:
        return None
    candidates = (round((low + high) / 2.0, digits) for digits in range(1, 9))
    return next((value for value in candidates if low < value < high), None)


def _scaled(
    inputs: int, stem: Tuple[int, int], pairs: Sequence[Tuple[int, int]], width: float, classes: int
) -> MobileNet:  # fmt: skip
    if not 0.0 < width <= WIDEST or classes < 1:
        raise ConfigError(
            f"width {width} must lie in (0, {WIDEST:g}] and classes {classes} be at least 1"
        )
    scaled = [(max(1, round(outputs * width)), stride) for outputs, stride in pairs]
    return MobileNet(inputs, (max(1, round(stem[0] * width)), stem[1]), scaled, classes)
