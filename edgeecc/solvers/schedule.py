"""How far limits are reached on the way from the dense network to them (ours).

What can be reduced of a cost falls geometrically, so that every round takes the same part of what is left; if the whole
cost did, the last rounds would have to take most of it where much of a cost is fixed.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from edgeecc.graph.spec import FloatArray
from edgeecc.solvers.base import Limit, Problem


def on_the_way(problem: Problem, share: float) -> Problem:
    """Return the problem whose limits are `share` of the way from the dense network (0) to this one's (1)."""
    dense = problem.spec.vector(problem.spec.dense_widths())
    limits = tuple(Limit(limit.cost, target(limit, dense, share)) for limit in problem.limits)
    return replace(problem, limits=limits)


def target(limit: Limit, dense_widths: FloatArray, share: float) -> float:
    """Return what a cost shall come to `share` of the way from dense (0) to its limit (1), SI.

    Args:
        limit: at least the cost of widths of 1.
        dense_widths: (G,).
        share: in [0, 1].
    """
    if share >= 1.0 or limit.cost.predict(dense_widths) <= limit.bound:
        return limit.bound
    fixed = _fixed(limit, dense_widths)
    return fixed + (limit.bound - fixed) * math.exp(depth(limit, dense_widths) * (1.0 - share))


def depth(limit: Limit, dense_widths: FloatArray) -> float:
    """Return how far what can be reduced of a cost has to fall to its limit, as the logarithm of the ratio, at least 0.

    Args: see `target`.
    """
    dense = limit.cost.predict(dense_widths)
    if dense <= limit.bound:
        return 0.0
    fixed = _fixed(limit, dense_widths)
    return math.log((dense - fixed) / (limit.bound - fixed))


def _fixed(limit: Limit, dense_widths: FloatArray) -> float:
    """Return what cannot be reduced of a cost: less than the thinnest network's, so that limits stay above it."""
    least = np.ones_like(dense_widths)
    return limit.cost.predict(least) - float(limit.cost.gradient(least).max())
