"""What a unit is worth to its group: importance between units of loss and shares of a group's own (ours).

First-order terms tell what a unit is worth now. Fine-tuning makes up for much of what goes, and for more where a group
is wide and has little to tell: what is left of a loss after it is more alike among groups than the loss itself.
Importance over a power of what its group's units were worth before any went stands between the two.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np

from edgeecc.graph.spec import FloatArray
from edgeecc.solvers.base import Problem


def levels(importance: Sequence[FloatArray], power: float) -> FloatArray:
    """Return the factor on the importance of each group's units, (G,): one over their mean to a power.

    A factor on all importance is one on all results, so that widths do not change with it.

    Args:
        importance: per group, (c_g,), at least 0, before any unit went.
        power: 0 leaves units of loss, 1 makes the groups alike.
    """
    means = np.array([values.mean() for values in importance], dtype=np.float64)
    return np.asarray((means + 1e-300) ** -power, dtype=np.float64)


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
    for count in range(least, 1, -1):
        widths = np.minimum(dense, float(count))
        if all(
            limit.cost.predict(widths) <= 0.5 * (limit.cost.predict(thinnest) + limit.bound)
            for limit in problem.limits
        ):
            return widths
    return thinnest
