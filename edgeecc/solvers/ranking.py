"""One global ranking of all units: remove from the bottom until the limits hold.

The key of unit i of group g is scale_g * S_i + shift_g, S_i the squared norm of the filters that make and carry it,
summed over the layers that are coupled (LeGR, CVPR 2020). Within a group the order is always that of S; scale and
shift decide how the groups mix, and so the widths.
"""

from __future__ import annotations

import math
from typing import List, Sequence

import numpy as np
from torch import nn

from edgeecc.graph.spec import FloatArray, IntArray, NetworkSpec
from edgeecc.solvers.base import Problem
from edgeecc.solvers.prox import top_mask
from edgeecc.solvers.units import Alive, UnitTable


def filter_norms(model: nn.Module, spec: NetworkSpec) -> List[FloatArray]:
    """Return per group the squared norm of the filters of each unit: of convolutions and linear layers, depthwise too.

    As published the filters that make a unit count, not the columns that read it.
    """
    ndim = {parameter.name: len(parameter.shape) for parameter in spec.parameters}
    table = UnitTable(spec, owns=lambda piece: piece.role != "in" and ndim[piece.parameter] > 1)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return table.sums(lambda name: parameters[name].detach() ** 2)


class Ranking:
    """Widths from keys.

    Args:
        problem: its limits; they hold at width 1.
        norms: S, per group and unit.
        protected: share of a group's units that go last, rounded up: only where nothing else is left to remove.
    """

    def __init__(self, problem: Problem, norms: Sequence[FloatArray], protected: float) -> None:
        self._problem = problem
        self._norms = norms
        self._ascending = [np.sort(values) for values in norms]
        self._dense = np.array([len(values) for values in norms], dtype=np.float64)
        self._group = np.repeat(np.arange(len(norms)), [len(values) for values in norms])
        # 0: removed first, 1: protected, 2: the last of its group, never removed.
        self._tier = np.concatenate([_tiers(len(values), protected) for values in norms])

    def widths(self, scale: FloatArray, shift: FloatArray) -> FloatArray:
        """Return the widths, (G,), that removal in the order of the keys leaves, the rest of the budget given back.

        The load falls with every removal, so their number is found by bisection.

        Args:
            scale: above 0, (G,).
            shift: (G,).
        """
        keys = np.concatenate([a * row + b for a, row, b in zip(scale, self._ascending, shift)])
        order = np.lexsort((keys, self._tier))
        order = self._group[order[: int((self._tier < 2).sum())]]
        low, high = 0, len(order)
        while low < high:
            middle = (low + high) // 2
            if self._problem.fits(self._left(order[:middle])):
                high = middle
            else:
                low = middle + 1
        return self._given_back(self._left(order[:high]), order[:high])

    def alive(self, widths: FloatArray) -> Alive:
        """Return the units of largest norm at widths (G,)."""
        return [top_mask(values, int(width)) for values, width in zip(self._norms, widths)]

    def _left(self, removed: IntArray) -> FloatArray:
        return np.asarray(self._dense - np.bincount(removed, minlength=len(self._dense)))

    def _given_back(self, widths: FloatArray, removed: IntArray) -> FloatArray:
        """Take removals back, the last first, where the limits still hold; a group whose next does not is done."""
        widths = widths.copy()
        closed = widths >= self._dense
        for group in removed[::-1]:
            if closed.all():
                break
            if closed[group]:
                continue
            widths[group] += 1.0
            if not self._problem.fits(widths):
                widths[group] -= 1.0
                closed[group] = True
            elif widths[group] >= self._dense[group]:
                closed[group] = True
        return widths


def _tiers(units: int, protected: float) -> IntArray:
    """Return the tier of each unit of a group, by rising norm."""
    tiers = np.zeros(units, dtype=np.int64)
    tiers[units - min(units, math.ceil(protected * units - 1e-9)) :] = 1
    tiers[-1] = 2
    return tiers
