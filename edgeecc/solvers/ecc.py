"""ECC (CVPR 2019): ADMM over weights and widths, in the scale-free form (default) and as published.

Scale-free, `metric="taylor"` (ours): importance in units of loss, energy divided by the dense energy, and an
explicit schedule. Each training step is one round:

1. W: Adam on the distillation loss, then the proximal step of `prox` on the units' importance, an exponential
   average of (sum of w dL/dw over the weights that read the unit)^2 divided by its mean over all units.
2. s: `sstep.flow` down to the target of this step, dense * b^(t/T) for the budget's share b. y stands at its
   trim, z is what frees the cheapest group.
3. Removed units stay removed: weights and optimiser moments are masked after every step.

The last round rounds s to integers and gives what is left of the budget back to the units that are worth most
per energy among those about to go.

As published, `metric="adam"`: Algorithm 1 with its own importance, s-step and dual steps in channels and SI
units. Deviations, each needed for it to end well: the paper's sum of squares in place of the code's squared
sum; z_min restricted to groups that can move; s rests once E(s) <= E_b; removed units stay removed; when the
steps are spent before the budget is met the rest is cut by `sstep.flow`, and the status says so.
"""

from __future__ import annotations

import math
from typing import Dict, List, Mapping

import numpy as np
import torch
from torch import nn

from edgeecc.config import EccConfig
from edgeecc.errors import ConfigError
from edgeecc.graph.spec import FloatArray
from edgeecc.solvers.base import Problem, Solution, Trainer
from edgeecc.solvers.feasibility import check_feasible
from edgeecc.solvers.filling import give_back
from edgeecc.solvers.prox import survivors, top, trim
from edgeecc.solvers.sstep import SNAP, flow, marginal, published_step
from edgeecc.solvers.units import Alive, UnitTable, keep_of, mask_weights_, widths_of


class EccSolver:
    """The ECC solver; see the module."""

    def __init__(self, config: EccConfig) -> None:
        self._config = config

    def solve(self, problem: Problem, trainer: Trainer, steps: int) -> Solution:
        """Prune within the bound in exactly `steps` training steps.

        Raises: BudgetInfeasibleError before the first batch when no widths fit.
        """
        check_feasible(problem)
        spec = problem.spec
        if problem.is_met_by_dense():
            return Solution(spec.keep_all(), "already_within", ())
        hooks = (
            TaylorHooks(problem, self._config)
            if self._config.metric == "taylor"
            else AdamHooks(problem, self._config)
        )
        history = trainer.train("prune", steps, hooks)
        status = hooks.finish(trainer.model)
        return Solution(keep_of(spec, hooks.alive), status, tuple(history))


class _EccHooks:
    """State that both forms share: living units, bounds s, duals."""

    def __init__(self, problem: Problem, config: EccConfig) -> None:
        self.problem = problem
        self.config = config
        self.table = UnitTable(problem.spec, through=config.metric == "adam")
        self.alive: Alive = [np.ones(group.width, dtype=bool) for group in problem.spec.prunable]
        self.s = problem.spec.vector(problem.spec.dense_widths())
        self.y = np.zeros_like(self.s)
        self.z = 0.0
        self.importance: List[FloatArray] = [
            np.zeros(group.width) for group in problem.spec.prunable
        ]
        self._masks: Dict[str, torch.Tensor] = {}

    def cost(self) -> float:
        """Return the cost of the present integer widths by the first limit, SI."""
        return self.problem.first_cost(widths_of(self.alive))

    def fits(self) -> bool:
        """Return whether the present integer widths hold every limit."""
        return self.problem.fits(widths_of(self.alive))

    def live_importance(self) -> List[FloatArray]:
        """Return importance with dead units at -1, so that they rank last."""
        return [np.where(living, a, -1.0) for living, a in zip(self.alive, self.importance)]

    def set_alive(self, alive: Alive) -> None:
        """Let units die; none comes back."""
        new = [living & old for living, old in zip(alive, self.alive)]
        if any((living != old).any() for living, old in zip(new, self.alive)) or not self._masks:
            self.alive = new
            self._masks = self.table.masks(new)

    def mask_(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Keep dead units dead."""
        mask_weights_(model, optimizer, self._masks)

    def numbers(self) -> Mapping[str, float]:
        """Return what a step reports: the cost, the duals (y as the largest), and the sum of the bounds."""
        return {
            "cost": self.cost(),
            "z": self.z,
            "y": float(self.y.max(initial=0.0)),
            "s": float(self.s.sum()),
        }

    def forced(self, model: nn.Module) -> bool:
        """Cut what the steps did not reach; return whether there was any.

        Where no step has measured importance, squared norms, as shares of their group's, stand in (ours).
        """
        if self.fits():
            return False
        if not any(a.any() for a in self.importance):
            parameters = dict(model.named_parameters())
            norms = self.table.sums(lambda name: parameters[name].detach() ** 2)
            self.importance = [norm / (norm.sum() + 1e-30) for norm in norms]
        self.cut()
        return True

    def cut(self) -> None:
        """Bring integer widths within the limits: flow, round down, give back what still fits."""
        ranked = [np.sort(a[living])[::-1] for a, living in zip(self.importance, self.alive)]
        now = widths_of(self.alive)
        problem = self.problem
        s, _ = flow(
            np.minimum(self.s, now), ranked, energy=problem.load, slope=problem.load_gradient, target=1.0
        )  # fmt: skip
        widths = np.maximum(1.0, np.floor(s + SNAP))
        if not problem.fits(widths):  # snapping up may cost a rounding error too much
            widths = np.maximum(1.0, np.floor(s))
        widths = give_back(widths, now, ranked, problem=problem)
        self.s = widths
        self.set_alive(
            [
                _chosen(a, living, int(width))
                for a, living, width in zip(self.importance, self.alive, widths)
            ]
        )

    def state(self) -> Dict[str, torch.Tensor]:
        """Return what must survive a kill."""
        state = {
            "s": torch.from_numpy(self.s),
            "y": torch.from_numpy(self.y),
            "z": torch.tensor([self.z]).double(),
        }
        for index, (living, a) in enumerate(zip(self.alive, self.importance)):
            state[f"alive.{index}"] = torch.from_numpy(living)
            state[f"importance.{index}"] = torch.from_numpy(a)
        return state

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` returned."""
        self.s, self.y = state["s"].numpy().copy(), state["y"].numpy().copy()
        self.z = float(state["z"])
        self.importance = [state[f"importance.{i}"].numpy().copy() for i in range(len(self.alive))]
        self._masks = {}
        self.set_alive([state[f"alive.{i}"].numpy().astype(bool) for i in range(len(self.alive))])


class TaylorHooks(_EccHooks):
    """The scale-free form."""

    def __init__(self, problem: Problem, config: EccConfig) -> None:
        super().__init__(problem, config)
        self.dense = problem.load(self.s)

    def after_backward(self, model: nn.Module) -> None:
        """Average the squared Taylor term of every unit."""
        parameters = dict(model.named_parameters())

        def first_order(name: str) -> torch.Tensor:
            gradient = parameters[name].grad
            if gradient is None:
                raise _untrained(name)
            return parameters[name].detach() * gradient

        decay = self.config.importance_decay
        for average, total in zip(self.importance, self.table.sums(first_order)):
            average *= decay
            average += (1.0 - decay) * total**2

    def after_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, steps: int
    ) -> Mapping[str, float]:  # fmt: skip
        """One round of s, y, z and the proximal step."""
        warm = min(self.config.warmup, steps // 10)
        if step > warm:
            share = min(1.0, (step - warm) / max(1, math.floor((steps - warm) * self.config.ramp)))
            target = self.dense ** (1.0 - share)
            self._round(target, last=share >= 1.0)
        self.mask_(model, optimizer)
        return self.numbers()

    def finish(self, model: nn.Module) -> str:
        """Make sure of the bound (a phase of no steps has made no round)."""
        return "cut_without_training" if self.forced(model) else "converged"

    def _round(self, target: float, *, last: bool) -> None:
        if last:
            if not self.fits():
                self.cut()
            return
        mean = np.mean(
            np.concatenate([a[living] for a, living in zip(self.importance, self.alive)])
        )
        scaled = [a / (mean + 1e-30) for a in self.live_importance()]
        ranked = [np.sort(a)[::-1] for a in scaled]
        problem = self.problem
        # Energy enters divided by dense, so z and y are in units of mean importance whatever the metric.
        self.s, z = flow(
            self.s,
            ranked,
            energy=lambda s: problem.load(s) / self.dense,
            slope=lambda s: problem.load_gradient(s) / self.dense,
            target=target / self.dense,
        )
        self.z = max(self.z, z)
        self.y = np.array([marginal(values, s) for values, s in zip(ranked, self.s)])
        self.set_alive(
            [_proximal(a, s, y, self.config.rho1) for a, s, y in zip(scaled, self.s, self.y)]
        )


class AdamHooks(_EccHooks):
    """The published form."""

    def __init__(self, problem: Problem, config: EccConfig) -> None:
        super().__init__(problem, config)
        self.met_at = 0

    def after_backward(self, model: nn.Module) -> None:
        """Do nothing: the published importance comes from the optimiser."""

    def after_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, steps: int
    ) -> Mapping[str, float]:  # fmt: skip
        """One iteration of Algorithm 1 after its Adam step."""
        del steps
        self.mask_(model, optimizer)
        self.importance = self._weighted_norms(model, optimizer)
        if not self.fits():
            self._iterate(alpha=float(optimizer.param_groups[0]["lr"]))
            self.mask_(model, optimizer)
            if self.fits():
                self.met_at = step
        return self.numbers()

    def finish(self, model: nn.Module) -> str:
        """Cut what the steps did not reach."""
        return "cut_after_steps" if self.forced(model) else "converged"

    def _weighted_norms(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> List[FloatArray]:
        """Return a_i = sum of w^2 (sqrt(v) + eps), v bias-corrected (ECC eq. 11; the code leaves the bias in)."""
        parameters = dict(model.named_parameters())

        def weighted(name: str) -> torch.Tensor:
            parameter = parameters[name].detach()
            state = optimizer.state.get(parameters[name])
            if not state:
                raise _untrained(name)
            corrected = state["exp_avg_sq"] / (1.0 - 0.999 ** float(state["step"]))
            weight: torch.Tensor = parameter**2 * (corrected.sqrt() + 1e-8)
            return weight

        return self.table.sums(weighted)

    def _iterate(self, alpha: float) -> None:
        rho1, rho2 = self.config.rho1, self.config.rho2
        chosen: Alive = []
        for group, a in enumerate(self.live_importance()):
            a = np.maximum(a, 0.0)
            self.y[group] = trim(a, self.s[group], self.y[group], rho1=rho1, alpha=alpha)
            chosen.append(_proximal(a, self.s[group], self.y[group], rho1, alpha, up=False))
        self.set_alive(chosen)
        limit, k = self.problem.limits[0], widths_of(self.alive)
        cost, bound = limit.cost, limit.bound
        excess = cost.predict(self.s) - bound
        if excess > 0.0:
            self.s, self.z = published_step(
                self.s, k, self.y, self.z, excess=excess, slope=cost.gradient(self.s), rho=(rho1, rho2),
                epsilon=self.config.epsilon, beta=self.config.beta,
            )  # fmt: skip
        self.z = max(0.0, self.z + rho2 * (cost.predict(self.s) - bound))
        self.y = np.maximum(0.0, self.y + rho1 * (k - np.floor(self.s)))


def _proximal(
    a: FloatArray, s: float, y: float, rho1: float, alpha: float = 1.0, *, up: bool = True
) -> np.typing.NDArray[np.bool_]:  # fmt: skip
    """Return the units that the proximal step keeps, at least ceil(s) (`up`, ours) or floor(s) (ECC) of them."""
    least = max(1, math.ceil(s - 1e-9) if up else math.floor(s + 1e-9))
    kept = np.zeros(len(a), dtype=bool)
    kept[top(a, min(least, len(a)))] = True
    kept[survivors(np.maximum(a, 0.0), float(least) if up else s, y, rho1=rho1, alpha=alpha)] = True
    return kept


def _untrained(name: str) -> ConfigError:
    return ConfigError(
        f"{name} gets no gradient, so ecc cannot weigh the channels it reads; unfreeze it or use --method uniform"
    )


def _chosen(
    a: FloatArray, living: np.typing.NDArray[np.bool_], width: int
) -> np.typing.NDArray[np.bool_]:
    kept = np.zeros(len(a), dtype=bool)
    kept[top(np.where(living, a, -1.0), width)] = True
    return kept
