"""The training loss: the task's own, and the distance to the dense network's output."""

from __future__ import annotations

from typing import Tuple

import torch

from edgeecc.training.task import Task

#: What a part of a batch counts in the whole: of what the task's loss is a mean over, and of images.
Parts = Tuple[float, float]
#: The whole batch.
ALL: Parts = (1.0, 1.0)


def distillation_loss(
    task: Task, output: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, share: float, parts: Parts = ALL
) -> torch.Tensor:  # fmt: skip
    """Return share * distance to the teacher + (1 - share) * the task's loss.

    Summed over the parts of a batch it is the loss of the whole. Source: ECC section 4.2 with share 0.5.

    Args:
        task: says what loss and distance are.
        output, teacher: of one batch, of one shape.
        labels: of the batch.
        share: q, 0..1.
        parts: what the batch counts in a larger one.
    """
    loss = parts[0] * (1.0 - share) * task.loss(output, labels)
    return loss + parts[1] * share * task.distance(output, teacher) if share else loss
