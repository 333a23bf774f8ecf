"""HALP (NeurIPS 2022): importance per load as a knapsack, solved again in every round.

Between rounds the first-order importance of every unit (`gates`) is averaged over the batches. Round t of T aims at
the load dense^(1 - t/T), the geometric schedule (or what can be reduced of it falls so, `course`), and chooses by a
knapsack (`allotment`) which of the living units stay. All rounds fall into the first part of the steps; fine-tuning
has the rest.

Deviations:
- The knapsack is solved as a choice of one width per group, where the published code fills it greedily in the order of
  each layer.
- Costs are the load at the middle of a round's move, so that layers which share a width are priced together; the cost
  is any model's, in whole widths, where the published code takes steps of the device's latency (`grain`).
- Rounds share a part of the steps (`ramp`, at least `pace`), where the published code has one every 40 iterations of a
  long training (`interval`; then `ramp` and `pace` say nothing).
- What whole widths leave of a round's load is filled, one block of units at a time (`allotment`).
- Where no batch told an importance, for lack of steps, norms choose; where the last round was not reached, one more
  lands on the budget, and the status says so.
- The first convolution may be pruned like any other.
"""

from __future__ import annotations

from typing import Dict, List, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from edgeecc.graph.spec import FloatArray
from edgeecc.peer_config import HalpConfig
from edgeecc.solvers.allotment import Allotter
from edgeecc.solvers.base import Problem, Solution, Trainer, untouched
from edgeecc.solvers.feasibility import check_feasible
from edgeecc.solvers.gates import Gates, trained_parameters
from edgeecc.solvers.living import Living
from edgeecc.solvers.schedule import on_the_way
from edgeecc.solvers.uniform import norm_shares
from edgeecc.solvers.units import UnitTable, keep_of


class HalpSolver:
    """The HALP solver; see the module."""

    def __init__(self, config: HalpConfig) -> None:
        self._config = config

    def solve(self, problem: Problem, trainer: Trainer, steps: int) -> Solution:
        """Prune within the bound; the last round ends it.

        Raises: BudgetInfeasibleError before the first batch when no widths fit; ConfigError where nothing that makes
            a unit is trained.
        """
        check_feasible(problem)
        spec = problem.spec
        if problem.is_met_by_dense():
            return untouched(problem, steps)
        gates = Gates(spec, trained_parameters(trainer.model))
        ends = round_ends(self._config, steps)
        hooks = HalpHooks(problem, self._config, gates, ends)
        needed = ends[-1] if ends else 0
        history = trainer.train("prune", needed, hooks)
        status = hooks.finish(trainer.model)
        return Solution(keep_of(spec, hooks.living.alive), status, tuple(history), steps - needed)


class HalpHooks:
    """Importance between rounds, and the rounds.

    Args:
        problem: its limits.
        config: see `HalpConfig`.
        gates: tell importance.
        ends: steps after which rounds come.
    """

    def __init__(
        self, problem: Problem, config: HalpConfig, gates: Gates, ends: Sequence[int]
    ) -> None:
        self.living = Living(problem, UnitTable(problem.spec))
        self.gap = 0.0
        self._problem = problem
        self._config = config
        self._gates = gates
        self._ends = list(ends)
        self._dense = problem.load(self.living.widths())
        self._sums: List[FloatArray] = [np.zeros(group.width) for group in problem.spec.prunable]
        self._batches = 0

    def after_backward(self, model: nn.Module) -> None:
        """Add the importance of this batch; one that is not finite is left out."""
        found = self._gates.importance(model)
        if found is not None:
            self._sums = [total + values for total, values in zip(self._sums, found)]
            self._batches += 1

    def after_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, steps: int
    ) -> Mapping[str, float]:  # fmt: skip
        """Make a round where one is due, and keep removed units removed."""
        del steps
        if step in self._ends and self._batches:
            self._round((self._ends.index(step) + 1) / len(self._ends))
        self.living.mask_(model, optimizer)
        return {"cost": self.living.cost(), "gap": self.gap}

    def finish(self, model: nn.Module) -> str:
        """Cut what no round has cut, for want of steps or of finite gradients, by shares of squared norms (ours)."""
        if self.living.fits():
            return "converged"
        if not self._batches:
            self._sums = norm_shares(model, self._problem)
            self._batches = 1
        self._round(1.0)
        return "cut_after_steps"

    def state(self) -> Dict[str, torch.Tensor]:
        """Return what must survive a kill."""
        return {
            "batches": torch.tensor(self._batches),
            "gap": torch.tensor(self.gap, dtype=torch.float64),
            **{f"sums.{index}": torch.from_numpy(total) for index, total in enumerate(self._sums)},
            **self.living.state(),
        }

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` returned."""
        self._batches, self.gap = int(state["batches"]), float(state["gap"])
        self._sums = [state[f"sums.{i}"].numpy().copy() for i in range(len(self._sums))]
        self.living.load_state(state)

    def _round(self, share: float) -> None:
        """Choose who of the living stays a share of the way to the limits, and begin to average anew."""
        problem, target = self._problem, self._dense ** (1.0 - share)
        if self._config.course == "reducible":
            problem, target = on_the_way(problem, share), 1.0
        average = [total / self._batches for total in self._sums]
        ranked = [np.sort(values)[::-1] for values in self.living.of(average)]
        allotment = Allotter(problem, ranked, target=target, grain=self._config.grain).choose()
        self.gap = allotment.gap
        self.living.let_die(self.living.chosen(average, allotment.widths))
        self._sums = [np.zeros_like(total) for total in self._sums]
        self._batches = 0


def round_ends(config: HalpConfig, steps: int) -> List[int]:
    """Return the steps after which the rounds come, 1-based, rising; one round at least, where there is a step.

    Rounds that do not fit the steps are left out, and the rest share the way to the budget.
    """
    if not steps:
        return []
    if config.interval:
        rounds = min(config.rounds, steps // config.interval)
        return [config.interval * (turn + 1) for turn in range(rounds)] or [steps]
    last = max(1, int(steps * config.ramp), min(steps, config.pace))
    rounds = min(config.rounds, last)
    return [last * (turn + 1) // rounds for turn in range(rounds)]
