"""ECC (CVPR 2019): ADMM over weights and widths, in the scale-free form (default) and as published.

Scale-free, `metric="taylor"` (ours): importance from units of loss, levelled between layers (`levels`), costs divided
by their bounds, and an explicit schedule. A training step moves the weights by Adam on the distillation loss; every
few steps a round follows:

1. s: `widthstep.solve` finds the bounds of this round's targets and a dual z for each limit; of every cost what can
   be reduced falls geometrically to its limit (`schedule`). `ladder` fills what whole channels leave of a target. y
   stands at its trim, half the importance of the last unit inside s.
2. W: the proximal step of `prox` keeps the units within their bounds. Before the others go, those that stay take
   over what can be told from them (`standin`), a primal step in closed form.
3. Removed units stay removed: weights and optimiser moments are masked after every step.

The last round lands on the bounds themselves: `ladder` goes to integer widths (whole tiles of the device, where it
has some) that hold every limit, and swaps units between groups until no swap keeps more importance. A solve has
converged where the residuals of that round are small (`residuals`). The duals z that it ends with are prices of the
whole way, over all units at what they were worth while they lived.

As published, `metric="adam"`: see `ecc_published`.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import ContextManager, Dict, List, Mapping, Optional, Tuple

import numpy as np
import torch
from torch import nn

from edgeecc.config import EccConfig
from edgeecc.errors import ConfigError
from edgeecc.graph.spec import FloatArray
from edgeecc.solvers.base import Problem, Solution, Trainer, untouched
from edgeecc.solvers.course import Course
from edgeecc.solvers.ecc_published import PublishedHooks
from edgeecc.solvers.feasibility import check_feasible
from edgeecc.solvers.importance import Importance
from edgeecc.solvers.ladder import Ladder, integer_widths, widths_around, widths_by_tiles
from edgeecc.solvers.living import Living
from edgeecc.solvers.prox import kept_mask
from edgeecc.solvers.residuals import Residuals, dual_residual, price_gap, primal_residual
from edgeecc.solvers.schedule import depth, on_the_way
from edgeecc.solvers.uniform import norm_shares
from edgeecc.solvers.units import Alive, UnitTable, keep_of
from edgeecc.solvers.widths import floors
from edgeecc.solvers.widthstep import solve


class EccSolver:
    """The ECC solver; see the module."""

    def __init__(self, config: EccConfig) -> None:
        self._config = config

    def solve(self, problem: Problem, trainer: Trainer, steps: int) -> Solution:
        """Prune within every limit: as published in `steps` training steps, scale-free in as many as are `needed`.

        Raises: BudgetInfeasibleError before the first batch when no widths fit; ConfigError for several limits with
            the published form.
        """
        check_feasible(problem)
        spec = problem.spec
        if problem.is_met_by_dense():
            return untouched(problem, steps)
        taken = steps
        if self._config.metric == "adam":
            published = PublishedHooks(problem, self._config)
            history = trainer.train("prune", steps, published)
            status, living = published.finish(trainer.model), published.living
            course = published.course
        else:
            taken = needed(problem, steps, self._config)
            hooks = ScaleFreeHooks(problem, self._config, trainer)
            with hooks.watching():
                history = trainer.train("prune", taken, hooks)
            status, living, course = hooks.finish(), hooks.living, hooks.course
        keep = keep_of(spec, living.alive)
        return Solution(keep, status, tuple(history), steps - taken, course.to_json())


class ScaleFreeHooks:
    """The scale-free form; `Hooks`."""

    def __init__(self, problem: Problem, config: EccConfig, trainer: Trainer) -> None:
        self._problem = problem
        self._config = config
        self._model = trainer.model
        self.living = Living(problem, UnitTable(problem.spec))
        self._importance = Importance(
            problem.spec, trainer.model, decay=config.importance_decay, batch=trainer.batch, total=trainer.total,
            share=config.stand_in,
        )  # fmt: skip
        dense = self.living.widths()
        self._dense_widths = dense
        self._least = floors(problem, config.least)
        self._s = dense
        self._y = np.zeros_like(dense)
        self._z = np.zeros(len(problem.limits))
        self._worth = [np.zeros(group.width) for group in problem.spec.prunable]
        self._levelled = False
        self._dual, self._gap = 0.0, 0.0  # residuals of the last round
        self.course = Course([group.name for group in problem.spec.prunable])

    def watching(self) -> ContextManager[None]:
        """Take in what layers read while the context is open."""
        return self._importance.watching(self._model)

    def after_backward(self, model: nn.Module) -> None:
        """Take in the gradients, as long as there is something to choose."""
        if self.living.fits():
            self._importance.stop()
        else:
            self._importance.take(model)

    def after_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, steps: int
    ) -> Mapping[str, float]:  # fmt: skip
        """Hold a round of s, y, z and the proximal step where one is due."""
        if not self.living.fits():
            share = round_share(self._config, step, steps)
            if share is not None:
                self._round(share)
        self.living.mask_(model, optimizer)
        self.course.take(step, steps, self._s, self._y)
        return self._numbers()

    def finish(self) -> str:
        """Make sure of the limits (a phase of no steps has made no round); return how it ended."""
        if self.living.fits():
            return "converged" if self.residuals().are_small else "landed_in_large_steps"
        importance = norm_shares(self._model, self._problem)
        self._remember(importance)
        self._land(importance)
        return "cut_without_training"

    def residuals(self) -> Residuals:
        """Return how far the present widths are from a solution."""
        primal = primal_residual(self._problem, self.living.widths(), self._s, self._dense_widths)
        return Residuals(primal, self._dual, self._gap)

    def _round(self, share: float) -> None:
        """Move towards the limits: `share` 0 settles importance only, 1 lands on them."""
        self._importance.settle(self.living.alive)
        if share <= 0.0:
            return
        if not self._levelled:
            self._importance.level_(self._config.level)
            self._levelled = True
        importance = self._importance.as_they_go(self.living.alive)
        if not all(np.isfinite(a).all() for a in importance):
            raise ConfigError(
                f"gradients are not finite {share:.0%} of the way to the budget; lower --lr, or give another "
                "--precision"
            )
        self._remember(importance)
        if share >= 1.0:
            self._land(importance)
            return
        targets = on_the_way(self._problem, share)
        ranked, scale = self._ranked(importance)
        near = self._width_step(ranked, targets)
        rungs = self._ladders(importance, max(1, self._config.tile))
        self._move(widths_around(targets, rungs, near), ranked, targets)
        self._prune(
            [
                # A tie with y stays out beyond s.
                kept_mask(
                    np.where(living, a * scale, -1.0), s, y * (1.0 + 1e-12), rho1=self._config.rho1
                )
                for living, a, s, y in zip(self.living.alive, importance, self._s, self._y)
            ]
        )

    def _ranked(self, importance: List[FloatArray]) -> Tuple[List[FloatArray], float]:
        """Return the importance of living units over its mean, falling, and what it was multiplied by."""
        live = self.living.of(importance)
        scale = float(1.0 / (np.mean(np.concatenate(live)) + 1e-300))
        return [np.sort(a * scale)[::-1] for a in live], scale

    def _width_step(self, ranked: List[FloatArray], targets: Problem) -> FloatArray:
        """Set z to the prices of these targets; return the widths that they ask for."""
        near, self._z = solve(
            ranked, targets.limits, start=self._s, duals=self._z, least=self._least
        )
        return near

    def _move(self, bounds: FloatArray, ranked: List[FloatArray], targets: Problem) -> None:
        """Set s, and y at its trim; tell what moved, and what the widths leave at the prices of these targets."""
        grain = max(1, self._config.tile, *(limit.cost.tile for limit in targets.limits))
        self._dual = dual_residual(self._s, bounds, self._dense_widths, grain=grain)
        self._gap = price_gap(ranked, targets.limits, bounds, self._z, least=self._least)
        self._s = bounds
        self._y = np.array([values[int(s) - 1] / 2.0 for values, s in zip(ranked, bounds)])

    def _land(self, importance: List[FloatArray]) -> None:
        """Go to integer widths within the limits."""
        widths = self._landing(importance)
        ranked, scale = self._ranked(importance)
        self._width_step(ranked, self._problem)
        self._move(widths, ranked, self._problem)
        self._z = self._prices(scale)
        self._prune(self.living.chosen(importance, widths))

    def _remember(self, importance: List[FloatArray]) -> None:
        """Keep what living units are worth now, so that in the end it is known of all units."""
        for living, a, worth in zip(self.living.alive, importance, self._worth):
            worth[living] = a[living]

    def _prices(self, scale: float) -> FloatArray:
        """Return z of the whole way, (M,): prices at which all units, at what they were worth last, hold the limits.

        The last round has a unit or two to take, which tells a price of one limit where several are held.
        """
        ranked = [np.sort(worth * scale)[::-1] for worth in self._worth]
        limits = self._problem.limits
        return solve(ranked, limits, start=self._dense_widths, duals=self._z, least=self._least)[1]

    def _landing(self, importance: List[FloatArray]) -> FloatArray:
        """Return integer widths within the limits: multiples of what is set, or else by the tiles of the costs."""
        start, single = self.living.widths(), self._ladders(importance)
        if self._config.tile:
            tiled = self._ladders(importance, self._config.tile)
            widths = integer_widths(self._problem, tiled, start)
            if self._problem.fits(widths):
                return widths
        tile = max(limit.cost.tile for limit in self._problem.limits)
        if tile == 1:
            return integer_widths(self._problem, single, start)
        tiled = self._ladders(importance, tile, below=True)
        return widths_by_tiles(self._problem, tiled, single, start)

    def _ladders(
        self, importance: List[FloatArray], tile: int = 1, *, below: bool = False
    ) -> List[Ladder]:
        return self.living.ladders(importance, tile, below=below, least=self._least)

    def _prune(self, alive: Alive) -> None:
        before = self.living.alive
        self.living.let_die(alive)
        self._importance.let_go_(self._model, before, self.living.alive)

    def _numbers(self) -> Mapping[str, float]:
        """Return the cost, the duals (y as the largest), the sum of the bounds, and the residuals."""
        numbers = {
            "cost": self.living.cost(),
            "y": float(self._y.max(initial=0.0)),
            "s": float(self._s.sum()),
            **asdict(self.residuals()),
        }
        for limit, z in zip(self._problem.limits, self._z):
            numbers[f"z.{limit.cost.metric.value}"] = float(z)
        return {**numbers, **self._problem.loads(self.living.widths())}

    def state(self) -> Dict[str, torch.Tensor]:
        """Return what must survive a kill."""
        arrays = {
            "s": self._s, "y": self._y, "z": self._z,
            "residuals": np.array([self._dual, self._gap]),
            "levelled": np.array(self._levelled),
            **{f"worth.{index}": worth for index, worth in enumerate(self._worth)},
        }  # fmt: skip
        return {
            **{name: torch.from_numpy(value) for name, value in arrays.items()},
            **{f"importance.{name}": value for name, value in self._importance.state().items()},
            **self.living.state(),
            **self.course.state(),
        }

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` returned.

        Raises: ValueError when it is of another problem.
        """
        own = (self._s, self._y, self._z)
        known = [state[name].numpy().copy() for name in ("s", "y", "z")]
        if [one.shape for one in known] != [one.shape for one in own]:
            raise ValueError("bounds and duals are of another problem")
        self._s, self._y, self._z = known
        self._dual, self._gap = (float(value) for value in state["residuals"])
        self._levelled = bool(state["levelled"])
        self._worth = [state[f"worth.{i}"].numpy().copy() for i in range(len(self._worth))]
        mine = "importance."
        self._importance.load_state(
            {name[len(mine) :]: value for name, value in state.items() if name.startswith(mine)}
        )
        self.living.load_state(state)
        self.course.load_state(state)


def needed(problem: Problem, steps: int, config: EccConfig) -> int:
    """Return the steps in which a budget is reached: the further it is, the more, so that rounds take alike (ours).

    In the share `ramp` of the steps, but in no fewer than `pace` where there are as many, what can be reduced of a cost
    falls to a tenth; no budget takes more of them, and none less than importance takes to settle, `warmup`.

    Args:
        problem: its limits; the furthest counts.
        steps: that there are.
        config: for `ramp`, `pace` and `warmup`.
    """
    dense = problem.spec.vector(problem.spec.dense_widths())
    furthest = max(depth(limit, dense) for limit in problem.limits) / math.log(10.0)
    most = min(steps, max(steps * config.ramp, config.pace))
    return math.ceil(min(most, max(most * furthest, config.warmup)))


def round_share(config: EccConfig, step: int, steps: int) -> Optional[float]:
    """Return how far the schedule is at a step, 0 before the first removal and 1 at the budget; None: no round is due.

    Rounds are a whole number of steps apart, rounded down: there are `rounds` of them, and up to twice as many, or one
    a step where there are fewer; in the warm-up before, they only settle what importance is taken against.
    """
    warm = min(config.warmup, steps // 10)
    ramp = max(1, steps - warm)
    every = max(1, ramp // config.rounds)
    done = step - warm
    if done >= ramp:
        return 1.0
    if done <= 0:
        return 0.0 if step == 1 or step % every == 0 else None
    return done / ramp if done % every == 0 else None
