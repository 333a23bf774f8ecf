"""Layer-compensated global ranking: LcP, and LeGR (CVPR 2020).

One ranking of all units by a scale and a shift per group (`ranking`) is found by evolution (`evolution`): each
candidate prunes the dense network within the limits, trains `tau` steps, renews the statistics of its batch norms
and is scored on held-out images; then the dense weights come back.

Deviations:
- The key is that of a coupled group, one pair for the whole chain, and by default it is LeGR's (`form`).
- The evolution is scored by held-out images, where the published code takes the validation loss; candidates train on
  the same batches, so that only their widths tell them apart, with the optimiser and rate of the run, which starts
  afresh for each.
- Batch norms are renewed, without which few steps of training tell nothing.
- Every budget is searched for anew; LeGR searches once, at the lowest, and goes on with its ranking.
- The units that are to go last may go where nothing else is left, and budget that is left is given back (`ranking`).
"""

from __future__ import annotations

import numpy as np
import torch

from edgeecc.errors import ConfigError
from edgeecc.graph.spec import FloatArray
from edgeecc.peer_config import LcpConfig
from edgeecc.solvers.base import Problem, Solution, Step, Trainer, untouched
from edgeecc.solvers.evolution import Tried, proposed
from edgeecc.solvers.feasibility import check_feasible
from edgeecc.solvers.finetune import FixedMasks
from edgeecc.solvers.ranking import Ranking, filter_norms
from edgeecc.solvers.units import UnitTable, copied, keep_of

#: Under which the search is remembered, and how its progress is called.
NAME = "lcp"
PHASE = "search"


class LcpSolver:
    """The LcP and LeGR solver; see the module."""

    def __init__(self, config: LcpConfig) -> None:
        self._config = config

    def solve(self, problem: Problem, trainer: Trainer, steps: int) -> Solution:
        """Prune within the bound; the search trains, what is left of `steps` goes to fine-tuning.

        Raises: BudgetInfeasibleError before the first batch when no widths fit; ConfigError where the search alone
            would take more steps or no images are held out.
        """
        check_feasible(problem)
        spec = problem.spec
        if problem.is_met_by_dense():
            return untouched(problem, steps)
        tau = search_steps(self._config, steps)
        search = _Search(problem, trainer, self._config, tau)
        widths = search.run()
        search.masks_(widths)
        keep = keep_of(spec, search.ranking.alive(widths))
        return Solution(keep, "converged", (), steps - tau * self._config.evaluations)


class _Search:
    """The evolution on one problem, from the weights that the trainer's network has."""

    def __init__(self, problem: Problem, trainer: Trainer, config: LcpConfig, tau: int) -> None:
        norms = filter_norms(trainer.model, problem.spec)
        self.ranking = Ranking(problem, norms, config.protected)
        self._problem = problem
        self._trainer = trainer
        self._config = config
        self._tau = tau
        self._images = trainer.sample(config.recalibrate) if config.recalibrate else None
        self._spread = np.array([values.std() for values in norms])
        self._table = UnitTable(problem.spec)
        self._dense = copied(trainer.model)

    def run(self) -> FloatArray:
        """Return the widths, (G,), of the best candidate."""
        config, groups = self._config, len(self._spread)
        found = self._trainer.recall(NAME)
        tried = Tried.none(groups) if found is None else Tried.taken_back(found, groups)
        while len(tried.scores) < config.evaluations:
            scale, shift = proposed(tried, self._spread, config, self._problem.seed)
            widths = self.ranking.widths(scale, shift)
            tried = tried.plus(scale, shift, self._score(widths, len(tried.scores)))
            self._trainer.remember(NAME, tried.state())
            self._report(tried, widths)
        best = tried.best()
        return self.ranking.widths(tried.scales[best], tried.shifts[best])

    def masks_(self, widths: FloatArray) -> FixedMasks:
        """Give the network its dense weights in place, less what widths (G,) remove; return hooks that keep it so."""
        model = self._trainer.model
        model.load_state_dict(self._dense)
        masks = self._table.masks(self.ranking.alive(widths))
        parameters = dict(model.named_parameters(remove_duplicate=False))
        with torch.no_grad():
            for name, mask in masks.items():
                parameters[name].mul_(mask.to(parameters[name]))
        return FixedMasks(masks, self._problem.first_cost(widths))

    def _score(self, widths: FloatArray, turn: int) -> float:
        hooks = self.masks_(widths)
        if self._tau:
            self._trainer.train(f"{NAME}-{turn}", self._tau, hooks, reported=False)
        keep = keep_of(self._problem.spec, self.ranking.alive(widths))
        return self._trainer.held_out(keep, self._images)

    def _report(self, tried: Tried, widths: FloatArray) -> None:
        score, count = float(tried.scores[-1]), len(tried.scores)
        values = {"score": score, "best": float(tried.scores.max())}
        cost = self._problem.first_cost(widths)
        self._trainer.report(
            PHASE, Step(count, self._config.evaluations, 1.0 - score, cost, values)
        )


def search_steps(config: LcpConfig, steps: int) -> int:
    """Return the training steps of each evaluation.

    Raises: ConfigError where the search would take more than `steps`.
    """
    if config.tau < 0:
        return steps // 2 // config.evaluations
    if config.tau * config.evaluations > steps:
        raise ConfigError(
            f"{config.evaluations} evaluations of {config.tau} steps exceed the {steps} steps; raise --steps, or lower "
            "tau or evaluations"
        )
    return config.tau
