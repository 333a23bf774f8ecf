"""How many channels each group keeps under a budget, from what its readers' outputs lose with every width (ours).

What the outputs of a layer lose over what they keep is noise over signal, and the noise of layers adds up on the
way to the output, as in `allocation`. So the sum over all layers is made small: channels leave one after the
other, always from the group whose sum grows least per load saved.
"""

from __future__ import annotations

from typing import List, Sequence

import numpy as np

from edgeecc.graph.spec import FloatArray
from edgeecc.solvers.base import Problem
from edgeecc.solvers.sstep import SNAP, flow
from edgeecc.solvers.widths import filled

#: Kept share from which on noise over signal no longer grows, as in `allocation`.
LEAST = 1e-3


def noise(shares: Sequence[FloatArray], count: int) -> FloatArray:
    """Return the sum of lost over kept over layers, (n,), for the kept shares (n,) of each; n is `count`."""
    total = np.zeros(count)
    for kept in shares:
        total += 1.0 / np.maximum(kept, LEAST) - 1.0
    return total


def worths(curve: FloatArray) -> FloatArray:
    """Return what each further channel saves, (n,), falling: the slopes of a curve's greatest convex minorant.

    Args:
        curve: (n,), noise with 1, 2, ..., n channels.
    Returns: infinity for the first channel, without which there is no group.
    """
    hull: List[int] = []
    for end in range(len(curve)):
        while len(hull) > 1 and _above(curve, hull[-2], hull[-1], end):
            hull.pop()
        hull.append(end)
    slopes = np.full(len(curve), np.inf)
    for start, end in zip(hull, hull[1:]):
        slopes[start + 1 : end + 1] = max(0.0, float(curve[start] - curve[end]) / (end - start))
    return slopes


def _above(curve: FloatArray, first: int, middle: int, last: int) -> bool:
    """Return whether the middle point is on or above the line through the others."""
    run = (middle - first) / (last - first)
    return bool(curve[middle] >= curve[first] + run * (curve[last] - curve[first]))


def allotted(
    problem: Problem, now: FloatArray, worth: Sequence[FloatArray], target: float
) -> FloatArray:
    """Return the widths, (G,), integers, that hold a target load; for 1 the limits, and nothing more fits.

    Args:
        problem: its limits.
        now: present widths, (G,).
        worth: of each group's channels, see `worths`.
        target: load, at least 1.
    """
    finite = [np.minimum(values, 1e300) for values in worth]
    s, _ = flow(now, finite, energy=problem.load, slope=problem.load_gradient, target=target)
    holds = problem.eased(max(1.0, target)).fits
    widths = np.maximum(1.0, np.floor(s + SNAP))
    if not holds(widths):  # snapping up may cost a rounding error too much
        widths = np.maximum(1.0, np.floor(s))
    if target > 1.0 or not holds(widths):
        return widths
    return filled(problem, widths, most=now, worth=lambda g, width: float(finite[g][width]))
