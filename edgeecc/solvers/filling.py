"""What is left of a budget, given back to the units that are worth most (ours)."""

from __future__ import annotations

from typing import List

import numpy as np

from edgeecc.graph.spec import FloatArray
from edgeecc.solvers.base import Problem


def give_back(
    widths: FloatArray, available: FloatArray, ranked: List[FloatArray], *, problem: Problem
) -> FloatArray:  # fmt: skip
    """Widen groups one unit at a time, most importance per energy first, while the limits hold (ours).

    Args:
        widths: (G,), integers, within the limits.
        available: living units, (G,).
        ranked: importance of the living units, falling.
        problem: for its limits.
    Returns: (G,), integers, within the limits.
    """
    widths = widths.copy()
    open_groups = set(np.flatnonzero(widths < available))
    while open_groups:
        slope = problem.load_gradient(widths)
        best = max(open_groups, key=lambda g: ranked[g][int(widths[g])] / max(slope[g], 1e-300))
        widths[best] += 1.0
        if not problem.fits(widths):
            widths[best] -= 1.0
            open_groups.discard(best)
        elif widths[best] >= available[best]:
            open_groups.discard(best)
    return widths
