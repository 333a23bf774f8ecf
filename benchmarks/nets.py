"""Networks of the comparisons that the table of networks does not have: factories for `--network`."""

from __future__ import annotations

from functools import partial
from typing import List

import torch
from torch import nn

from edgeecc.networks.erfnet import Downsampler, NonBottleneck1d, Upsampler
from edgeecc.networks.mobilenet import digits_mobilenet
from edgeecc.networks.mobilenet_v2 import ConvBnRelu, InvertedResidual
from edgeecc.networks.resnet_cifar import CifarResNet

#: (expansion, width, blocks, stride) of each stage of the MobileNetV2 for 32x32 images.
_STAGES = ((1, 16, 1, 1), (4, 24, 2, 2), (4, 32, 2, 2), (4, 64, 2, 1))


class PickedShortcut(nn.Module):
    """A residual block of a CIFAR ResNet with its padded shortcut as a 1x1 convolution, which can be pruned."""

    def __init__(self, block: nn.Module, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = block.get_submodule("conv1"), block.get_submodule("bn1")
        self.conv2, self.bn2 = block.get_submodule("conv2"), block.get_submodule("bn2")
        self.short = nn.Conv2d(inputs, outputs, 1, 2, bias=False)
        with torch.no_grad():
            self.short.weight.zero_()
            for channel in range(inputs):
                self.short.weight[channel + (outputs - inputs) // 2, channel] = 1.0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the map at half the size."""
        out = torch.relu(self.bn1(self.conv1(image)))
        return torch.relu(self.bn2(self.conv2(out)) + self.short(image))


def resnet_with_shortcuts(depth: int, model: CifarResNet | None = None) -> CifarResNet:
    """Return a CIFAR ResNet that computes the same with convolutions as shortcuts: its streams can be pruned."""
    model = CifarResNet(depth) if model is None else model
    model.layer2[0] = PickedShortcut(model.layer2[0], 16, 32)
    model.layer3[0] = PickedShortcut(model.layer3[0], 32, 64)
    return model


resnet20 = partial(resnet_with_shortcuts, 20)
resnet56 = partial(resnet_with_shortcuts, 56)


def cifar_mobilenet_v2() -> nn.Module:
    """Return a MobileNetV2 for 32x32 images: seven inverted residuals of up to 64 channels, a head of 256."""
    layers: List[nn.Module] = [ConvBnRelu(3, 16, 3)]
    inputs = 16
    for expansion, outputs, count, first in _STAGES:
        for block in range(count):
            layers.append(InvertedResidual(inputs, outputs, first if block == 0 else 1, expansion))
            inputs = outputs
    layers.append(ConvBnRelu(inputs, 256, 1))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


def plain_digits() -> nn.Module:
    """Return three convolutions with batch norm and a linear layer for the digits."""
    body: List[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 32), (32, 64)):
        body += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]  # fmt: skip
        body += [nn.MaxPool2d(2)] if outputs > 16 else []
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(256, 10))


quarter_digits_mobilenet = partial(digits_mobilenet, 0.25)


def narrow_erfnet() -> nn.Module:
    """Return an ERFNet of half the widths and eight residual blocks for the eleven classes of CamVid."""
    return nn.Sequential(
        Downsampler(3, 8),
        Downsampler(8, 32),
        *(NonBottleneck1d(32, 1) for _ in range(2)),
        Downsampler(32, 64),
        *(NonBottleneck1d(64, dilation) for dilation in (2, 4, 8, 16)),
        Upsampler(64, 32),
        NonBottleneck1d(32, 1),
        Upsampler(32, 16),
        NonBottleneck1d(16, 1),
        nn.ConvTranspose2d(16, 11, 2, stride=2),
    )
