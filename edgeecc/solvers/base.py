"""The Solver protocol: one problem, one trainer, one solution.

A solver decides which units stay. It trains only through the `Trainer` it is handed, so that every method
gets the same batches, the same distillation and the same accounting of steps, and so that a killed run
resumes where it was: what a solver must remember lives in a dict of tensors that the trainer checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Callable, Dict, List, Mapping, Optional, Protocol, Tuple

import numpy as np
import torch
from torch import nn

from edgeecc.cost.base import CostModel
from edgeecc.graph.spec import FloatArray, IntArray, Keep, NetworkSpec

#: Status of a network that holds every limit as it is.
ALREADY_WITHIN = "already_within"


@dataclass(frozen=True)
class Limit:
    """One budget.

    Args:
        cost: the cost model of its metric.
        bound: the most that it may give, in the metric's SI unit.
    """

    cost: CostModel
    bound: float


@dataclass(frozen=True)
class Problem:
    """What is to be solved: integer widths that hold every limit, at the least loss of accuracy.

    Args:
        spec: the traced network.
        limits: the budgets, at least one; progress tells the cost of the first.
        seed: seed of every random choice of the solver.
    """

    spec: NetworkSpec
    limits: Tuple[Limit, ...]
    seed: int

    def fits(self, widths: FloatArray) -> bool:
        """Return whether widths (G,) hold every limit."""
        return all(limit.cost.predict(widths) <= limit.bound for limit in self.limits)

    def load(self, widths: FloatArray) -> float:
        """Return the largest cost as a share of its bound at widths (G,): what methods of one budget minimise.

        With one limit it is that limit's cost in units of the bound. Monotone, as the costs are; up to rounding it
        is at most 1 just where `fits` holds, so that is what decides.
        """
        return max(limit.cost.predict(widths) / limit.bound for limit in self.limits)

    def load_gradient(self, widths: FloatArray) -> FloatArray:
        """Return d load / d width, (G,), at widths (G,): that of the limit that is largest there."""
        tightest = max(self.limits, key=lambda limit: limit.cost.predict(widths) / limit.bound)
        return np.asarray(tightest.cost.gradient(widths) / tightest.bound, dtype=np.float64)

    def loads(self, widths: FloatArray) -> Dict[str, float]:
        """Return each limit's cost as a share of its bound at widths (G,), as steps tell it: "load.METRIC" -> share."""
        return {
            f"load.{limit.cost.metric.value}": limit.cost.predict(widths) / limit.bound
            for limit in self.limits
        }

    def eased(self, factor: float) -> Problem:
        """Return the problem with every bound times the factor."""
        limits = tuple(Limit(limit.cost, factor * limit.bound) for limit in self.limits)
        return replace(self, limits=limits)

    def first_cost(self, widths: FloatArray) -> float:
        """Return the cost that progress tells, SI."""
        return self.limits[0].cost.predict(widths)

    def is_met_by_dense(self) -> bool:
        """Return whether nothing has to be removed."""
        return self.fits(self.spec.vector(self.spec.dense_widths()))


@dataclass(frozen=True)
class Step:
    """What a solver reports after a training step, for progress and the report.

    Args:
        step: 1-based step.
        steps: steps in all.
        loss: training loss of the batch.
        cost: cost of the present integer widths by the first limit, SI.
        values: further numbers worth plotting (z, largest y, `Problem.loads`, ...).
    """

    step: int
    steps: int
    loss: float
    cost: float
    values: Mapping[str, float] = field(default_factory=dict)


#: What an optimiser keeps of each weight.
Moments = Dict[str, torch.Tensor]


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
    """The training service that a solver is handed.

    Methods that try many candidates train each in a short phase of its own. They keep what they know by
    `remember`, so that a killed search goes on with the candidate it was at, and tell their progress by `report`.
    """

    @property
    def model(self) -> nn.Module:
        """The network under training; weights are changed in place."""

    @property
    def batch(self) -> int:
        """Images of a training batch, over all processes."""

    def train(  # noqa: PLR0913  # keyword-only, what short phases want otherwise
        self, phase: str, steps: int, hooks: Hooks, *, first_batch: int = 0, rate: float = 1.0,
        reported: bool = True, moments: Optional[Moments] = None,
    ) -> List[Step]:  # fmt: skip
        """Run a phase of distilled training with the hooks, resuming within it if it was interrupted.

        The optimiser starts afresh in each phase, but for the moments that it is given.

        Args:
            phase: its name, another for each phase of a run.
            steps: batches.
            hooks: called in each step.
            first_batch: number of the first batch; batches are a function of their number.
            rate: factor on the learning rate.
            reported: whether steps are told as progress.
            moments: what it begins with, by names of its own; in their place it puts those that it ends with.
        """

    def report(self, phase: str, step: Step) -> None:
        """Tell progress that is not that of a phase of training: a candidate judged, an episode over."""

    def evaluate(self) -> float:
        """Return the task's deciding score on the validation data, 0..1, more is better; not to choose by."""

    def held_out(self, keep: Optional[Keep] = None, renew: Optional[torch.Tensor] = None) -> float:
        """Return the deciding score on the training images that are held out of training, to choose by.

        Args:
            keep: units that stay where nothing reads the others. The score is the same, of a slim copy where the
                trainer can make one: less to compute.
            renew: images, (N, C, H, W), whose statistics the batch norms have in what is scored; the network itself
                does not change. None scores with the statistics that it has.
        Raises: ConfigError where none are held out.
        """

    def sample(self, most: int) -> torch.Tensor:
        """Return at most so many training images, (N, C, H, W): always the same, none of those held out."""

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over the processes of a distributed run; itself where there is one."""

    def remember(self, name: str, state: Mapping[str, torch.Tensor]) -> None:
        """Keep a state under a name; it may be written now and then only, and replaces the one before."""

    def recall(self, name: str) -> Optional[Dict[str, torch.Tensor]]:
        """Return the last state written under a name by an interrupted run, or None."""


@dataclass(frozen=True)
class Solution:
    """What a solver returns.

    Args:
        keep: units that stay, per prunable group; their cost is within the bound.
        status: "converged", ALREADY_WITHIN or what else ended the solve, in the solver's words.
        history: the steps as reported.
        left: training steps of those given that were not needed; fine-tuning has them, which trains a slim network.
        course: what was kept of every group on the way, as `Course.to_json` tells it; empty for most methods.
    """

    keep: Mapping[str, IntArray]
    status: str
    history: Tuple[Step, ...]
    left: int = 0
    course: Mapping[str, object] = field(default_factory=dict)


def untouched(problem: Problem, steps: int) -> Solution:
    """Return the solution of a problem that the dense network meets: nothing goes, and every step is left."""
    return Solution(problem.spec.keep_all(), ALREADY_WITHIN, (), steps)


class Solver(Protocol):
    """A pruning method."""

    def solve(self, problem: Problem, trainer: Trainer, steps: int) -> Solution:
        """Choose the units that stay, within the bound, using at most `steps` training steps.

        What is left when they are chosen is handed back, so that all methods train equally long.
        """


#: Called with each reported step.
OnStep = Callable[[Step], None]
