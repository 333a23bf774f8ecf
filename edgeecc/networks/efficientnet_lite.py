"""EfficientNet-lite0 (TensorFlow's lite models): inverted residuals, names as in efficientnet-lite-pytorch.

Without squeeze-and-excitation, with ReLU6, and with TensorFlow's padding.
"""

from __future__ import annotations

import torch
from torch import nn

from edgeecc.networks.mobilenet import check_scale
from edgeecc.networks.mobilenet_v2 import round8
from edgeecc.networks.same_padding import SamePad

#: (expansion, width, blocks, stride of the first, kernel) of each stage (Tan and Le 2019, table 1).
_STAGES = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
)  # fmt: skip
_STEM, _HEAD = 32, 1280
_EPSILON = 1e-3


class LiteBlock(nn.Module):
    """Widen, convolve by depth, narrow without activation; the input is added where shapes allow.

    Args:
        inputs, outputs: channels.
        expansion: factor of the inner width; 1 leaves the widening out.
        stride, kernel: of the depthwise convolution.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self._expand = expansion > 1
        if self._expand:
            self._expand_conv = nn.Conv2d(inputs, hidden, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(hidden, eps=_EPSILON)
        padding = kernel // 2 if stride == 1 else 0
        self._pad = nn.Identity() if stride == 1 else SamePad(kernel, stride)
        self._depthwise_conv = nn.Conv2d(
            hidden, hidden, kernel, stride, padding, groups=hidden, bias=False
        )
        self._bn1 = nn.BatchNorm2d(hidden, eps=_EPSILON)
        self._project_conv = nn.Conv2d(hidden, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=_EPSILON)
        self._relu = nn.ReLU6()
        self._residual = stride == 1 and inputs == outputs

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the map, (N, outputs, H / stride, W / stride)."""
        out = self._relu(self._bn0(self._expand_conv(image))) if self._expand else image
        out = self._relu(self._bn1(self._depthwise_conv(self._pad(out))))
        narrow: torch.Tensor = self._bn2(self._project_conv(out))
        return image + narrow if self._residual else narrow


class EfficientNetLite(nn.Module):
    """A stem, sixteen inverted residuals, a wide pointwise head and a linear classifier.

    Args:
        width: multiplier of the blocks, in (0, 16]; widths are rounded to multiples of eight. Stem and
            head keep theirs.
        classes: outputs, at least 1.
    Raises: ConfigError when one is out of range.
    """

    def __init__(self, width: float = 1.0, classes: int = 1000) -> None:
        check_scale(width, classes)
        super().__init__()
        self._pad = SamePad(3, 2)
        self._conv_stem = nn.Conv2d(3, _STEM, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(_STEM, eps=_EPSILON)
        self._blocks = nn.ModuleList()
        inputs = _STEM
        for expansion, outputs, count, stride, kernel in _STAGES:
            for block in range(count):
                thin, step = round8(outputs * width), 1 if block else stride
                self._blocks.append(LiteBlock(inputs, thin, expansion, step, kernel))
                inputs = thin
        self._conv_head = nn.Conv2d(inputs, _HEAD, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(_HEAD, eps=_EPSILON)
        self._fc = nn.Linear(_HEAD, classes)
        self._relu = nn.ReLU6()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits, (N, classes), of images (N, 3, H, W)."""
        out = self._relu(self._bn0(self._conv_stem(self._pad(image))))
        for block in self._blocks:
            out = block(out)
        out = self._relu(self._bn1(self._conv_head(out)))
        logits: torch.Tensor = self._fc(out.mean((2, 3)))
        return logits


def efficientnet_lite0(classes: int = 1000) -> EfficientNetLite:
    """Build EfficientNet-lite0, the one of width 1."""
    return EfficientNetLite(1.0, classes)
