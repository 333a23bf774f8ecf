"""The width step of ECC solved exactly in its dual: closed form per group, one dual for each limit (ours).

    argmin_s  sum_g (importance of the units beyond s_g) / 2   subject to   E_m(s) <= target_m for every limit m

With duals z_m >= 0 the Lagrangian falls apart into groups once the other widths are fixed: the r-th unit of a group
stays where half its importance is above sum_m z_m dE_m/ds_g, which is ECC's proximal rule with y_g at its trim.
Going through the groups until nothing changes is coordinate descent on the Lagrangian. Each z_m is the smallest
that holds its limit, found by bisection; a limit that holds anyway, alone or by another's price, has z_m = 0.
Unlike the flow of `sstep`, which only takes away, a width may grow again when what it costs has fallen with its
neighbours. Where several prices are needed they are found in turn, and at last raised by one factor until all limits
hold at once.
"""

from __future__ import annotations

import math
from typing import List, Optional, Sequence, Tuple

import numpy as np

from edgeecc.graph.spec import FloatArray
from edgeecc.solvers.base import Limit

#: Passes over the groups at most; two or three settle.
SWEEPS = 8
#: Halvings of a bracket of a dual, to less than a thousandth of the mean price of a unit: of a dual far below that, in
#: a first round, a coarse one. What it leaves of a target is filled by whole units, as what rounding leaves is.
HALVINGS = 12
#: Rounds over several duals at most, where no limit holds the others too. Few are needed but where costs are alike, and
#: there more keep a thousandth more importance in a single solve (benchmarks/joint_budgets.py).
ROUNDS = 8
#: A dual beyond which no price is told.
LARGEST = 1e250


def solve(
    ranked: Sequence[FloatArray], limits: Sequence[Limit], *, start: FloatArray, duals: FloatArray,
    least: Optional[FloatArray] = None,
) -> Tuple[FloatArray, FloatArray]:  # fmt: skip
    """Return integer widths (G,) and duals (M,), importance per share of the bound.

    Args:
        ranked: per group the importance of the units that may stay, falling, at least one.
        limits: their bounds are the targets of this step.
        start: (G,), widths to start from; more than may stay is less.
        duals: (M,), where the search starts that several limits take, where no price of one holds the others too.
        least: (G,), widths that are kept at least; None is 1.
    Returns: widths within the targets, at least `least`, up to what the search leaves of a target by its tolerance;
        where these are too much, these, with infinite duals.
    """
    halves = [values / 2.0 for values in ranked]
    most = np.array([len(values) for values in ranked], dtype=np.float64)
    floor = np.ones_like(most) if least is None else np.minimum(least, most)
    widths = np.clip(start, floor, most)
    for place in range(len(limits)):
        z = np.zeros_like(duals)
        alone = _raise_dual_(halves, limits, z, place, widths, floor)
        if all(limit.cost.predict(alone) <= limit.bound for limit in limits):
            return alone, z
    z = np.where(np.isfinite(duals), duals, 0.0)
    for _ in range(ROUNDS):
        before = z.copy()
        for place in range(len(limits)):
            widths = _raise_dual_(halves, limits, z, place, widths, floor)
        if np.allclose(before, z, rtol=1e-3):
            break
    return _raise_together_(halves, limits, z, widths, floor), z


def _raise_dual_(
    halves: Sequence[FloatArray], limits: Sequence[Limit], z: FloatArray, place: int, start: FloatArray,
    floor: FloatArray,
) -> FloatArray:  # fmt: skip
    """Set z[place] to the smallest value that holds its limit, the others fixed; return the widths there."""
    limit = limits[place]

    def at(value: float, near: FloatArray) -> FloatArray:
        z[place] = value
        return descend(halves, limits, z, near, floor)

    free = at(0.0, np.array([len(values) for values in halves], dtype=np.float64))
    if limit.cost.predict(free) <= limit.bound:
        return free
    low, high = 0.0, _scale(halves, limit, start)
    widths = at(high, start)
    while limit.cost.predict(widths) > limit.bound:
        if (widths <= floor).all() or not high < LARGEST:
            z[place] = math.inf
            return np.asarray(floor.copy(), dtype=np.float64)
        low, high = high, 4.0 * high
        widths = at(high, widths)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        trial = at(middle, widths)
        if limit.cost.predict(trial) <= limit.bound:
            high, widths = middle, trial
        else:
            low = middle
    z[place] = high
    return widths


def _raise_together_(
    halves: Sequence[FloatArray], limits: Sequence[Limit], z: FloatArray, start: FloatArray, floor: FloatArray
) -> FloatArray:  # fmt: skip
    """Set z to its smallest multiple, of 1 and more, that holds all limits; return the widths there.

    A dual that falls, or widths that grow where a neighbour has shrunk, may let a limit go that was held before.
    """
    ray, low, high = z.copy(), 1.0, 1.0
    widths = start

    def hold(widths: FloatArray) -> bool:
        return all(limit.cost.predict(widths) <= limit.bound for limit in limits)

    while not hold(widths):
        if (widths <= floor).all() or not high * float(ray.max()) < LARGEST:
            z[:] = math.inf
            return np.asarray(floor.copy(), dtype=np.float64)
        low, high = high, 1.0 + 4.0 * max(high - 1.0, 2.0**-HALVINGS)
        widths = descend(halves, limits, high * ray, widths, floor)
    while high - low > 2.0**-HALVINGS * high:
        middle = 0.5 * (low + high)
        trial = descend(halves, limits, middle * ray, widths, floor)
        if hold(trial):
            high, widths = middle, trial
        else:
            low = middle
    z[:] = high * ray
    return widths


def descend(
    halves: Sequence[FloatArray], limits: Sequence[Limit], z: FloatArray, start: FloatArray, floor: FloatArray
) -> FloatArray:  # fmt: skip
    """Return integer widths (G,) that no change of one group betters: coordinate descent from `start`.

    Args:
        halves: per group half the importance of its units, falling.
        limits: the costs, in shares of their bounds.
        z: (M,), price of a whole bound.
        start: (G,).
        floor: (G,), the least widths.
    """
    widths: FloatArray = start.copy()
    for _ in range(SWEEPS):
        before = widths.copy()
        for group, values in enumerate(halves):
            price = sum(
                value * float(limit.cost.gradient(widths)[group]) / limit.bound
                for value, limit in zip(z, limits)
                if value > 0.0
            )
            widths[group] = max(
                floor[group], len(values) - int(np.searchsorted(values[::-1], price, side="right"))
            )
        if (widths == before).all():
            break
    return widths


def _scale(halves: Sequence[FloatArray], limit: Limit, widths: FloatArray) -> float:
    """Return a dual of the right size: the mean importance over the mean price of a unit."""
    price = float(np.mean(limit.cost.gradient(np.maximum(widths, 1.0)))) / limit.bound
    worth: List[float] = [float(values.mean()) for values in halves]
    return max(float(np.mean(worth)), 1e-300) / max(price, 1e-300)
