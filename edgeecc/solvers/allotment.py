"""Widths within a load that keep the most value: the knapsack on a load that is no sum over groups.

What a width costs depends on its neighbours: layers are products of two widths. The load is therefore made a sum
over groups around a point, solved, and made a sum again around the middle between the present widths and the
solution. For a product of two widths the slopes at the middle give the exact difference (ours), so a solution
that comes twice is priced exactly. What remains, other forms and several limits at once, is set right one block
of units at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Sequence

import numpy as np

from edgeecc.graph.spec import FloatArray, IntArray
from edgeecc.solvers import knapsack
from edgeecc.solvers.base import Limit, Problem

#: Times that the load is made a sum; solutions hardly change after the third.
SWEEPS = 4


@dataclass(frozen=True)
class Allotment:
    """Widths that hold a load.

    Args:
        widths: (G,), whole numbers.
        gap: share by which the knapsack's value lies at most below the best of the same costs; 0 is proven best.
    """

    widths: FloatArray
    gap: float


class Allotter:
    """Chooses widths.

    Args:
        problem: its limits.
        ranked: per group the value of each unit that may stay, falling, at least 0.
        target: load that is to hold; 1 is the budget itself.
        grain: widths are multiples of it, or all units that may stay.
    """

    def __init__(
        self, problem: Problem, ranked: Sequence[FloatArray], *, target: float, grain: int = 1
    ) -> None:
        self._problem = problem
        self._target = target
        self._now = np.array([len(values) for values in ranked], dtype=np.float64)
        self._totals = [np.concatenate([[0.0], np.cumsum(values)]) for values in ranked]
        while grain > 1 and not self.holds(np.minimum(grain, self._now)):
            grain //= 2
        self._options = [_multiples(len(values), grain) for values in ranked]

    def holds(self, widths: FloatArray) -> bool:
        """Return whether widths (G,) hold the target."""
        if self._target <= 1.0:
            return self._problem.fits(widths)
        return self._problem.load(widths) <= self._target

    def choose(self) -> Allotment:
        """Return the best widths found; where not even the thinnest hold the target, those."""
        if self.holds(self._now):
            return Allotment(self._now.copy(), 0.0)
        best = Allotment(np.array([options[0] for options in self._options]), 0.0)
        solved = self._now
        for _ in range(SWEEPS):
            choice = self._solved(solved)
            before = solved
            solved = np.array([row[at] for row, at in zip(self._options, choice.options)])
            widths = self._filled(self._shrunk(solved))
            if self.holds(widths) and self._value(widths) > self._value(best.widths):
                best = Allotment(widths, choice.gap)
            if np.array_equal(solved, before):
                break
        return best

    def _solved(self, around: FloatArray) -> knapsack.Choice:
        """Solve the knapsack with the load as a sum around the middle of the present widths and `around`."""
        limit = max(self._problem.limits, key=lambda one: one.cost.predict(around) / one.bound)
        middle = 0.5 * (self._now + around)
        costs = [self._costs(limit, middle, group) for group in range(len(middle))]
        capacity = self._target - limit.cost.predict(self._now) / limit.bound
        # The sum may say that not even the thinnest widths hold; they are then the choice.
        capacity = max(capacity, sum(float(row.min()) for row in costs) + 1e-12)
        values = [totals[row.astype(np.int64)] for totals, row in zip(self._totals, self._options)]
        return knapsack.solve(values, costs, capacity)

    def _costs(self, limit: Limit, middle: FloatArray, group: int) -> FloatArray:
        """Return the load of each option of a group above that of its present width, neighbours at the middle."""
        trial = middle.copy()
        loads = np.zeros(len(self._options[group]) + 1)
        for place, width in enumerate([*self._options[group], self._now[group]]):
            trial[group] = width
            loads[place] = limit.cost.predict(trial) / limit.bound
        return np.asarray(loads[:-1] - loads[-1], dtype=np.float64)

    def _value(self, widths: FloatArray) -> float:
        return sum(float(row[int(width)]) for row, width in zip(self._totals, widths))

    def _shrunk(self, widths: FloatArray) -> FloatArray:
        """Narrow groups by one option, least value per load first, until the target holds."""
        widths = widths.copy()
        while not self.holds(widths):
            slope = self._problem.load_gradient(widths)
            ratios = np.full(len(widths), np.inf)
            for group, options in enumerate(self._options):
                if widths[group] > options[0] and slope[group] > 0.0:
                    ratios[group] = self._worth(group, widths[group], -1) / slope[group]
            group = int(np.argmin(ratios))
            if not np.isfinite(ratios[group]):
                return widths
            widths[group] = self._next(group, widths[group], -1)
        return widths

    def _filled(self, widths: FloatArray) -> FloatArray:
        """Widen groups by one option, most value per load first, while the target holds."""
        widths = widths.copy()
        closed = widths >= self._now
        while not closed.all():
            slope = self._problem.load_gradient(widths)
            slope = np.maximum(slope, 1e-12 * float(slope.max(initial=0.0)) + 1e-30)
            ratios = [
                -1.0 if closed[group] else self._worth(group, widths[group], 1) / slope[group]
                for group in range(len(widths))
            ]
            group = int(np.argmax(ratios))
            before = widths[group]
            widths[group] = self._next(group, before, 1)
            if not self.holds(widths):
                widths[group] = before
                closed[group] = True
            elif widths[group] >= self._now[group]:
                closed[group] = True
        return widths

    def _next(self, group: int, width: float, way: int) -> float:
        """Return the option beside a width, upwards (1) or downwards (-1)."""
        options = self._options[group]
        return float(options[int(np.searchsorted(options, width)) + way])

    def _worth(self, group: int, width: float, way: int) -> float:
        """Return the value per unit of the block between a width and the option beside it."""
        other = self._next(group, width, way)
        totals = self._totals[group]
        return float(abs(totals[int(other)] - totals[int(width)]) / abs(other - width))


def _multiples(width: int, grain: int) -> FloatArray:
    """Return the widths that a group of so many units may have: multiples of `grain`, and all of them."""
    widths: List[int] = [*range(grain, width, grain), width]
    return np.array(widths, dtype=np.float64)


def top_units(importance: FloatArray, alive: np.typing.NDArray[np.bool_], width: int) -> IntArray:
    """Return the indices of the `width` most important units among those alive, sorted."""
    ranked = np.argsort(np.where(alive, -importance, np.inf), kind="stable")
    return np.sort(ranked[:width]).astype(np.int64)
