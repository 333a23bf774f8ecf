"""ResNets for ImageNet (He et al. 2016), parameter names and strides as in torchvision's checkpoints."""

from __future__ import annotations

from functools import partial
from typing import Optional, Sequence, Type, Union

import torch
from torch import nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(inputs, width, stride)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the map, (N, width, H / stride, W / stride)."""
        out = torch.relu(self.bn1(self.conv1(image)))
        out = self.bn2(self.conv2(out))
        return torch.relu(out + (self.downsample(image) if self.downsample else image))


class Bottleneck(nn.Module):
    """Narrow, convolve, widen fourfold, and a shortcut; the 3x3 convolution has the stride (version 1.5)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _projection(inputs, outputs, stride)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the map, (N, 4 width, H / stride, W / stride)."""
        out = torch.relu(self.bn1(self.conv1(image)))
        out = torch.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return torch.relu(out + (self.downsample(image) if self.downsample else image))


class ResNet(nn.Module):
    """A 7x7 stem, max pooling, four stages of residual blocks, global average pooling, a linear head.

    Args:
        block: of every stage.
        counts: blocks of the four stages.
        classes: outputs.
        width: of the first stage; each later one doubles it.
    """

    def __init__(
        self,
        block: Type[Union[BasicBlock, Bottleneck]],
        counts: Sequence[int],
        classes: int = 1000,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        stages, inputs = [], width
        for stage, count in enumerate(counts):
            blocks = []
            for place in range(count):
                stride = 2 if stage and not place else 1
                blocks.append(block(inputs, width << stage, stride))
                inputs = (width << stage) * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(inputs, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits, (N, classes), of images (N, 3, H, W)."""
        out = self.maxpool(torch.relu(self.bn1(self.conv1(image))))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        logits: torch.Tensor = self.fc(out.mean((2, 3)))
        return logits


def _projection(inputs: int, outputs: int, stride: int) -> Optional[nn.Sequential]:
    """Return the shortcut where the shape changes, None where it is the identity."""
    if stride == 1 and inputs == outputs:
        return None
    conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


resnet18 = partial(ResNet, BasicBlock, (2, 2, 2, 2))
resnet34 = partial(ResNet, BasicBlock, (3, 4, 6, 3))
resnet50 = partial(ResNet, Bottleneck, (3, 4, 6, 3))
