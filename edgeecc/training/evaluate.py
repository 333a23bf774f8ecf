"""Accuracy of a classifier."""

from __future__ import annotations

import torch
from torch import nn

from edgeecc.data.splits import Split, check_labels

#: Images per forward pass; bounds memory, does not change the result.
EVAL_BATCH = 256


def top1(model: nn.Module, split: Split) -> float:
    """Return the share of images whose largest logit is their label; leaves the model in eval mode.

    Raises: DataError for a label that the network cannot tell.
    """
    model.eval()
    right = 0
    with torch.no_grad():
        for start in range(0, len(split), EVAL_BATCH):
            images, labels = split.take(range(start, min(len(split), start + EVAL_BATCH)))
            logits = model(images)
            check_labels(labels, logits.shape[1])
            right += int((logits.argmax(1) == labels).sum())
    return right / len(split)
