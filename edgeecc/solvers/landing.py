"""From the present integer widths to ones whose load lies in a band: units only go, or only come back (ours).

A solver holds a bound; here the load is to end up inside a narrow band below it, near the present widths, so that what
training settled stays. Above the middle of the band the units of least worth go, below it the best of those that went
come back; the widths are those of `ladder` for a bound in the band, the nearest to its middle of a few.
"""

from __future__ import annotations

from typing import List, Sequence

import numpy as np

from edgeecc.graph.spec import FloatArray
from edgeecc.solvers.base import Problem
from edgeecc.solvers.ladder import Ladder, integer_widths, widths_by_tiles

#: Bounds that are tried between the middle of the band and its upper end: what fills one may stay far below it.
TRIED = 4


def land(
    problem: Problem, worth: Sequence[FloatArray], start: FloatArray, *, low: float
) -> FloatArray:
    """Return the integer widths nearest to the middle of the band of loads `low`..1, all bigger or all smaller.

    Args:
        problem: its bounds are the upper end of the band.
        worth: per group what each unit is worth, (c_g,), at least 0, in the order in which units stay.
        start: present widths, (G,), integers.
        low: lower end of the band, in (0, 1].
    Returns: (G,); `start` where no unit can go or come back.
    """
    middle = 0.5 * (1.0 + low)
    fewer = problem.load(start) > middle
    ends = [
        (1, int(width)) if fewer else (int(width), len(values))
        for width, values in zip(start, worth)
    ]
    tile = max(limit.cost.tile for limit in problem.limits)
    single = [_rungs(values, *end) for values, end in zip(worth, ends)]
    tiled = [_rungs(values, *end, tile=tile) for values, end in zip(worth, ends)]
    found: List[FloatArray] = []
    for bound in np.linspace(middle, 1.0, TRIED):
        eased = problem.eased(float(bound))
        if tile > 1:
            found.append(widths_by_tiles(eased, tiled, single, start))
        else:
            found.append(integer_widths(eased, single, start))
    return min(found, key=lambda widths: abs(problem.load(widths) - middle))


def _rungs(worth: FloatArray, least: int, most: int, *, tile: int = 1) -> Ladder:
    """Return the ladder of the widths least..most of a group: single units below a tile, then whole tiles."""
    widths = [
        width
        for width in range(least, most + 1)
        if width < tile or not width % tile or width in (least, most)
    ]
    total = np.cumsum(worth)
    rungs = np.array(widths, dtype=np.int64)
    return Ladder(rungs, np.asarray(total[rungs - 1], dtype=np.float64))
