"""MobileNetV1 and its small siblings: a stem, then pairs of depthwise and pointwise convolutions."""

from __future__ import annotations

from typing import Dict, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import nn

from edgeecc.errors import ConfigError
from edgeecc.networks.same_padding import SamePad

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


class Family(NamedTuple):
    """Image channels, (width, stride) of the stem, and (width, stride) of each pair, at width multiplier 1."""

    inputs: int
    stem: Tuple[int, int]
    pairs: Tuple[Tuple[int, int], ...]


class Style(NamedTuple):
    """Where implementations of MobileNetV1 differ: ReLU6 or ReLU, TensorFlow's padding, batch norm's epsilon."""

    clipped: bool = True
    same: bool = False
    epsilon: float = 1e-5


class Shape(NamedTuple):
    """A convolution's channels, kernel side, stride and groups."""

    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    groups: int = 1


FAMILIES = {
    "mobilenet_v1": Family(3, (32, 2), _V1),
    "fashion_mobilenet": Family(1, (16, 1), _FASHION),
    "digits_mobilenet": Family(1, (32, 1), _DIGITS),
}
#: Implementations of MobileNetV1 whose public weights load (their names are in `public_names`).
STYLES: Dict[str, Style] = {
    "torch": Style(),
    "relu": Style(clipped=False),
    "tensorflow": Style(same=True, epsilon=1e-3),
}
#: Stem width and pair widths of each family at width multiplier 1.
BASE_WIDTHS = {
    name: (family.stem[0], *(width for width, _ in family.pairs))
    for name, family in FAMILIES.items()
}
#: Largest width multiplier.
WIDEST = 16.0


class ConvBnRelu(nn.Sequential):
    """Convolution without bias, batch norm, activation; parameters `conv` and `bn`."""

    def __init__(self, shape: Shape, style: Style) -> None:
        super().__init__()
        padded = style.same and shape.stride > 1
        if padded:
            self.pad = SamePad(shape.kernel, shape.stride)
        self.conv = nn.Conv2d(
            shape.inputs,
            shape.outputs,
            shape.kernel,
            shape.stride,
            0 if padded else shape.kernel // 2,
            groups=shape.groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(shape.outputs, eps=style.epsilon)
        self.relu: nn.Module = nn.ReLU6() if style.clipped else nn.ReLU()


class MobileNet(nn.Module):
    """A stem, depthwise-pointwise pairs, global average pooling and a linear head.

    Args:
        inputs: image channels.
        stem: (width, stride) of the first convolution.
        pairs: (width, stride) of each pair; the stride is the depthwise convolution's.
        classes: outputs.
        style: of the convolutions.
    """

    def __init__(
        self,
        inputs: int,
        stem: Tuple[int, int],
        pairs: Sequence[Tuple[int, int]],
        classes: int,
        style: Style = STYLES["torch"],
    ) -> None:
        super().__init__()
        width, stride = stem
        self.stem = ConvBnRelu(Shape(inputs, width, 3, stride), style)
        self.dw, self.pw = nn.ModuleList(), nn.ModuleList()
        for outputs, stride in pairs:
            self.dw.append(ConvBnRelu(Shape(width, width, 3, stride, width), style))
            self.pw.append(ConvBnRelu(Shape(width, outputs, 1), style))
            width = outputs
        self.fc = nn.Linear(width, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits, (N, classes), of images (N, C, H, W)."""
        out = self.stem(image)
        for depthwise, pointwise in zip(self.dw, self.pw):
            out = pointwise(depthwise(out))
        logits: torch.Tensor = self.fc(out.mean((2, 3)))
        return logits


def mobilenet_v1(width: float = 1.0, classes: int = 1000, style: str = "torch") -> MobileNet:
    """Build MobileNetV1 with a width multiplier (Howard et al. 2017).

    Args:
        width: multiplier, in (0, 16].
        classes: outputs, at least 1.
        style: the implementation that trained the weights, a key of `STYLES`.
    Raises: ConfigError when one is out of range.
    """
    if style not in STYLES:
        raise ConfigError(f"unknown style {style!r} of MobileNetV1; known are {', '.join(STYLES)}")
    return _scaled("mobilenet_v1", width, classes, STYLES[style])


def fashion_mobilenet(width: float = 1.0, classes: int = 10) -> MobileNet:
    """Build the 16-32-64-64-128-128-128 network for 1x28x28 images."""
    return _scaled("fashion_mobilenet", width, classes)


def digits_mobilenet(width: float = 1.0, classes: int = 10) -> MobileNet:
    """Build the network of the demo, 32 to 1536 channels, for 1x8x8 images."""
    return _scaled("digits_mobilenet", width, classes)


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


def check_scale(width: float, classes: int) -> None:
    """Check a width multiplier and a number of classes.

    Raises: ConfigError when one is out of range.
    """
    if not 0.0 < width <= WIDEST or classes < 1:
        raise ConfigError(
            f"width {width} must lie in (0, {WIDEST:g}] and classes {classes} be at least 1"
        )


def scaled(channels: int, width: float) -> int:
    """Return a channel count under a width multiplier, at least 1."""
    return max(1, round(channels * width))


def _scaled(name: str, width: float, classes: int, style: Style = STYLES["torch"]) -> MobileNet:
    check_scale(width, classes)
    inputs, (stem, stride), pairs = FAMILIES[name]
    thin = [(scaled(outputs, width), step) for outputs, step in pairs]
    return MobileNet(inputs, (scaled(stem, width), stride), thin, classes, style)
