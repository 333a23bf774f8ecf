"""The training loss: cross entropy and the distance to the dense network's logits."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def distillation_loss(
    logits: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, share: float
) -> torch.Tensor:  # fmt: skip
    """Return share * MSE(logits, teacher) + (1 - share) * cross entropy.

    Source: ECC section 4.2 with share 0.5; the mean square is over all elements, as in the published code.

    Args:
        logits, teacher: (N, classes).
        labels: (N,).
        share: q, 0..1.
    """
    loss = (1.0 - share) * F.cross_entropy(logits, labels)
    return loss + share * F.mse_loss(logits, teacher) if share else loss
