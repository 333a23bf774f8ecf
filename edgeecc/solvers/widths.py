"""Integer widths that hold a target: of one group, of all together, filled up to what fits, and the least ones."""

from __future__ import annotations

from typing import Callable

import numpy as np

from edgeecc.graph.spec import FloatArray
from edgeecc.solvers.base import Problem

#: Whether widths (G,) hold a target; true of smaller widths where it is true of larger ones.
Holds = Callable[[FloatArray], bool]


def largest(widths: FloatArray, group: int, holds: Holds) -> int:
    """Return the largest width of a group, others as they are, below its present one that holds the target.

    Args:
        widths: (G,), integers, at least 1; not changed.
        group: place in `widths`.
        holds: monotone, see `Holds`.
    Returns: 0 where not even width 1 does.
    """
    trial = widths.copy()
    low, high = 0, int(widths[group])
    while high - low > 1:
        middle = (low + high) // 2
        trial[group] = middle
        low, high = (middle, high) if holds(trial) else (low, middle)
    return low


def shrunk(widths: FloatArray, holds: Holds) -> FloatArray:
    """Return the widths times the largest common factor that holds the target, rounded down, then filled up (ours).

    What rounding leaves goes, a unit each, to the groups that lost most by it.

    Args:
        widths: (G,), integers, at least 1; not changed.
        holds: true where every width is 1.
    """

    def at(factor: float) -> FloatArray:
        return np.maximum(1.0, np.floor(factor * widths + 1e-9))

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if holds(at(middle)) else (low, middle)
    found = at(low)
    for group in np.argsort(found / widths - low, kind="stable"):
        trial = found.copy()
        trial[group] = min(widths[group], trial[group] + 1.0)
        if holds(trial):
            found = trial
    return found


def filled(
    problem: Problem, widths: FloatArray, *, most: FloatArray, worth: Callable[[int, int], float]
) -> FloatArray:  # fmt: skip
    """Widen groups one unit at a time, most worth per load first, while the limits hold (ours).

    Args:
        problem: for its limits.
        widths: (G,), integers, within the limits; not changed.
        most: (G,), widths that are not exceeded.
        worth: group, width -> what one unit more is worth, at least 0, comparable between groups.
    Returns: (G,), integers, within the limits; no group can be widened by one unit.
    """
    widths = widths.copy()
    closed = widths >= most
    while not closed.all():
        slope = np.maximum(problem.load_gradient(widths), 1e-300)
        gain = [
            -1.0 if shut else worth(group, int(width)) / slope[group]
            for group, (shut, width) in enumerate(zip(closed, widths))
        ]
        best = int(np.argmax(gain))
        widths[best] += 1.0
        if not problem.fits(widths):
            widths[best] -= 1.0
            closed[best] = True
        elif widths[best] >= most[best]:
            closed[best] = True
    return widths


def floors(problem: Problem, least: int) -> FloatArray:
    """Return the least widths of a solve, (G,): `least` units of every group, or fewer where a budget is that low.

    They take at most half of what a limit leaves above width 1, so that there is something to choose.

    Args:
        problem: whose limits hold at width 1.
        least: at least 1; narrower groups keep all their units.
    """
    spec = problem.spec
    thinnest = spec.vector(spec.least_widths())
    dense = spec.vector(spec.dense_widths())
    rooms = [0.5 * (limit.cost.predict(thinnest) + limit.bound) for limit in problem.limits]
    for count in range(least, 1, -1):
        widths = np.minimum(dense, float(count))
        if all(limit.cost.predict(widths) <= room for limit, room in zip(problem.limits, rooms)):
            return widths
    return thinnest
