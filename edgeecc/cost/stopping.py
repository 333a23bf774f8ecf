"""When a calibration has samples enough: rounds, and what the mean held-out error is at most (ours)."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import List

from edgeecc.cost.conformal import USUAL
from edgeecc.cost.design import FIRST
from edgeecc.graph.spec import FloatArray

#: Each round ends at so many times the samples of the one before.
GROWTH = 1.5


def round_ends(samples: int) -> List[int]:
    """Return after how many samples the held-out error is looked at, rising, the last being `samples`."""
    ends, end = [], float(FIRST)
    while end < samples:
        ends.append(round(end))
        end *= GROWTH
    return [*ends, samples]


def upper_mean(errors: FloatArray, confidence: float = USUAL) -> float:
    """Return what the mean of such errors is at most with a confidence, by Student's t; infinite for fewer than two.

    Args:
        errors: (N,).
        confidence: one-sided, in (0.5, 1).
    """
    count = len(errors)
    if count < 2:
        return math.inf
    return float(
        errors.mean() + _student(confidence, count - 1) * errors.std(ddof=1) / math.sqrt(count)
    )


def _student(confidence: float, freedom: int) -> float:
    """Return the quantile of Student's t by its expansion about the normal one (Cornish and Fisher), four terms."""
    z = NormalDist().inv_cdf(confidence)
    terms = (
        z,
        (z**3 + z) / 4.0,
        (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0,
        (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0,
    )
    return math.fsum(term / float(freedom**power) for power, term in enumerate(terms))
