"""MobileNetV1 as it comes out of a quantised TensorFlow Lite file: batch norms folded, padding SAME."""

from __future__ import annotations

import torch
from torch import nn

from edgeecc.networks.mobilenet import FAMILIES, check_scale, scaled
from edgeecc.networks.same_padding import SamePad


class MobileNetTf(nn.Module):
    """Convolutions with biases, `conv0`, then pairs `dw1`, `pw1` to `dw13`, `pw13`, and a linear head `fc`.

    Args:
        width: multiplier, in (0, 16].
        classes: outputs, at least 1.
    Raises: ConfigError when one is out of range.
    """

    def __init__(self, width: float = 1.0, classes: int = 1000) -> None:
        check_scale(width, classes)
        super().__init__()
        inputs, (stem, stride), pairs = FAMILIES["mobilenet_v1"]
        self.pad = SamePad(3, 2)
        self.relu = nn.ReLU6()
        channels = scaled(stem, width)
        self.conv0 = nn.Conv2d(inputs, channels, 3, stride)
        for number, (outputs, stride) in enumerate(pairs, start=1):
            thin, padding = scaled(outputs, width), 0 if stride > 1 else 1
            depthwise = nn.Conv2d(channels, channels, 3, stride, padding, groups=channels)
            self.add_module(f"dw{number}", depthwise)
            self.add_module(f"pw{number}", nn.Conv2d(channels, thin, 1))
            channels = thin
        self.fc = nn.Linear(channels, classes)
        self._pairs = len(pairs)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits, (N, classes), of images (N, 3, H, W)."""
        out = self.relu(self.conv0(self.pad(image)))
        for number in range(1, self._pairs + 1):
            depthwise = self.get_submodule(f"dw{number}")
            wide = self.pad(out) if depthwise.stride == (2, 2) else out
            out = self.relu(self.get_submodule(f"pw{number}")(self.relu(depthwise(wide))))
        logits: torch.Tensor = self.fc(out.mean((2, 3)))
        return logits
