"""The Solver protocol: one problem, one trainer, one solution.

A solver decides which units stay. It trains only through the `Trainer` it is handed, so that every method
gets the same batches, the same distillation and the same accounting of steps, and so that a killed run
resumes where it was: what a solver must remember lives in a dict of tensors that the trainer checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Dict, List, Mapping, Protocol, Tuple

import torch
from torch import nn

from edgeecc.cost.base import CostModel
from edgeecc.graph.spec import IntArray, NetworkSpec


@dataclass(frozen=True)
class Problem:
    """What is to be solved.

    Args:
        spec: the traced network.
        cost: the cost model of the budgeted metric.
        bound: the budget in the metric's SI unit; at least the cost of the all-ones widths.
        seed: seed of every random choice of the solver.
    """

    spec: NetworkSpec
    cost: CostModel
    bound: float
    seed: int


@dataclass(frozen=True)
class Step:
    """What a solver reports after a training step, for progress and the report.

    Args:
        step: 1-based step.
        steps: steps in all.
        loss: training loss of the batch.
        cost: cost of the present integer widths, SI.
        values: further numbers worth plotting (z, largest y, smallest width share, ...).
    """

    step: int
    steps: int
    loss: float
    cost: float
    values: Mapping[str, float] = field(default_factory=dict)


class Hooks(Protocol):
    """What a solver does inside a training step."""

    def after_backward(self, model: nn.Module) -> None:
        """Look at weights and gradients; called once a step, before the optimiser moves the weights."""

    def after_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, steps: int
    ) -> Mapping[str, float]:
        """Change weights and optimiser state in place after the optimiser's step; return numbers to report.

        The mapping must hold "cost", the cost of the present integer widths in SI.
        """

    def state(self) -> Dict[str, torch.Tensor]:
        """Return everything that must survive a kill, as tensors."""

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` returned."""


class Trainer(Protocol):
    """The training service that a solver is handed."""

    @property
    def model(self) -> nn.Module:
        """The network under training; weights are changed in place."""

    def train(self, phase: str, steps: int, hooks: Hooks) -> List[Step]:
        """Run a phase of distilled training with the hooks, resuming within it if it was interrupted."""

    def evaluate(self) -> float:
        """Return the task's deciding score on the validation data, 0..1, more is better."""


@dataclass(frozen=True)
class Solution:
    """What a solver returns.

    Args:
        keep: units that stay, per prunable group; their cost is within the bound.
        status: "converged", "already_within" or what else ended the solve, in the solver's words.
        history: the steps as reported.
    """

    keep: Mapping[str, IntArray]
    status: str
    history: Tuple[Step, ...]


class Solver(Protocol):
    """A pruning method."""

    def solve(self, problem: Problem, trainer: Trainer, steps: int) -> Solution:
        """Choose the units that stay, within the bound, using at most `steps` training steps."""


#: Called with each reported step.
OnStep = Callable[[Step], None]
