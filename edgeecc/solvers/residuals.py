"""How far ECC's widths are from a solution: what its constraints are missed by, and what a round still moves (ours).

Boyd et al., "Distributed optimization and statistical learning via ADMM" (2011), section 3.3, stops where the primal
and the dual residual are small. Here the proximal step keeps exactly the units within their bounds, so that what is
left of the primal residual is the limits'; and as the width step is solved and not approached, widths are also held
against their own prices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np

from edgeecc.graph.spec import FloatArray
from edgeecc.solvers.base import Limit, Problem

#: The last round moves no bound by more than this share of its group, and its widths keep all but this share of the
#: importance that their prices allow, where a solve has converged.
TOLERANCE = 0.1


@dataclass(frozen=True)
class Residuals:
    """Residuals of a round, none negative.

    Args:
        primal: see `primal_residual`.
        dual: see `dual_residual`.
        gap: see `price_gap`.
    """

    primal: float = 0.0
    dual: float = 0.0
    gap: float = 0.0

    @property
    def are_small(self) -> bool:
        """Whether the constraints hold, and the round that made them hold was one of small moves."""
        return self.primal <= 0.0 and max(self.dual, self.gap) <= TOLERANCE


def primal_residual(
    problem: Problem, widths: FloatArray, bounds: FloatArray, dense: FloatArray
) -> float:
    """Return the largest excess: of a width over its bound, in dense widths, or of a cost over its limit, in limits.

    Args:
        problem: its limits are what shall hold in the end, not the targets of a round.
        widths: phi, (G,), units that live.
        bounds: s, (G,).
        dense: (G,).
    """
    excess = float(np.max((widths - bounds) / dense, initial=0.0))
    over = 0.0 if problem.fits(widths) else problem.load(widths) - 1.0
    return max(excess, over, 0.0)


def dual_residual(
    before: FloatArray, bounds: FloatArray, dense: FloatArray, *, grain: int = 1
) -> float:
    """Return the largest move of a bound in a round, less the least that it can move by, in dense widths.

    Args:
        before, bounds, dense: (G,).
        grain: units that bounds move by: 1, or a tile.
    """
    return float(np.max((np.abs(before - bounds) - grain) / dense, initial=0.0))


def price_gap(
    ranked: Sequence[FloatArray], limits: Sequence[Limit], widths: FloatArray, duals: FloatArray, *,
    least: FloatArray,
) -> float:  # fmt: skip
    """Return by how much each group could better the Lagrangian alone, added up, as a share of what importance counts.

    For group g that is `sum of importance beyond s_g / 2 + s_g sum_m z_m dE_m/ds_g`, at the slopes of these widths: 0
    where every width is the best at its price, as the width step has it.

    Args:
        ranked: per group the importance of the units that may stay, falling.
        limits: their bounds are what duals are the prices of.
        widths: (G,), whole numbers, at least 1.
        duals: z, (M,), importance per bound; infinite ones tell no price, and the gap is 0.
        least: (G,), widths that are kept at least, whatever they cost.
    """
    if not np.isfinite(duals).all():
        return 0.0
    price = np.zeros(len(widths))
    for z, limit in zip(duals, limits):
        price += z * limit.cost.gradient(widths) / limit.bound
    missed = 0.0
    for values, width, floor, each in zip(ranked, widths, least, price):
        worth = np.cumsum(values / 2.0 - each)  # of 1, 2, ... units
        lowest = min(int(floor), int(width)) - 1
        missed += float(worth[lowest:].max() - worth[int(width) - 1])
    total = sum(float(values.sum()) for values in ranked) / 2.0
    return missed / total if total > 0.0 else 0.0
