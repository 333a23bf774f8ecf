"""NetAdapt (ECCV 2018) for any cost: shrink one group a round, the one that a short training says to shrink.

Each round has a target for the load, the largest cost over its bound. For every group the largest width is found
that holds the target alone; the units that stay are those whose readers have the largest norm. Each such
candidate is trained for a few steps from the same weights on the same batches, and scored on images held out of
training. The best goes on with the weights it was trained to.

Two forms are published. ECC's comparison (CVPR 2019), the default: targets are the dense load times 0.96^k, the
best has the highest score. The official code: the best loses least score per load saved (`select="ratio"`;
of that form this rule alone is here: its targets fall from the load that was reached, by less every round, in widths
that are multiples of 8 or 64, and it may end above the budget).

Deviations, each so that the method ends within the bound or is not starved of steps:
- Norms are those of the weights that read a unit, over all its readers, as in ECC's comparison, and not those of
  the filters that make it: where a batch norm follows, the scale of a filter says nothing.
- Where no group holds the target alone, all groups shrink by one factor in that round; the published code stops.
- Where steps are few, either only the most promising candidates of a round are trained, chosen by their scores
  untrained, or rounds are fewer and larger (`scarce`).
- Images are held out by a plain draw, the same for every method.
- Candidates train by the optimiser and at the rate of the run, and it starts afresh for each. Adam that knows nothing
  yet moves every weight by the whole rate, in each of many short trainings; with `carry` it goes on with what it knew
  of the weights that they start from. Steps that a round does not take go to later ones.
- A candidate is scored with statistics of its own in its batch norms (`recalibrate`): a few steps leave those of the
  network that it was cut from, more so where only some candidates are trained.
- The last target is the bound itself. Room that is left goes to units that earlier rounds removed: what makes
  them comes back as it was at the start, and their readers begin at zero, so that nothing changes until training.
"""

from __future__ import annotations

from dataclasses import replace
from typing import List, Tuple

import numpy as np
import torch
from torch import nn

from edgeecc.graph.spec import FloatArray, NetworkSpec
from edgeecc.peer_config import NetAdaptConfig
from edgeecc.solvers.base import Problem, Solution, Step, Trainer, untouched
from edgeecc.solvers.feasibility import check_feasible
from edgeecc.solvers.finetune import FixedMasks
from edgeecc.solvers.netadapt_plan import planned, shared_out
from edgeecc.solvers.netadapt_state import (
    Progress,
    State,
    Trial,
    Weights,
    packed,
    unpacked,
)
from edgeecc.solvers.prox import top_mask
from edgeecc.solvers.sparse import zero_
from edgeecc.solvers.uniform import squared_norms
from edgeecc.solvers.units import Alive, UnitTable, copied, keep_of, widths_of
from edgeecc.solvers.widths import filled, largest, shrunk

#: Of the official code: keeps the ratio of a candidate that loses nothing apart from zero, and the load from it.
_LOSS, _SAVED = 1e-6, 1e-5
#: Under this name the search remembers.
_NAME = "netadapt"


class NetAdaptSolver:
    """The NetAdapt solver; see the module."""

    def __init__(self, config: NetAdaptConfig) -> None:
        self._config = config

    def solve(self, problem: Problem, trainer: Trainer, steps: int) -> Solution:
        """Prune within the bound; all candidates together take at most `steps` training steps.

        Raises: BudgetInfeasibleError before the first batch when no widths fit; ConfigError where no images are
            held out.
        """
        check_feasible(problem)
        if problem.is_met_by_dense():
            return untouched(problem, steps)
        return _Search(problem, trainer, steps, self._config).run()


class _Search:
    """One solve."""

    def __init__(
        self, problem: Problem, trainer: Trainer, steps: int, config: NetAdaptConfig
    ) -> None:
        spec = problem.spec
        self._problem, self._trainer, self._steps, self._config = problem, trainer, steps, config
        self._table = UnitTable(spec)
        self._dense = copied(trainer.model)
        self._dense_norms = squared_norms(trainer.model, problem)
        load = problem.load(spec.vector(spec.dense_widths()))
        self._plan = planned(load, steps, len(spec.prunable), config)
        renewing = config.recalibrate * trainer.batch
        self._images = trainer.sample(renewing) if renewing else None

    def run(self) -> Solution:
        """Go through the rounds that are left."""
        remembered = self._trainer.recall(_NAME)
        state, progress = self._start() if remembered is None else unpacked(remembered)
        while not self._problem.fits(widths_of(state.alive)):
            state, progress = self._round(state, progress), Progress()
            self._trainer.remember(_NAME, packed(state, progress))
        return self._finish(state)

    def _start(self) -> Tuple[State, Progress]:
        alive = [np.ones(group.width, dtype=bool) for group in self._problem.spec.prunable]
        score = self._score(alive)
        return State(alive, self._dense, score, 0.0, self._steps, 0), Progress()

    def _round(self, state: State, progress: Progress) -> State:
        """Return the state with the best candidate of a round."""
        turn = self._plan.turn(self._problem, widths_of(state.alive))
        candidates = self._candidates(state, self._plan.target(turn))
        due = self._plan.due(turn, self._steps, self._steps - state.left)
        trained, each = shared_out(due, len(candidates), self._config)
        shortlist = list(range(len(candidates)))
        if trained < len(candidates):
            progress = self._screen(state, progress, candidates)
            scores = progress.screened
            shortlist.sort(key=lambda i: self._key(state, scores[i], candidates[i]), reverse=True)
        if not trained:
            place = shortlist[0]
            self._prepare_(state.weights, candidates[place])
            weights = copied(self._trainer.model)
            best = Trial(place, progress.screened[place], state.loss, weights, state.moments)
        else:
            best = self._tried(state, progress, candidates, shortlist[:trained], each)
        spent = each * trained
        chosen = candidates[best.place]
        row = (
            float(self._steps - state.left + spent),
            best.loss,
            self._problem.first_cost(widths_of(chosen)),
            best.score,
        )
        return State(
            chosen, best.weights, best.score, best.loss, state.left - spent, state.seen + each, (*state.history, row),
            best.moments,
        )  # fmt: skip

    def _candidates(self, state: State, target: float) -> List[Alive]:
        """Return for each group that can hold the target alone which units live then; for none, all shrunk."""
        holds, now = self._problem.eased(max(1.0, target)).fits, widths_of(state.alive)
        self._trainer.model.load_state_dict(dict(state.weights))
        norms = squared_norms(self._trainer.model, self._problem)
        candidates = []
        for group in range(len(now)):
            width = largest(now, group, holds)
            if width:
                alive = list(state.alive)
                alive[group] = _strongest(norms[group], state.alive[group], width)
                candidates.append(alive)
        if candidates:
            return candidates
        widths = shrunk(now, holds)
        return [[_strongest(*group) for group in zip(norms, state.alive, widths)]]

    def _screen(self, state: State, progress: Progress, candidates: List[Alive]) -> Progress:
        """Score candidates as they are before training, from where an interrupted run stopped."""
        for alive in candidates[len(progress.screened) :]:
            self._prepare_(state.weights, alive)
            score = self._score(alive)
            progress = replace(progress, screened=(*progress.screened, score))
            self._tell(state, alive, 0, score=score, loss=state.loss)
            self._trainer.remember(_NAME, packed(state, progress))
        return progress

    def _tried(
        self, state: State, progress: Progress, candidates: List[Alive], shortlist: List[int], each: int
    ) -> Trial:  # fmt: skip
        """Train and score candidates, from where an interrupted run stopped; return the best."""
        for place in shortlist[progress.tried :]:
            trial = self._trained(state, place, candidates[place], each)
            best = progress.best
            if best is None or self._key(state, trial.score, candidates[place]) > self._key(
                state, best.score, candidates[best.place]
            ):
                best = trial
            progress = replace(progress, tried=progress.tried + 1, best=best)
            spent = each * progress.tried
            self._tell(state, candidates[place], spent, score=trial.score, loss=trial.loss)
            self._trainer.remember(_NAME, packed(state, progress))
        assert progress.best is not None  # noqa: S101  # the shortlist is not empty
        return progress.best

    def _trained(self, state: State, place: int, alive: Alive, steps: int) -> Trial:
        self._prepare_(state.weights, alive)
        phase = f"{_NAME}.{len(state.history)}.{place}"
        moments = dict(state.moments) if self._config.carry else None
        history = self._trainer.train(
            phase, steps, self._hooks(alive), first_batch=state.seen, rate=self._config.rate, reported=False,
            moments=moments,
        )  # fmt: skip
        loss = history[-1].loss if history else state.loss
        weights = copied(self._trainer.model)
        return Trial(place, self._score(alive), loss, weights, moments or {})

    def _score(self, alive: Alive) -> float:
        return self._trainer.held_out(keep_of(self._problem.spec, alive), self._images)

    def _key(self, state: State, score: float, alive: Alive) -> Tuple[float, float]:
        """Return what orders candidates, the best greatest; equals are ordered by the load saved."""
        problem = self._problem
        saved = problem.load(widths_of(state.alive)) - problem.load(widths_of(alive))
        if self._config.select == "score":
            return score, saved
        return -(state.score - score + _LOSS) / (saved + _SAVED), saved

    def _prepare_(self, weights: Weights, alive: Alive) -> None:
        """Give the network these weights, with dead units unread."""
        self._trainer.model.load_state_dict(dict(weights))
        zero_(self._trainer.model, self._table.masks(alive))

    def _hooks(self, alive: Alive) -> FixedMasks:
        return FixedMasks(self._table.masks(alive), self._problem.first_cost(widths_of(alive)))

    def _tell(self, state: State, alive: Alive, spent: int, *, score: float, loss: float) -> None:
        done = self._steps - state.left + spent
        cost = self._problem.first_cost(widths_of(alive))
        self._trainer.report("prune", Step(done, self._steps, loss, cost, {"score": score}))

    def _finish(self, state: State) -> Solution:
        """Give room back."""
        spec, steps, model = self._problem.spec, self._steps, self._trainer.model
        model.load_state_dict(dict(state.weights))
        alive = self._widened(state.alive)
        for group, (new, old) in enumerate(zip(alive, state.alive)):
            revive_(model, self._dense, spec, group, np.flatnonzero(new & ~old))
        zero_(model, self._table.masks(alive))
        history = [
            Step(int(done), steps, loss, cost, {"score": score})
            for done, loss, cost, score in state.history
        ]
        return Solution(keep_of(spec, alive), "converged", tuple(history), state.left)

    def _widened(self, alive: Alive) -> Alive:
        """Return the living units with those that the room left brings back: the strongest of the dense network."""
        norms = self._dense_norms
        lost = [np.sort(a[~living])[::-1] for a, living in zip(norms, alive)]
        now = widths_of(alive)

        def worth(group: int, width: int) -> float:
            total = float(norms[group].sum())
            return float(lost[group][width - int(now[group])]) / total if total > 0.0 else 0.0

        dense = self._problem.spec.vector(self._problem.spec.dense_widths())
        widths = filled(self._problem, now, most=dense, worth=worth)
        return [
            living | _strongest(a, ~living, width - before)
            for a, living, width, before in zip(norms, alive, widths, now)
        ]


def _strongest(
    norms: FloatArray, among: np.typing.NDArray[np.bool_], width: float
) -> np.typing.NDArray[np.bool_]:
    """Return the `width` units of the largest norm among some."""
    return top_mask(np.where(among, norms, -1.0), int(width))


def revive_(
    model: nn.Module, dense: Weights, spec: NetworkSpec, group: int, units: np.typing.NDArray[np.int64]
) -> None:  # fmt: skip
    """Put back in place what makes and carries units, as it was; what reads them stays zero.

    Args:
        model: changed.
        dense: weights to take it from.
        spec: of the model.
        group: place among the prunable groups.
        units: (n,), of that group.
    """
    if not len(units):
        return
    tensors = model.state_dict()
    for piece in spec.prunable[group].slices:
        if piece.role != "in":
            tensor = tensors[piece.parameter]
            at = torch.from_numpy(piece.indices(units).reshape(-1)).to(tensor.device)
            before = dense[piece.parameter].index_select(piece.axis, at)
            with torch.no_grad():
                tensor.index_copy_(piece.axis, at, before)
