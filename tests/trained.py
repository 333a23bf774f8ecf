"""Small networks trained on real data, for tests that prune them."""

from __future__ import annotations

from torch import nn

from edgeecc.data.sources import DataBundle
from edgeecc.training.dense import initialise_, train_dense_


def on_digits(model: nn.Module, digits: DataBundle) -> nn.Module:
    """Return the network after 120 steps on the digits."""
    initialise_(model, 0)
    train_dense_(model, digits.train, steps=120, batch_size=64, lr=5e-3, seed=0)
    return model
