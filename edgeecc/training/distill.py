"""The training loss: the task's own, and the distance to the dense network's output."""

from __future__ import annotations

import torch

from edgeecc.training.task import Task


def distillation_loss(
    task: Task, output: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, share: float
) -> torch.Tensor:  # fmt: skip
    """Return share * distance to the teacher + (1 - share) * the task's loss.

    Source: ECC section 4.2 with share 0.5.

    Args:
        task: says what loss and distance are.
        output, teacher: of one batch, of one shape.
        labels: of the batch.
        share: q, 0..1.
    """
    loss = (1.0 - share) * task.loss(output, labels)
    return loss + share * task.distance(output, teacher) if share else loss
