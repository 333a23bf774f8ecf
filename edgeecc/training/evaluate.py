"""Scores of a network on a split."""

from __future__ import annotations

from typing import Dict

import torch
from torch import nn

from edgeecc.data.splits import Split, images_together, in_order
from edgeecc.training.classification import CLASSIFICATION
from edgeecc.training.task import Task

#: Images per forward pass at most; bounds memory, does not change the result.
EVAL_BATCH = 256


def evaluate(model: nn.Module, split: Split, task: Task) -> Dict[str, float]:
    """Return the task's scores, the deciding one first; leaves the model in eval mode.

    Raises: DataError for an output or a label that the task cannot score.
    """
    model.eval()
    scores = task.scores()
    together = images_together(split.take([0])[0].shape, EVAL_BATCH)
    with torch.no_grad():
        for images, labels in in_order(split, together):
            output = task.output_of(model(images))
            scores.add(output.cpu().numpy(), labels.cpu().numpy())
    return scores.result()


def top1(model: nn.Module, split: Split) -> float:
    """Return the share of images whose largest logit is their label; leaves the model in eval mode.

    Raises: DataError for a label that the network cannot tell.
    """
    return evaluate(model, split, CLASSIFICATION)["top-1"]
