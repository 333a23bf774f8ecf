"""ERFNet (Romera et al. 2018) for semantic segmentation: factorised residual blocks, encoder and decoder."""

from __future__ import annotations

import torch
from torch import nn


class Downsampler(nn.Module):
    """Concatenate a strided convolution with a max pooling, then batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs - inputs, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the map at half the size."""
        return torch.relu(self.bn(torch.cat([self.conv(image), self.pool(image)], 1)))


class NonBottleneck1d(nn.Module):
    """Residual block of four one-dimensional convolutions, the second pair dilated."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.conv3x1_1 = nn.Conv2d(width, width, (3, 1), padding=(1, 0))
        self.conv1x3_1 = nn.Conv2d(width, width, (1, 3), padding=(0, 1))
        self.bn1 = nn.BatchNorm2d(width, eps=1e-3)
        self.conv3x1_2 = nn.Conv2d(
            width, width, (3, 1), padding=(dilation, 0), dilation=(dilation, 1)
        )
        self.conv1x3_2 = nn.Conv2d(
            width, width, (1, 3), padding=(0, dilation), dilation=(1, dilation)
        )
        self.bn2 = nn.BatchNorm2d(width, eps=1e-3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return a map of the same shape."""
        out = torch.relu(self.conv3x1_1(image))
        out = torch.relu(self.bn1(self.conv1x3_1(out)))
        out = torch.relu(self.conv3x1_2(out))
        return torch.relu(self.bn2(self.conv1x3_2(out)) + image)


class Upsampler(nn.Module):
    """Transposed convolution to twice the size, batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the map at twice the size."""
        return torch.relu(self.bn(self.conv(image)))


class Encoder(nn.Module):
    """Three downsamplers and thirteen residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.initial_block = Downsampler(3, 16)
        layers: list[nn.Module] = [Downsampler(16, 64)]
        layers += [NonBottleneck1d(64, 1) for _ in range(5)]
        layers += [Downsampler(64, 128)]
        layers += [NonBottleneck1d(128, dilation) for _ in range(2) for dilation in (2, 4, 8, 16)]
        self.layers = nn.ModuleList(layers)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return features, (N, 128, H/8, W/8)."""
        out = self.initial_block(image)
        for layer in self.layers:
            out = layer(out)
        return out  # type: ignore[no-any-return]  # nn.Module calls are untyped


class Decoder(nn.Module):
    """Two upsamplers with two residual blocks each, and the output transposed convolution."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                Upsampler(128, 64),
                NonBottleneck1d(64, 1),
                NonBottleneck1d(64, 1),
                Upsampler(64, 16),
                NonBottleneck1d(16, 1),
                NonBottleneck1d(16, 1),
            ]
        )
        self.output_conv = nn.ConvTranspose2d(16, classes, 2, stride=2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return per-pixel logits, (N, classes, H, W)."""
        for layer in self.layers:
            features = layer(features)
        logits: torch.Tensor = self.output_conv(features)
        return logits


class ERFNet(nn.Module):
    """Encoder and decoder; 20 classes are Cityscapes with its void label."""

    def __init__(self, classes: int = 20) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder(classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return per-pixel logits, (N, classes, H, W), of images (N, 3, H, W)."""
        logits: torch.Tensor = self.decoder(self.encoder(image))
        return logits
