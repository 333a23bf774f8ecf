"""ECC as published (CVPR 2019, Algorithm 1): importance, s-step and dual steps in channels and SI units.

Deviations, each needed for it to end well: the paper's sum of squares in place of the code's squared sum; z_min
restricted to groups that can move; s rests once E(s) <= E_b; removed units stay removed; when the steps are spent
before the budget is met the rest is cut by importance per load, and the status says so; so does it where the last
iteration moved a bound far, or widths that hold the budget are not within whole bounds. It knows one budget.
"""

from __future__ import annotations

from typing import Dict, List, Mapping

import numpy as np
import torch
from torch import nn

from edgeecc.config import EccConfig
from edgeecc.errors import ConfigError
from edgeecc.graph.spec import FloatArray
from edgeecc.solvers.base import Problem
from edgeecc.solvers.course import Course
from edgeecc.solvers.importance import untrained
from edgeecc.solvers.ladder import integer_widths
from edgeecc.solvers.living import Living
from edgeecc.solvers.prox import kept_mask, trim
from edgeecc.solvers.residuals import Residuals, dual_residual, primal_residual
from edgeecc.solvers.sstep import published_step
from edgeecc.solvers.uniform import norm_shares
from edgeecc.solvers.units import Alive, UnitTable


class PublishedHooks:
    """The published form; `Hooks`.

    Raises: ConfigError for several limits.
    """

    def __init__(self, problem: Problem, config: EccConfig) -> None:
        if len(problem.limits) > 1:
            raise ConfigError(
                f"ECC as published knows one budget, not {len(problem.limits)}; leave out --metric adam"
            )
        self.problem = problem
        self.config = config
        self._table = UnitTable(problem.spec, through=True)
        self.living = Living(problem, self._table)
        self._dense_widths = problem.spec.vector(problem.spec.dense_widths())
        self._s = self._dense_widths.copy()
        self._moved = 0.0
        self._y = np.zeros_like(self._s)
        self._z = 0.0
        self._importance: List[FloatArray] = [np.zeros(int(width)) for width in self._s]
        self.course = Course([group.name for group in problem.spec.prunable])

    def after_backward(self, model: nn.Module) -> None:
        """Do nothing: the published importance comes from the optimiser."""

    def after_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, steps: int
    ) -> Mapping[str, float]:  # fmt: skip
        """One iteration of Algorithm 1 after its Adam step."""
        self.living.mask_(model, optimizer)
        self._importance = self._weighted_norms(model, optimizer)
        if not self.living.fits():
            self._iterate(alpha=float(optimizer.param_groups[0]["lr"]))
            self.living.mask_(model, optimizer)
        self.course.take(step, steps, self._s, self._y)
        y = float(self._y.max(initial=0.0))
        return {
            "cost": self.living.cost(), "z": self._z, "y": y, "s": float(self._s.sum()), "primal": self._primal(),
            "dual": self._moved,
        }  # fmt: skip

    def finish(self, model: nn.Module) -> str:
        """Cut what the steps did not reach; return how it ended."""
        if self.living.fits():
            landed = Residuals(self._primal(), self._moved)
            return "converged" if landed.are_small else "landed_in_large_steps"
        if not any(a.any() for a in self._importance):  # there was no step
            self._importance = norm_shares(model, self.problem)
        start = np.minimum(self._s, self.living.widths())
        rungs = self.living.ladders(self._importance)
        widths = integer_widths(self.problem, rungs, start)
        self.living.let_die(self.living.chosen(self._importance, widths))
        return "cut_after_steps"

    def _weighted_norms(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> List[FloatArray]:
        """Return a_i = sum of w^2 (sqrt(v) + eps), v bias-corrected (ECC eq. 11; the code leaves the bias in)."""
        parameters = dict(model.named_parameters())

        def weighted(name: str) -> torch.Tensor:
            parameter = parameters[name].detach()
            state = optimizer.state.get(parameters[name])
            if not state:
                raise untrained(name)
            corrected = state["exp_avg_sq"] / (1.0 - 0.999 ** float(state["step"]))
            weight: torch.Tensor = parameter**2 * (corrected.sqrt() + 1e-8)
            return weight

        return self._table.sums(weighted)

    def _iterate(self, alpha: float) -> None:
        rho1, rho2, before = self.config.rho1, self.config.rho2, self._s
        chosen: Alive = []
        for group, a in enumerate(self._live_importance()):
            a = np.maximum(a, 0.0)
            self._y[group] = trim(a, self._s[group], self._y[group], rho1=rho1, alpha=alpha)
            chosen.append(kept_mask(a, self._s[group], self._y[group], rho1=rho1, alpha=alpha))
        self.living.let_die(chosen)
        limit, k = self.problem.limits[0], self.living.widths()
        cost, bound = limit.cost, limit.bound
        excess = cost.predict(self._s) - bound
        if excess > 0.0:
            self._s, self._z = published_step(
                self._s, k, self._y, self._z, excess=excess, slope=cost.gradient(self._s), rho=(rho1, rho2),
                epsilon=self.config.epsilon, beta=self.config.beta,
            )  # fmt: skip
        self._z = max(0.0, self._z + rho2 * (cost.predict(self._s) - bound))
        self._y = np.maximum(0.0, self._y + rho1 * (k - np.floor(self._s)))
        self._moved = dual_residual(before, self._s, self._dense_widths)

    def _primal(self) -> float:
        """Return by how much the last widths are beyond whole bounds, or the cost beyond the budget."""
        bounds = np.floor(self._s)
        return primal_residual(self.problem, self.living.widths(), bounds, self._dense_widths)

    def _live_importance(self) -> List[FloatArray]:
        """Return importance with dead units at -1, so that they rank last."""
        return [np.where(living, a, -1.0) for living, a in zip(self.living.alive, self._importance)]

    def state(self) -> Dict[str, torch.Tensor]:
        """Return what must survive a kill."""
        duals = {
            "s": self._s, "y": self._y, "z": np.array([self._z]), "moved": np.array([self._moved])
        }  # fmt: skip
        importance = {f"importance.{i}": a for i, a in enumerate(self._importance)}
        arrays = {**duals, **importance}
        return {
            **self.living.state(),
            **self.course.state(),
            **{name: torch.from_numpy(value) for name, value in arrays.items()},
        }

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` returned."""
        self._s, self._y = state["s"].numpy().copy(), state["y"].numpy().copy()
        self._z, self._moved = float(state["z"]), float(state["moved"])
        self._importance = [state[f"importance.{i}"].numpy().copy() for i in range(len(self._s))]
        self.living.load_state(state)
        self.course.load_state(state)
