"""Scores of a network on a split."""

from __future__ import annotations

from typing import Dict, Optional

import torch
from torch import nn

from edgeecc.data.splits import Split, images_together, in_order
from edgeecc.training.classification import CLASSIFICATION
from edgeecc.training.compute import Compute, device_of
from edgeecc.training.parallel import ALONE, World
from edgeecc.training.task import Array, Task

#: Images per forward pass at most; bounds memory, does not change the result.
EVAL_BATCH = 256


def evaluate(
    model: nn.Module, split: Split, task: Task, *, compute: Optional[Compute] = None, world: World = ALONE
) -> Dict[str, float]:  # fmt: skip
    """Return the task's scores, the deciding one first; leaves the model in eval mode.

    In float32, and the same in every process: each counts its share of the batches, and the counts are summed.

    Args:
        model: of any device.
        split: scored whole.
        task: says what counts.
        compute: layout and device; None takes the model's.
        world: the processes.
    Raises: DataError for an output or a label that the task cannot score.
    """
    model.eval()
    compute = compute or Compute(device_of(model))
    scores = task.scores()
    together = images_together(split.take([0])[0].shape, EVAL_BATCH)
    with torch.no_grad():
        for images, labels in in_order(split, together, every=world.size, first=world.rank):
            output = task.output_of(model(compute.images(images)))
            scores.add(output.cpu().numpy(), labels.cpu().numpy())
    if world.size > 1:
        scores.put(_summed(scores.counts(), world))
    return scores.result()


def _summed(counts: Array, world: World) -> Array:
    """Return counts summed over processes; one that scored nothing has none."""
    length = int(world.all_reduce(torch.tensor([len(counts)]), "max"))
    padded = torch.zeros(length, dtype=torch.int64)
    padded[: len(counts)] = torch.from_numpy(counts)
    return world.all_reduce(padded).numpy()


def top1(model: nn.Module, split: Split) -> float:
    """Return the share of images whose largest logit is their label; leaves the model in eval mode.

    Raises: DataError for a label that the network cannot tell.
    """
    return evaluate(model, split, CLASSIFICATION)["top-1"]
