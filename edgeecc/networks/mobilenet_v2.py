"""MobileNetV2 (Sandler et al. 2018): inverted residuals, parameter names as in torchvision's checkpoints."""

from __future__ import annotations

from typing import List, Tuple

import torch
from torch import nn

from edgeecc.networks.mobilenet import check_scale

#: (expansion, width, blocks, stride of the first) of each stage (Sandler et al. 2018, table 2).
_STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
_STEM, _HEAD = 32, 1280


class ConvBnRelu(nn.Sequential):
    """Convolution without bias, batch norm, ReLU6; parameters `0` and `1`."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(),
        )


class InvertedResidual(nn.Module):
    """Widen, convolve by depth, narrow without activation; the input is added where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: List[nn.Module] = []
        if expansion > 1:
            layers.append(ConvBnRelu(inputs, hidden, 1))
        layers += [
            ConvBnRelu(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        self.conv = nn.Sequential(*layers)
        self._residual = stride == 1 and inputs == outputs

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the map, (N, outputs, H / stride, W / stride)."""
        out: torch.Tensor = self.conv(image)
        return image + out if self._residual else out


class MobileNetV2(nn.Module):
    """A stem, seventeen inverted residuals, a wide pointwise head and a linear classifier.

    Args:
        width: multiplier, in (0, 16]; widths are rounded to multiples of eight.
        classes: outputs, at least 1.
    Raises: ConfigError when one is out of range.
    """

    def __init__(self, width: float = 1.0, classes: int = 1000) -> None:
        check_scale(width, classes)
        super().__init__()
        stem, *blocks, head = widths(width)
        layers: List[nn.Module] = [ConvBnRelu(3, stem, 3, stride=2)]
        steps = (
            (expansion, stride if block == 0 else 1)
            for expansion, _, count, stride in _STAGES
            for block in range(count)
        )
        inputs = stem
        for outputs, (expansion, stride) in zip(blocks, steps):
            layers.append(InvertedResidual(inputs, outputs, stride, expansion))
            inputs = outputs
        layers.append(ConvBnRelu(inputs, head, 1))
        self.features = nn.Sequential(*layers)
        # The names need the place of the dropout, which the public weights were trained with.
        self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(head, classes))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits, (N, classes), of images (N, 3, H, W)."""
        logits: torch.Tensor = self.classifier(self.features(image).mean((2, 3)))
        return logits


def widths(width: float) -> Tuple[int, ...]:
    """Return the output widths of stem, blocks and head; the head never gets thinner than 1280."""
    blocks = (round8(outputs * width) for _, outputs, count, _ in _STAGES for _ in range(count))
    return (round8(_STEM * width), *blocks, round8(_HEAD * max(1.0, width)))


def round8(channels: float) -> int:
    """Round to a multiple of eight, at least eight, without losing more than a tenth (TensorFlow's rule)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
