"""The multiple-choice knapsack: one option of every group, most value, costs within a capacity.

    maximise sum_g v[g, o_g]   subject to   sum_g c[g, o_g] <= capacity

Options of a group are prefixes of its ranking (keep the k best units), so that no unit is kept before a better
one. HALP (NeurIPS 2022) solves a 0/1 program that takes this order into account greedily; choosing one prefix per
group is exact (ours). Three stages:

1. Lagrangian: at price y a group takes its best v - y c. Bisection on y gives a choice within the capacity, and
   every y an upper bound on all choices.
2. Options are left out that cannot beat the choice at hand even where all other groups attain the bound.
3. A dynamic program over the capacity in whole units takes what is left; costs are rounded up, so what it finds
   always fits. It is exact where costs are whole numbers of units; otherwise `Choice.gap` tells what it can have
   missed at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from edgeecc.errors import ConfigError
from edgeecc.graph.spec import FloatArray, IntArray

#: Units that the capacity is cut into where none is given: rounding costs at most one per group.
UNITS = 4096
#: Bisections of the price; the range of floats is exhausted earlier.
BISECTIONS = 64
#: Share of the values by which sums of floats may be off.
ROUNDING = 1e-12

_BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Choice:
    """What a knapsack holds.

    Args:
        options: index of the option of each group, (G,).
        value, cost: their sums.
        bound: no choice within the capacity has more value.
    """

    options: IntArray
    value: float
    cost: float
    bound: float

    @property
    def gap(self) -> float:
        """Return by how much the value can lie below the best, as a share of the bound; 0 is proven best."""
        missed = self.bound - self.value
        return max(0.0, missed / abs(self.bound)) if self.bound else max(0.0, missed)


def solve(
    values: Sequence[FloatArray], costs: Sequence[FloatArray], capacity: float, *, unit: Optional[float] = None
) -> Choice:  # fmt: skip
    """Choose one option of every group.

    The choice does not depend on the scale of the values, nor without a `unit` on that of the costs.

    Args:
        values: per group what each option is worth, any sign and order; cumulative where options are prefixes.
        costs: per group what each option costs, of the same lengths; any sign and order.
        capacity: bound on the sum of the costs.
        unit: cost unit of the dynamic program; None cuts what the capacity leaves above the cheapest options into
            UNITS.
    Raises: ConfigError where the cheapest options exceed the capacity, a group has no option, lengths differ, or
        numbers are not finite.
    """
    table = _Table(values, costs)
    cheapest = table.cheapest()
    if table.cost(cheapest) > capacity:
        raise ConfigError(
            f"the cheapest choice costs {table.cost(cheapest):g}, above the capacity {capacity:g}; raise the capacity"
        )
    dearest = np.argmax(table.values, axis=1)
    if table.cost(dearest) <= capacity:
        return _choice(table, dearest, table.value(dearest))
    best, price, bound = _priced(table, cheapest, capacity)
    best = table.filled(best, capacity)
    left = _contenders(table, table.value(best), price, bound)
    found = _program(table, left, capacity, unit)
    if table.cost(found) <= capacity:
        found = table.filled(found, capacity)
        best = max(best, found, key=table.value)
    return _choice(table, best, max(bound, table.value(best)))


class _Table:
    """Options as matrices, (G, K); places past a group's options are worth -inf."""

    def __init__(self, values: Sequence[FloatArray], costs: Sequence[FloatArray]) -> None:
        lengths = [len(row) for row in values]
        if lengths != [len(row) for row in costs] or not lengths or not min(lengths):
            raise ConfigError("every group needs at least one option, and a cost for each value")
        shape = (len(lengths), max(lengths))
        self.values, self.costs = np.full(shape, -np.inf), np.zeros(shape)
        self.real = np.arange(shape[1]) < np.array(lengths)[:, None]
        self.values[self.real] = np.concatenate(values)
        self.costs[self.real] = np.concatenate(costs)
        if not np.isfinite(self.values[self.real]).all() or not np.isfinite(self.costs).all():
            raise ConfigError("values and costs of a knapsack must be finite")
        self.rows = np.arange(shape[0])

    def value(self, options: IntArray) -> float:
        """Return the value of options, (G,)."""
        return float(self.values[self.rows, options].sum())

    def cost(self, options: IntArray) -> float:
        """Return the cost of options, (G,)."""
        return float(self.costs[self.rows, options].sum())

    def cheapest(self) -> IntArray:
        """Return the cheapest option of every group, among equals the one of most value."""
        costs = np.where(self.real, self.costs, np.inf)
        least = costs == costs.min(axis=1, keepdims=True)
        return np.asarray(np.argmax(np.where(least, self.values, -np.inf), axis=1), dtype=np.int64)

    def filled(self, options: IntArray, capacity: float) -> IntArray:
        """Change one option after the other for a better one that fits, most value per cost first."""
        options = options.copy()
        while True:
            gain = self.values - self.values[self.rows, options][:, None]
            extra = self.costs - self.costs[self.rows, options][:, None]
            fits = (gain > 0.0) & (extra <= capacity - self.cost(options))
            if not fits.any():
                return options
            least = ROUNDING * float(np.abs(extra).max()) or 1.0  # what is free is worth most
            worth = np.where(fits, gain, 0.0) / np.maximum(extra, least)
            group, option = np.unravel_index(int(np.argmax(worth)), worth.shape)
            before = options[group]
            options[group] = option
            if self.cost(options) > capacity:  # the sum rounds differently
                options[group] = before
                return options


def _choice(table: _Table, options: IntArray, bound: float) -> Choice:
    return Choice(options.astype(np.int64), table.value(options), table.cost(options), bound)


def _priced(table: _Table, cheapest: IntArray, capacity: float) -> Tuple[IntArray, float, float]:
    """Return a choice within the capacity, the price of the least upper bound, and that bound."""
    gain = np.where(table.real, table.values - table.values[table.rows, cheapest][:, None], -np.inf)
    extra = table.costs - table.costs[table.rows, cheapest][:, None]
    dearer = (extra > ROUNDING * extra.max()) & (gain > 0.0)
    high = float((gain[dearer] / extra[dearer]).max(initial=0.0))
    best, low = cheapest, 0.0
    tightest = (np.inf, high)
    for _ in range(BISECTIONS):
        price = 0.5 * (low + high)
        worth = table.values - price * table.costs
        options = np.argmax(worth, axis=1)
        tightest = min(tightest, (float(worth.max(axis=1).sum()) + price * capacity, price))
        if table.cost(options) <= capacity:
            high = price
            best = max(best, options, key=table.value)
        else:
            low = price
    return best, tightest[1], tightest[0]


def _contenders(table: _Table, value: float, price: float, bound: float) -> List[IntArray]:
    """Return, per group, the options that a choice of more than `value` may hold."""
    worth = table.values - price * table.costs
    lost = worth.max(axis=1, keepdims=True) - worth
    # Sums of floats round: options stay that miss by less than that.
    size = float(np.abs(np.where(table.real, table.values, 0.0)).max(axis=1).sum())
    size += price * float(np.abs(table.costs).max(axis=1).sum())
    stays: _BoolArray = table.real & (lost <= bound - value + ROUNDING * size)
    stays[table.rows, np.argmax(worth, axis=1)] = True
    stays[table.rows, table.cheapest()] = True
    return [np.flatnonzero(row).astype(np.int64) for row in stays]


def _program(
    table: _Table, left: List[IntArray], capacity: float, unit: Optional[float]
) -> IntArray:
    """Return the best choice among the options left, with costs above the cheapest rounded up to whole units."""
    cheapest = table.cheapest()
    least = table.costs[table.rows, cheapest]
    room = capacity - float(least.sum())
    unit = room / UNITS if unit is None else unit
    size = int(np.floor(room / unit * (1.0 + ROUNDING))) if room > 0.0 else 0
    best = np.zeros(size + 1)
    taken: List[IntArray] = []
    for group, options in enumerate(left):
        weights = _whole(table.costs[group, options] - least[group], unit, size)
        after = np.full(size + 1, -np.inf)
        chosen = np.zeros(size + 1, dtype=np.int64)
        for option, weight in zip(options, weights):
            if weight > size:
                continue
            trial = best[: size + 1 - weight] + table.values[group, option]
            better = trial > after[weight:]
            after[weight:][better] = trial[better]
            chosen[weight:][better] = option
        best = after
        taken.append(chosen)
    return _traced(table, taken, least, unit)


def _traced(table: _Table, taken: List[IntArray], least: FloatArray, unit: float) -> IntArray:
    """Walk the program's tables back from the whole capacity."""
    options = np.zeros(len(taken), dtype=np.int64)
    at = len(taken[0]) - 1
    for group in range(len(taken) - 1, -1, -1):
        option = int(taken[group][at])
        options[group] = option
        extra = np.array([table.costs[group, option] - least[group]])
        at -= int(_whole(extra, unit, at)[0])
    return options


def _whole(costs: FloatArray, unit: float, most: int) -> IntArray:
    """Return costs, at least 0, in units, rounded up but for float rounding; above `most` they are `most` + 1."""
    if not most:
        return np.where(costs > 0.0, 1, 0).astype(np.int64)
    return np.ceil(np.minimum(costs / unit * (1.0 - ROUNDING), most + 1.0)).astype(np.int64)
