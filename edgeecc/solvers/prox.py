"""The proximal step of ECC (CVPR 2019, Algorithm 2): which units of a group survive.

    argmin over the kept set K of   sum_{i not in K} a_i / 2 + alpha (rho1/2 [k - s]+^2 + y k),   k = |K|

Dropping unit i costs a_i / 2, keeping it as the r-th costs alpha (rho1/2 ([r-s]+^2 - [r-1-s]+^2) + y). The
threshold grows with the rank and the importance falls, so thresholding rank by rank is the exact minimum. The
scale-free form (ours) is the same with alpha = 1 and importance divided by its mean.
"""

from __future__ import annotations

import math

import numpy as np

from edgeecc.errors import ConfigError
from edgeecc.graph.spec import FloatArray, IntArray


def thresholds(count: int, s: float, y: float, *, rho1: float, alpha: float = 1.0) -> FloatArray:
    """Return the threshold of every rank, (count,), rank 1 first, never falling.

    Args:
        count: units of the group.
        s: bound on the width, channels, real.
        y: dual of that bound, at least 0.
        rho1: penalty weight.
        alpha: step size of the weights.
    Raises: ConfigError for a negative y, rho1 or alpha.
    """
    if min(y, rho1, alpha) < 0.0:
        raise ConfigError(f"y {y}, rho1 {rho1} and alpha {alpha} must be at least 0")
    rank = np.arange(1, count + 1, dtype=np.float64)
    penalty = np.maximum(rank - s, 0.0) ** 2 - np.maximum(rank - 1.0 - s, 0.0) ** 2
    return np.asarray(alpha * rho1 * penalty + 2.0 * alpha * y, dtype=np.float64)


def trim(importance: FloatArray, s: float, y: float, *, rho1: float, alpha: float = 1.0) -> float:
    """Return y lowered so that at least floor(s) units survive (ECC section 3.3).

    Args:
        importance: a, (c,), at least 0, any order.
        s, y, rho1, alpha: see `thresholds`.
    """
    protected = max(1, min(len(importance), math.floor(s)))
    ranked = np.sort(importance)[::-1]
    room = ranked - thresholds(len(ranked), s, 0.0, rho1=rho1, alpha=alpha)
    return min(y, max(0.0, float(room[protected - 1]) / (2.0 * alpha)))


def survivors(
    importance: FloatArray, s: float, y: float, *, rho1: float, alpha: float = 1.0
) -> IntArray:
    """Return the indices of the units that stay, sorted; a tie with the threshold stays.

    Args: see `trim`; y is expected to be trimmed.
    """
    order = np.argsort(-importance, kind="stable")
    kept = importance[order] >= thresholds(len(order), s, y, rho1=rho1, alpha=alpha)
    return np.sort(order[: int(np.argmin(kept)) if not kept.all() else len(order)]).astype(np.int64)


def kept_mask(
    importance: FloatArray, s: float, y: float, *, rho1: float, alpha: float = 1.0
) -> np.typing.NDArray[np.bool_]:
    """Return which units the proximal step keeps, (c,): its survivors, and floor(s) of the most important at least.

    Args: see `trim`; importance of dead units may be negative, then they rank last.
    """
    least = min(max(1, math.floor(s + 1e-9)), len(importance))
    kept = top_mask(importance, least)
    kept[survivors(np.maximum(importance, 0.0), s, y, rho1=rho1, alpha=alpha)] = True
    return kept


def top_mask(importance: FloatArray, count: int) -> np.typing.NDArray[np.bool_]:
    """Return which are the `count` most important units, (c,); see `top`."""
    chosen = np.zeros(len(importance), dtype=bool)
    chosen[top(importance, count)] = True
    return chosen


def top(importance: FloatArray, count: int) -> IntArray:
    """Return the indices of the `count` most important units, sorted; ties go to the lower index."""
    return np.sort(np.argsort(-importance, kind="stable")[:count]).astype(np.int64)
