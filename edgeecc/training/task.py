"""The Task protocol: what a network is trained for, and what judges it.

Solvers and the training loop know tasks by this protocol alone; docs/tasks.md says how to add one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Optional, Protocol, Tuple

import numpy.typing as npt

from edgeecc.config import TaskName

if TYPE_CHECKING:  # what scores need must load without torch
    import torch

    from edgeecc.data.splits import Split

Array = npt.NDArray[Any]


class Scores(Protocol):
    """Exact counts over batches, and the scores they give; needs no torch."""

    def check(self, shape: Tuple[int, ...], labels: Array) -> None:
        """Check that an output of this shape can be scored by these labels.

        Raises: DataError where the shapes do not belong together, or for a label that the network cannot tell.
        """

    def add(self, output: Array, labels: Array) -> None:
        """Count a batch: the network's output and the labels of its images, both with the batch first.

        Raises: DataError, see `check`.
        """

    def counts(self) -> Array:
        """Return all counts, int64 (n,), empty where nothing was added; those of parts of a split may be summed."""

    def put(self, counts: Array) -> None:
        """Go on from counts that `counts` gave."""

    def result(self) -> Dict[str, float]:
        """Return score -> value, 0..1, more is better; the first decides between networks.

        Raises: DataError when nothing that counts was added.
        """


class Task(Protocol):
    """What the labels of a data set ask of a network."""

    @property
    def name(self) -> TaskName:
        """Name in the table of tasks."""

    @property
    def classes(self) -> Optional[int]:
        """Classes of the data set; None takes as many as the network tells."""

    def output_of(self, returned: object) -> torch.Tensor:
        """Return what is trained and scored of a network's result, with the batch first.

        Raises: DataError where there is nothing of the kind.
        """

    def check(self, output: torch.Tensor, labels: torch.Tensor) -> None:
        """Check that a batch's output and labels belong together.

        Raises: DataError, see `Scores.check`.
        """

    def fitted(self, train: Split) -> Task:
        """Return this task with what its loss takes from the training labels; itself where it takes nothing."""

    def loss(self, output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch, a scalar."""

    def mass(self, output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return what the loss of a batch is a mean over, in all: images or weights of pixels, a scalar.

        A batch in parts has the loss sum(loss * max(mass, 1)) / max(sum(mass), 1).
        """

    def distance(self, output: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Return how far a batch's output is from the dense network's, a scalar."""

    def scores(self) -> Scores:
        """Return counts that stand at zero."""
