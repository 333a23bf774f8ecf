"""SqueezeNet 1.0 and 1.1 (Iandola et al. 2016), parameter names as in torchvision's checkpoints."""

from __future__ import annotations

from typing import List, Optional, Sequence

import torch
from torch import nn

#: Squeeze width of each fire module, None for a pooling; a module gives eight times its squeeze width.
_V1_0 = (None, 16, 16, 32, None, 32, 48, 48, 64, None, 64)
_V1_1 = (None, 16, 16, None, 32, 32, None, 48, 48, 64, 64)


class Fire(nn.Module):
    """Squeeze by a 1x1 convolution, expand by 1x1 and 3x3 convolutions, joined."""

    def __init__(self, inputs: int, squeeze: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, 4 * squeeze, 1)
        self.expand3x3 = nn.Conv2d(squeeze, 4 * squeeze, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the map, (N, 8 squeeze, H, W)."""
        thin = torch.relu(self.squeeze(image))
        return torch.relu(torch.cat([self.expand1x1(thin), self.expand3x3(thin)], 1))


class SqueezeNet(nn.Module):
    """A strided stem, fire modules between poolings, and a 1x1 convolution that gives the classes.

    Args:
        stem: convolution of the images, at stride 2.
        modules: squeeze widths of the fire modules, None where a max pooling stands.
        classes: outputs.
    """

    def __init__(
        self, stem: nn.Conv2d, modules: Sequence[Optional[int]], classes: int = 1000
    ) -> None:
        super().__init__()
        layers: List[nn.Module] = [stem, nn.ReLU()]
        inputs = stem.out_channels
        for squeeze in modules:
            if squeeze is None:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            else:
                layers.append(Fire(inputs, squeeze))
                inputs = 8 * squeeze
        self.features = nn.Sequential(*layers)
        # The names need the place of the dropout, which the public weights were trained with.
        self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Conv2d(inputs, classes, 1), nn.ReLU())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits, (N, classes), of images (N, 3, H, W)."""
        maps: torch.Tensor = self.classifier(self.features(image))
        return maps.mean((2, 3))


def squeezenet1_0(classes: int = 1000) -> SqueezeNet:
    """Build version 1.0, whose stem is 7x7 with 96 channels."""
    return SqueezeNet(nn.Conv2d(3, 96, 7, 2), _V1_0, classes)


def squeezenet1_1(classes: int = 1000) -> SqueezeNet:
    """Build version 1.1, whose stem is 3x3 with 64 channels and which pools earlier."""
    return SqueezeNet(nn.Conv2d(3, 64, 3, 2), _V1_1, classes)
