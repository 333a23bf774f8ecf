"""Weighted sparse projection: train as usual, and every few batches project the weights onto the budget.

Source: ICLR 2019 and its code. The budget falls geometrically from the energy at the start to the target, one
factor a projection, and is the target in the last one, which is on the last batch. Between projections weights
are free: one that was zeroed may return.

Deviations: the schedule is explicit, factor j of J is (target/start)^(j/J), where the code multiplies by the
same factor from what it reached; the prefix keeps the weight that the code loses by an index off by one; the
optimiser is the trainer's.
"""

from __future__ import annotations

import math
from typing import Dict, Mapping

import torch
from torch import nn

from edgeecc.errors import ConfigError
from edgeecc.solvers.sparse import SparseProblem, masks_of, zero_

#: Batches between projections (proj_int of the code).
INTERVAL = 10


class WspHooks:
    """The projection inside training steps; `Hooks`.

    Args:
        problem: see `SparseProblem`; its bound is below what the network costs at the start.
        interval: batches between projections.
    """

    def __init__(self, problem: SparseProblem, interval: int = INTERVAL) -> None:
        if interval < 1:
            raise ConfigError(f"projection interval {interval} must be at least 1 batch")
        self._problem = problem
        self._interval = interval
        self._start = math.nan
        self._cost = math.nan
        self._gap = 0.0

    def after_backward(self, model: nn.Module) -> None:
        """Note what the network costs before the first step."""
        if math.isnan(self._start):
            self._start = self._cost = self._problem.cost_of(model)

    def after_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, steps: int
    ) -> Mapping[str, float]:  # fmt: skip
        """Project every few batches, and on the last one onto the budget itself."""
        del optimizer
        if step % self._interval == 0 or step == steps:
            budget = self.budget(
                math.ceil(step / self._interval), math.ceil(steps / self._interval)
            )
            projection = self._problem.project(model, budget)
            zero_(model, masks_of(self._problem, projection))
            self._cost = self._problem.fixed + projection.cost
            self._gap = projection.gap
        return {"cost": self._cost, "gap": self._gap}

    def budget(self, done: int, projections: int) -> float:
        """Return the budget of projection `done` of so many."""
        if done >= projections or self._start <= self._problem.bound:
            return self._problem.bound
        return self._start * math.pow(self._problem.bound / self._start, done / projections)

    def state(self) -> Dict[str, torch.Tensor]:
        """Return where the schedule stands."""
        return {"wsp": torch.tensor([self._start, self._cost, self._gap], dtype=torch.float64)}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` returned."""
        self._start, self._cost, self._gap = (float(value) for value in state["wsp"])
