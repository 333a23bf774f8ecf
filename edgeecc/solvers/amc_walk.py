"""A walk over the channel groups in forward order, each given its width: the decision process of AMC (ECCV 2018).

A state tells the group and where the budget stands; the action is the share of the group's units that stay. Past
groups being fixed and later ones at their lower bounds, a width may be as large as the budget then allows, so that
every walk ends within the budget. The bound is on the integer width after rounding: the published code bounds the
share and rounds up afterwards, which can pass the budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, List, Sequence, Tuple

import numpy as np

from edgeecc.graph.spec import FloatArray, LayerSpec
from edgeecc.solvers.base import Problem

#: Whether widths (G,) hold what is asked for.
Holds = Callable[[FloatArray], bool]
#: Features that do not change during a walk: see `static_features`.
STATIC = 10
#: All features of a state: those, and what is gone, what is left, and the action before.
FEATURES = STATIC + 3


@dataclass(frozen=True)
class Walked:
    """A walk that is over.

    Args:
        widths: (G,), integers, within the limits.
        states: (G, F), as each group was met; they tell the share that stays of the group before.
        actions: (G,), the shares that the policy asked for, before bounding and rounding.
    """

    widths: FloatArray
    states: FloatArray
    actions: FloatArray


class Course:
    """What all walks towards one budget share.

    Args:
        problem: its limits are what walks hold.
        available: units that are there, (G,).
        least: lower bounds, (G,), within the limits; see `lower_bounds`.
        divisor: widths are multiples of it where the bounds allow.
    """

    def __init__(
        self, problem: Problem, available: FloatArray, least: FloatArray, divisor: int = 1
    ) -> None:
        self._problem, self._divisor = problem, divisor
        self.available, self.least = available, least
        self._static = static_features(problem, available)

    def walk(self, policy: Callable[[FloatArray], float]) -> Walked:
        """Walk once.

        Args:
            policy: state (F,) -> action in [0, 1].
        """
        bound, widths = self.least.copy(), self.available.copy()
        states: List[FloatArray] = []
        actions: List[float] = []
        for group in range(len(widths)):
            states.append(self._state(group, widths))
            actions.append(policy(states[-1]))
            most = widest(self._problem.fits, bound, group, self.available[group])
            bounds = (self.least[group], most)
            width = rounded(actions[-1] * self.available[group], bounds, self._divisor)
            bound[group] = widths[group] = width
        return Walked(widths, np.array(states), np.array(actions))

    def even(self) -> Walked:
        """Walk with the same share of every group, rounded down."""
        share = even_share(self._problem.fits, self.available, self.available)
        widths = np.maximum(1.0, np.floor(share * self.available + 1e-9))
        asked = iter(widths / self.available)
        return self.walk(lambda state: float(next(asked)))

    def _state(self, group: int, widths: FloatArray) -> FloatArray:
        load = self._problem.load
        whole, now = load(self.available), load(widths)
        thin = np.append(widths[:group], self.least[group:])
        before = widths[group - 1] / self.available[group - 1] if group else 1.0
        course = [1.0 - now / whole, (now - load(thin)) / whole, before]
        return np.append(self._static[group], course)


def widest(holds: Holds, widths: FloatArray, group: int, most: float) -> float:
    """Return the largest integer width of one group that holds, by bisection: costs are monotone.

    Args:
        holds: what must hold; it does at `widths`.
        widths: (G,) integers, those of the other groups; not modified.
        group: place.
        most: largest width to return, at least that of `widths`.
    """
    trial = widths.copy()
    low, high = int(widths[group]), int(most)
    while low < high:
        trial[group] = middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(trial) else (low, middle - 1)
    return float(low)


def lower_bounds(
    holds: Holds, dense: FloatArray, available: FloatArray, share: float
) -> FloatArray:
    """Return the least width of each group, (G,): a share of the dense one, rounded up.

    Where the budget leaves little room the share is half of that to which all groups could shrink together, so
    that there still is something to choose (ours).

    Args:
        holds: what must hold; it does where every width is 1.
        dense, available: (G,), of the whole network and as it stands.
        share: of the dense widths, 0..1.
    """
    even = even_share(holds, dense, available)
    # Half of a width that holds, rounded up, is no wider than that width.
    least = np.ceil(min(share, 0.5 * even) * dense - 1e-9)
    return np.minimum(available, np.maximum(1.0, least))


def even_share(holds: Holds, dense: FloatArray, available: FloatArray) -> float:
    """Return the largest share of the dense widths, rounded down, that all groups may have, 0..1.

    Args: see `lower_bounds`.
    """

    def at(share: float) -> FloatArray:
        return np.minimum(available, np.maximum(1.0, np.floor(share * dense + 1e-9)))

    low, high = 0.0, 1.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if holds(at(middle)) else (low, middle)
    return low


def rounded(width: float, bounds: Tuple[float, float], divisor: int = 1) -> float:
    """Return the integer width within the bounds that is nearest, of multiples the next one up.

    Args:
        width: real.
        bounds: least and most, integers.
        divisor: where no multiple of it lies within the bounds, the nearest integer is returned.
    """
    least, most = bounds
    nearest = min(max(float(round(width)), least), most)
    if divisor == 1:
        return nearest
    up = divisor * np.ceil(nearest / divisor)
    multiple = up if up <= most else divisor * np.floor(nearest / divisor)
    return float(multiple) if multiple >= least else nearest


def static_features(problem: Problem, available: FloatArray) -> FloatArray:
    """Return the features of each group that do not change, (G, STATIC), each from 0 to 1 over the groups.

    They are the paper's, of the layers that read a group in place of one layer: index, units, output channels of what
    reads it, rows, columns, stride, kernel, and what the group costs beyond one unit. Beside them stand whether linear
    layers read it, as in the published code, and whether a depthwise convolution carries it (ours). Height and width
    are those that the readers read.

    Args:
        problem: for the spec and the load.
        available: units that are there, (G,).
    """
    rows = []
    dense = problem.spec.dense_widths()
    for place, group in enumerate(problem.spec.prunable):
        reads = {piece.parameter for piece in group.slices if piece.role == "in"}
        carries = {piece.parameter for piece in group.slices if piece.role == "through"}
        layers = [layer for layer in problem.spec.layers if f"{layer.name}.weight" in reads]
        carried = [layer for layer in problem.spec.layers if f"{layer.name}.weight" in carries]
        thin = available.copy()
        thin[place] = 1.0
        rows.append(
            [
                place,
                any(layer.kind == "linear" for layer in layers),
                bool(carried),
                available[place],
                sum(layer.output.at(dense) for layer in layers),
                *_shape([*layers, *carried]),
                problem.load(available) - problem.load(thin),
            ]
        )
    table = np.array(rows, dtype=np.float64).reshape(len(rows), STATIC)
    spread = np.ptp(table, axis=0) if len(table) else np.zeros(STATIC)
    return np.asarray((table - table.min(axis=0, initial=np.inf)) / np.where(spread > 0.0, spread, 1.0))  # fmt: skip


def _shape(layers: Sequence[LayerSpec]) -> Sequence[int]:
    """Return the largest rows, columns, stride and kernel of layers."""
    table = [(*layer.in_size, max(layer.stride), max(layer.kernel)) for layer in layers]
    return [max(column) for column in zip(*table)] if table else [0] * 4
