"""Widths within a load that keep the most value: the knapsack on a load that is no sum over groups.

What a width costs depends on its neighbours: layers are products of two widths. The load is therefore made a sum
over groups around a point, solved, and made a sum again around the middle between the present widths and the
solution. For a product of two widths the slopes at the middle give the exact difference (ours), so a solution
that comes twice is priced exactly. What remains, other forms and several limits at once, is set right one block
of units at a time (`ladder.repaired`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np

from edgeecc.graph.spec import FloatArray
from edgeecc.solvers import knapsack
from edgeecc.solvers.base import Limit, Problem
from edgeecc.solvers.ladder import ladder, repaired

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
        self._problem = problem.eased(max(1.0, target))
        self._now = np.array([len(values) for values in ranked], dtype=np.float64)
        while grain > 1 and not self._problem.fits(np.minimum(grain, self._now)):
            grain //= 2
        self._rungs = [ladder(values, grain, len(values)) for values in ranked]

    def choose(self) -> Allotment:
        """Return the best widths found; where not even the thinnest hold the target, those."""
        if self._problem.fits(self._now):
            return Allotment(self._now.copy(), 0.0)
        best = Allotment(np.array([float(rungs.widths[0]) for rungs in self._rungs]), 0.0)
        solved = self._now
        for _ in range(SWEEPS):
            choice = self._solved(solved)
            before = solved
            chosen = zip(self._rungs, choice.options)
            solved = np.array([float(rungs.widths[at]) for rungs, at in chosen])
            widths = repaired(self._problem, self._rungs, solved)
            if self._problem.fits(widths) and self._value(widths) > self._value(best.widths):
                best = Allotment(widths, choice.gap)
            if np.array_equal(solved, before):
                break
        return best

    def _solved(self, around: FloatArray) -> knapsack.Choice:
        """Solve the knapsack with the load as a sum around the middle of the present widths and `around`."""
        limit = max(self._problem.limits, key=lambda one: one.cost.predict(around) / one.bound)
        middle = 0.5 * (self._now + around)
        costs = [self._costs(limit, middle, group) for group in range(len(middle))]
        capacity = 1.0 - limit.cost.predict(self._now) / limit.bound
        # The sum may say that not even the thinnest widths hold; they are then the choice.
        capacity = max(capacity, sum(float(row.min()) for row in costs) + 1e-12)
        return knapsack.solve([rungs.kept for rungs in self._rungs], costs, capacity)

    def _costs(self, limit: Limit, middle: FloatArray, group: int) -> FloatArray:
        """Return the load of each option of a group above that of its present width, neighbours at the middle."""
        trial = middle.copy()
        widths = self._rungs[group].widths
        loads = np.zeros(len(widths) + 1)
        for place, width in enumerate([*widths, self._now[group]]):
            trial[group] = width
            loads[place] = limit.cost.predict(trial) / limit.bound
        return np.asarray(loads[:-1] - loads[-1], dtype=np.float64)

    def _value(self, widths: FloatArray) -> float:
        places = (int(np.searchsorted(r.widths, width)) for r, width in zip(self._rungs, widths))
        return sum(float(rungs.kept[place]) for rungs, place in zip(self._rungs, places))
