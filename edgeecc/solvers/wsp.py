"""Weighted sparse projection: train as usual, and every few batches project the weights onto the budget.

Source: ICLR 2019 and its code. The budget falls geometrically from the energy at the start to the target. Between
projections weights are free: one that was zeroed may return. The last batch ends with a projection onto the target.

Metric "magnitude" is as published: a weight is worth its square. Metric "adam" (ours) is that of ECC's proximal step:
the square times the root mean square of its gradient, so a weight is worth what the loss would miss, and layers whose
weights are large only by their scale lose no more than others.

Deviations: the schedule is explicit, factor j of J is (target/start)^(j/J), where the code multiplies by the same
factor from what it reached, and it may end early and leave the rest to recover (ramp, ours); the budget holds in
exact energy, not in relaxed (ours), so that products with padding and masked inputs, which cost nothing, are not
paid for; the prefix keeps the weight that the code loses by an index off by one; the optimiser is the trainer's.
"""

from __future__ import annotations

import math
from typing import Callable, Dict, Mapping, Optional

import torch
from torch import nn

from edgeecc.config import WspConfig
from edgeecc.solvers.places import Places
from edgeecc.solvers.sensitivity import Sensitivity
from edgeecc.solvers.sparse import Ranking, SparseProblem, masks_of, zero_


class WspHooks:
    """The projection inside training steps; `Hooks`.

    Args:
        problem_now: the problem with the input masks of the moment.
        config: see `WspConfig`.
        by_cost: False ignores what a weight costs: magnitude pruning on the same schedule.
        places: input masks that are chosen with the weights; None leaves inputs alone.
    """

    def __init__(
        self,
        problem_now: Callable[[], SparseProblem],
        config: WspConfig,
        *,
        by_cost: bool = True,
        places: Optional[Places] = None,
    ) -> None:
        self._problem_now = problem_now
        self._config = config
        self._by_cost = by_cost
        self._places = places
        self._problem = problem_now()  # layers and bound stay, whatever is masked
        self._weights = tuple(layer.parameter for layer in self._problem.layers)
        weighted = self._weights if self._is_weighted else ()
        self._sensitivity = Sensitivity(weighted + (places.names if places else ()))
        self._start = self._cost = math.nan
        self._gap, self._slack = 0.0, 1.0

    @property
    def _is_weighted(self) -> bool:
        return self._config.metric == "adam" or self._places is not None

    def after_backward(self, model: nn.Module) -> None:
        """Note what the network costs before the first step, and how sharply the loss answers."""
        if math.isnan(self._start):
            self._start = self._cost = self._problem_now().cost_of(model)
        self._sensitivity.observe(model)

    def after_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, steps: int
    ) -> Mapping[str, float]:  # fmt: skip
        """Project every few batches, and on the last one onto the budget itself."""
        del optimizer
        interval = self._config.interval
        if self._places is not None:
            self._places.hold_()
        if step % interval == 0 or step == steps:
            budget = self.budget(math.ceil(step / interval), math.ceil(steps / interval))
            if self._places is not None:
                self._places.choose_(model, budget, self._sensitivity, self._slack)
            self._project_(model, budget)
        values = {"cost": self._cost, "gap": self._gap}
        return values if self._places is None else {**values, "share": self._places.share()}

    def budget(self, done: int, projections: int) -> float:
        """Return the budget of projection `done` of so many."""
        return self._problem.target(self._start, done / (self._config.ramp * projections))

    def _project_(self, model: nn.Module, budget: float) -> None:
        problem = self._problem_now()
        fit = problem.fit(model, budget, self._ranking(model), self._slack)
        zero_(model, masks_of(problem, fit.projection))
        self._cost, self._slack, self._gap = fit.cost, fit.slack, fit.projection.gap

    def _ranking(self, model: nn.Module) -> Ranking:
        if self._config.metric != "adam":
            return Ranking(by_cost=self._by_cost)
        parameters = dict(model.named_parameters())
        return Ranking(
            lambda name: self._sensitivity.root(name, parameters[name].detach()).sqrt(),
            self._by_cost,
        )

    def state(self) -> Dict[str, torch.Tensor]:
        """Return where the schedule stands."""
        numbers = [self._start, self._cost, self._gap, self._slack]
        return {"wsp": torch.tensor(numbers, dtype=torch.float64), **self._sensitivity.state()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` returned; the network has its masks back already."""
        self._start, self._cost, self._gap, self._slack = (float(value) for value in state["wsp"])
        self._sensitivity.load_state(state)
        if self._places is not None:
            self._places.resume_()
