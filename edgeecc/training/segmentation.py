"""Semantic segmentation: one label a pixel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Optional, Tuple

import numpy as np
import torch
from torch.nn import functional as F

from edgeecc.config import IGNORE_LABEL, TaskName
from edgeecc.data.splits import Split
from edgeecc.errors import DataError
from edgeecc.training.output import first_tensor
from edgeecc.training.scores import Confusion
from edgeecc.training.task import Scores

#: Training images whose labels tell how frequent classes are, evenly from the whole split (ours).
WEIGHED_IMAGES = 200
#: In the weight of a class; ERFNet's published weights are those of 1.10.
WEIGHT_OFFSET = 1.10


@dataclass(frozen=True)
class Segmentation:
    """A `Task`: logits (N, classes, h, w) for labels (N, H, W), judged by mean IoU, then pixel accuracy.

    Where the network's grid is smaller, and fits the labels' a whole number of times, its logits are enlarged
    bilinearly before they meet labels.

    Args:
        classes: of the data set; None takes as many as the network tells.
        shares: of all training pixels by class, which weigh the loss, see `class_weights`; None weighs all alike.
    """

    classes: Optional[int] = None
    shares: Optional[Tuple[float, ...]] = None

    @property
    def name(self) -> TaskName:
        """Name in the table of tasks."""
        return "segmentation"

    def output_of(self, returned: object) -> torch.Tensor:
        """Return the logits; see `first_tensor`."""
        return first_tensor(returned)

    def check(self, output: torch.Tensor, labels: torch.Tensor) -> None:
        """Check a batch; see `Confusion.check`."""
        self.scores().check(tuple(output.shape), labels.cpu().numpy())

    def fitted(self, train: Split) -> Segmentation:
        """Return the task with the loss weighed by how rare classes are in the training labels.

        Raises: DataError when no pixel of them has a label.
        """
        return replace(self, shares=class_shares(train))

    def loss(self, output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the weighed mean of the cross entropy over labelled pixels; 0 where no pixel has a label."""
        if output.shape[2:] != labels.shape[1:]:
            output = F.interpolate(output, labels.shape[1:], mode="bilinear")
        weights = self._weights(output)
        total = F.cross_entropy(output, labels, weights, ignore_index=IGNORE_LABEL, reduction="sum")
        return total / self.mass(output, labels).clamp_min(1.0)  # one pixel weighs at least 1

    def mass(self, output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the sum of the weights of labelled pixels."""
        return self._weights(output)[labels[labels != IGNORE_LABEL]].sum()

    def _weights(self, output: torch.Tensor) -> torch.Tensor:
        return class_weights(self.shares, output.shape[1]).to(output)

    def distance(self, output: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Return the mean square over all logits of the network's grid, void pixels too (ECC's published code)."""
        return F.mse_loss(output, teacher)

    def scores(self) -> Scores:
        """Return `Confusion` at zero."""
        return Confusion(self.classes)


def class_shares(train: Split) -> Tuple[float, ...]:
    """Return the share of each class, up to the last that is labelled, in all pixels of a sample of a split.

    Ignored pixels count in the whole: only then ERFNet's published weights and Cityscapes' shares agree.

    Raises: DataError when no pixel has a label.
    """
    places = np.linspace(0, len(train) - 1, min(len(train), WEIGHED_IMAGES)).astype(np.int64)
    counts, pixels = torch.zeros(IGNORE_LABEL + 1, dtype=torch.int64), 0
    for place in places:
        _, labels = train.take([int(place)])
        valid = labels[(labels >= 0) & (labels < IGNORE_LABEL)]
        counts += torch.bincount(valid, minlength=len(counts))
        pixels += labels.numel()
    seen = counts.nonzero()
    if not len(seen):
        raise DataError(
            f"no pixel of {len(places)} training images has a label, all are {IGNORE_LABEL}; check the label maps"
        )
    return tuple((counts[: int(seen.max()) + 1].double() / pixels).tolist())


def class_weights(shares: Optional[Tuple[float, ...]], classes: int) -> torch.Tensor:
    """Return the weight of each class in the loss, (classes,): 1 / ln(1.10 + share), or 1 without shares.

    Source: ENet, with the offset of ERFNet, whose published weights these are; ECC trained with them.
    """
    if shares is None:
        return torch.ones(classes)
    known = torch.tensor(shares[:classes], dtype=torch.float64)
    return 1.0 / torch.log(WEIGHT_OFFSET + F.pad(known, (0, classes - len(known))))
