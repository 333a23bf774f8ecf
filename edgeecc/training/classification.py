"""Classification: one label an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch
from torch.nn import functional as F

from edgeecc.config import TaskName
from edgeecc.data.splits import Split
from edgeecc.training.output import first_tensor
from edgeecc.training.scores import TopK
from edgeecc.training.task import Scores


@dataclass(frozen=True)
class Classification:
    """A `Task`: logits (N, classes) for labels (N,), judged by top-1, then top-5.

    Args:
        classes: of the data set; None takes as many as the network tells.
    """

    classes: Optional[int] = None

    @property
    def name(self) -> TaskName:
        """Name in the table of tasks."""
        return "classification"

    def output_of(self, returned: object) -> torch.Tensor:
        """Return the logits; see `first_tensor`."""
        return first_tensor(returned)

    def check(self, output: torch.Tensor, labels: torch.Tensor) -> None:
        """Check a batch; see `TopK.check`."""
        self.scores().check(tuple(output.shape), labels.cpu().numpy())

    def fitted(self, train: Split) -> Classification:
        """Return itself: the loss takes nothing from the training labels."""
        del train
        return self

    def loss(self, output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the cross entropy, mean over images."""
        return F.cross_entropy(output, labels)

    def mass(self, output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the number of images."""
        del output
        return labels.new_tensor(len(labels))

    def distance(self, output: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Return the mean square over all logits (as ECC's published code has it)."""
        return F.mse_loss(output, teacher)

    def scores(self) -> Scores:
        """Return `TopK` at zero."""
        return TopK(self.classes)


#: Of a data set that says no number of classes.
CLASSIFICATION = Classification()
