"""Small networks trained on real data, for tests that prune them."""

from __future__ import annotations

from torch import nn

from edgeecc.data.sources import DataBundle
from edgeecc.training.dense import initialise_, train_dense_


def on_digits(
    model: nn.Module, digits: DataBundle, steps: int = 120, lr: float = 5e-3
) -> nn.Module:
    """Return the network after so many steps on the digits, from the same weights and batches each time."""
    initialise_(model, 0)
    train_dense_(model, digits.train, steps=steps, batch_size=64, lr=lr, seed=0)
    return model
