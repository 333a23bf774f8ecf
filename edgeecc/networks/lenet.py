"""LeNet-5 with ReLU and max pooling, without padding: 6@5, 16@5, 120, 84, classes."""

from __future__ import annotations

import torch
from torch import nn


class LeNet5(nn.Module):
    """Two convolutions and three linear layers; images are padded to 32x32 by the first layer."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits, (N, classes), of images (N, 1, 28, 28)."""
        out = self.pool(torch.relu(self.conv1(image)))
        out = self.pool(torch.relu(self.conv2(out)))
        out = torch.relu(self.fc1(out.flatten(1)))
        logits: torch.Tensor = self.fc3(torch.relu(self.fc2(out)))
        return logits
