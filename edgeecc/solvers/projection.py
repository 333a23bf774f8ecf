"""Project weights onto an energy budget: of all networks that fit, nearly the one with the least change.

Keeping the weights of greatest squared magnitude under a bound on the sum of their costs is a 0/1 knapsack.
Greedy by density, squared magnitude per cost, keeps the longest prefix that fits. Source: weighted sparse
projection (ICLR 2019). The relaxation that may cut the next weight bounds what the optimum could gain.

The prefix is found without sorting (ours): the bits of a positive float order as the float does, so two
counting passes over the densities find the last one that fits. Tens of millions of weights take seconds, and
no copy of the network is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from edgeecc.errors import ConfigError

FloatArray = npt.NDArray[np.float32]
FloatArray64 = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
KeyArray = npt.NDArray[np.uint32]

#: Weights looked at together: small beside the network, large beside the overhead of a call.
CHUNK = 2**20
#: A key has two halves of so many bits.
_BITS = 16
_LOW = 2**_BITS - 1


@dataclass(frozen=True)
class LayerCost:
    """What the nonzero weights of a layer cost, in any unit.

    Args:
        inside: of each of the `room` weights of greatest magnitude.
        outside: of every further one; at least `inside`.
        room: weights that the cache holds.
    """

    inside: float
    outside: float
    room: int

    def __post_init__(self) -> None:
        if not 0.0 < self.inside <= self.outside < float("inf") or self.room < 0:
            raise ConfigError(
                f"a weight costs {self.inside} in the cache and {self.outside} outside; both must be positive"
            )


@dataclass(frozen=True)
class Projection:
    """A projection onto the budget.

    Args:
        keep: per layer, which weights stay, in its shape.
        cost: of the weights that stay.
        value: sum of their squared magnitudes.
        bound: no choice within the budget has a greater sum.
    """

    keep: Tuple[BoolArray, ...]
    cost: float
    value: float
    bound: float

    @property
    def gap(self) -> float:
        """Return how much the optimum could be better, as a share of it; 1 where nothing is known."""
        return 0.0 if self.bound <= 0.0 else max(0.0, 1.0 - self.value / self.bound)


def project(
    weights: Sequence[FloatArray],
    costs: Sequence[LayerCost],
    budget: float,
    *,
    by_cost: bool = True,
) -> Projection:
    """Return which weights stay: the longest prefix by density whose cost is at most `budget`.

    Of equal densities the first stay. Zero weights never do.

    Args:
        weights: per layer, any shape, float32.
        costs: per layer.
        budget: in the unit of the costs.
        by_cost: False orders by magnitude alone, whatever a weight costs: no gap is known then.
    Raises: ConfigError when the budget is not positive or a weight is not finite.
    """
    if not budget > 0.0:
        raise ConfigError(f"nothing fits a budget of {budget}; give a larger one")
    layers = [_Layer(values, cost, by_cost) for values, cost in zip(weights, costs)]
    if not all(layer.is_finite() for layer in layers):
        raise ConfigError("a weight is not finite; lower --lr")
    high, spent = _first_misfit(_total([layer.cost_by_upper_half() for layer in layers]), budget)
    low, spent = _first_misfit(
        _total([layer.cost_by_lower_half(high) for layer in layers]), budget, spent
    )
    threshold = (high << _BITS) | low
    keep = []
    for layer in layers:
        kept, spent = layer.kept(threshold, budget, spent)
        keep.append(kept)
    value = sum(layer.value(kept) for layer, kept in zip(layers, keep))
    density = float(np.array([threshold], dtype=np.uint32).view(np.float32)[0])
    bound = value + (budget - spent) * density if by_cost else math.inf
    return Projection(tuple(keep), spent, value, bound)


def _total(parts: Sequence[FloatArray64]) -> FloatArray64:
    return np.asarray(np.sum(parts, axis=0), dtype=np.float64)


def _first_misfit(costs: FloatArray64, budget: float, spent: float = 0.0) -> Tuple[int, float]:
    """Return the highest index that no longer fits whole, 0 when all fit, and what those above it cost."""
    after = spent + np.cumsum(costs[::-1])
    misfits = np.flatnonzero(after > budget)
    if not len(misfits):
        return 0, float(after[-1] - costs[0])
    place = int(misfits[0])
    return len(costs) - 1 - place, float(after[place - 1]) if place else spent


class _Layer:
    """The weights of a layer in one or two tiers of cost, looked at part by part."""

    def __init__(self, values: FloatArray, cost: LayerCost, by_cost: bool) -> None:
        self._by_cost = by_cost
        self._values = values.reshape(-1)
        self._shape = values.shape
        self._costs = (cost.inside, cost.outside)
        self._inside = _tier(self._values, cost)
        self._parts = [slice(start, start + CHUNK) for start in range(0, len(self._values), CHUNK)]

    def is_finite(self) -> bool:
        return all(bool(np.isfinite(self._values[part]).all()) for part in self._parts)

    def cost_by_upper_half(self) -> FloatArray64:
        """Return what the weights under each upper half of a key cost, (2^16,)."""
        total = np.zeros(_LOW + 1)
        for part in self._parts:
            keys = self._keys(part)
            self._add(total, keys >> _BITS, keys > 0, part)
        return total

    def cost_by_lower_half(self, high: int) -> FloatArray64:
        """Return what the weights under each lower half of the keys with that upper half cost, (2^16,)."""
        total = np.zeros(_LOW + 1)
        for part in self._parts:
            keys = self._keys(part)
            self._add(total, keys & _LOW, ((keys >> _BITS) == high) & (keys > 0), part)
        return total

    def kept(self, threshold: int, budget: float, spent: float) -> Tuple[BoolArray, float]:
        """Return which weights stay, and what is spent then: those above the threshold, of those at it the first."""
        keep = np.empty(len(self._values), dtype=np.bool_)
        for part in self._parts:
            keys = self._keys(part)
            keep[part] = keys > threshold
            if threshold:
                ties = np.flatnonzero(keys == threshold) + part.start
                after = spent + np.cumsum(self._cost_of(ties))
                fits = int(np.searchsorted(after, budget, side="right"))
                keep[ties[:fits]] = True
                spent = float(after[fits - 1]) if fits else spent
        return keep.reshape(self._shape), spent

    def value(self, keep: BoolArray) -> float:
        """Return the sum of squares of the weights that stay."""
        flat = keep.reshape(-1)
        return sum(
            float(np.square(self._values[part][flat[part]], dtype=np.float64).sum())
            for part in self._parts
        )

    def _keys(self, part: slice) -> KeyArray:
        """Return the densities of a part as integers that order alike."""
        density: FloatArray = np.square(self._values[part])
        if self._by_cost:
            density /= self._cost_of(part).astype(np.float32)
        return density.view(np.uint32)

    def _cost_of(self, places: slice | npt.NDArray[np.int64]) -> FloatArray64:
        if self._inside is None:
            return np.full(len(self._values[places]), self._costs[0])
        return np.asarray(np.where(self._inside[places], *self._costs), dtype=np.float64)

    def _add(
        self,
        total: FloatArray64,
        bins: npt.NDArray[np.integer[Any]],
        wanted: BoolArray,
        part: slice,
    ) -> None:
        """Add the cost of the wanted weights of a part to their bins."""
        if self._inside is None:
            total += self._costs[0] * np.bincount(bins[wanted], minlength=len(total))
            return
        inside = self._inside[part]
        for cost, tier in zip(self._costs, (inside, ~inside)):
            total += cost * np.bincount(bins[wanted & tier], minlength=len(total))


def _tier(values: FloatArray, cost: LayerCost) -> Optional[BoolArray]:
    """Return which weights are inside, or None where all cost the same: of equal magnitudes the first are."""
    size = len(values)
    if cost.inside == cost.outside or size <= cost.room:
        return None
    if not cost.room:
        return np.zeros(size, dtype=np.bool_)
    magnitude = np.abs(values)
    least = np.partition(magnitude, size - cost.room)[size - cost.room]
    inside: BoolArray = magnitude > least
    ties = np.flatnonzero(magnitude == least)
    inside[ties[: cost.room - int(np.count_nonzero(inside))]] = True
    return inside
