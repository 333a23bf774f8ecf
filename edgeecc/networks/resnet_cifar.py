"""ResNets for 32x32 images (He et al. 2016, section 4.2), parameter names as in the public checkpoints."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional

from edgeecc.errors import ConfigError


class CifarBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters.

    Where the width doubles the shortcut is option A: every second pixel, and zeros for the new channels,
    half of them before the old ones and half behind.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self._more = (outputs - inputs) // 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 2 if self._more else 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the map, (N, outputs, H, W), or half the size where the width doubles."""
        out = torch.relu(self.bn1(self.conv1(image)))
        out = self.bn2(self.conv2(out))
        if self._more:
            image = functional.pad(image[:, :, ::2, ::2], (0, 0, 0, 0, self._more, self._more))
        return torch.relu(out + image)


class CifarResNet(nn.Module):
    """A 3x3 stem, three stages of 16, 32 and 64 channels, global average pooling, a linear head.

    Args:
        depth: layers, 6 n + 2.
        classes: outputs.
    Raises: ConfigError for another depth.
    """

    def __init__(self, depth: int, classes: int = 10) -> None:
        if depth < 8 or depth % 6 != 2:
            raise ConfigError(f"a ResNet of depth {depth} does not exist; take 6 n + 2, such as 20")
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        count = (depth - 2) // 6
        self.layer1 = _stage(16, 16, count)
        self.layer2 = _stage(16, 32, count)
        self.layer3 = _stage(32, 64, count)
        self.linear = nn.Linear(64, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits, (N, classes), of images (N, 3, H, W)."""
        out = torch.relu(self.bn1(self.conv1(image)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: torch.Tensor = self.linear(out.mean((2, 3)))
        return logits


def _stage(inputs: int, outputs: int, count: int) -> nn.Sequential:
    return nn.Sequential(
        CifarBlock(inputs, outputs), *(CifarBlock(outputs, outputs) for _ in range(count - 1))
    )


resnet20 = partial(CifarResNet, 20)
resnet32 = partial(CifarResNet, 32)
resnet44 = partial(CifarResNet, 44)
resnet56 = partial(CifarResNet, 56)
resnet110 = partial(CifarResNet, 110)
