"""How the held-out error falls as more samples are fitted (ours)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, List

import numpy as np

from edgeecc.cost.fit import Fitter
from edgeecc.cost.stopping import GROWTH, upper_mean
from edgeecc.graph.spec import FloatArray

#: Fitted samples of the first point, where there are more.
LEAST = 10


@dataclass(frozen=True)
class CurvePoint:
    """What a fit of the first samples errs by on the held-out ones.

    Args:
        samples: that were fitted.
        error: mean of |predicted - measured| / measured.
        upper: what that mean is at most, with a confidence; infinite for one held-out sample.
    """

    samples: int
    error: float
    upper: float


def curve_sizes(count: int) -> List[int]:
    """Return after how many of `count` samples to look, rising by GROWTH from LEAST, the last being all."""
    sizes, size = [], float(min(LEAST, count))
    while round(size) < count:
        sizes.append(round(size))
        size *= GROWTH
    return [*sizes, count]


def error_curve(  # noqa: PLR0913  # two sets of samples, and what is done with them
    fitter: Fitter, known: FloatArray, told: FloatArray, held: FloatArray, truth: FloatArray, *, confidence: float,
    on_fit: Callable[[], None] = lambda: None,
) -> List[CurvePoint]:  # fmt: skip
    """Return the error on the same held-out samples after each of `curve_sizes`.

    Args:
        fitter: how samples become a cost model.
        known, told: widths (N, G) and values (N,) of the samples to fit, metric unit, in the order of their numbers.
        held, truth: widths (M, G) and values (M,) of those that are held out.
        confidence: of the upper bound, one-sided.
        on_fit: called after each fit.
    """
    points = []
    for size in curve_sizes(len(told)):
        model = fitter(known[:size], told[:size])
        errors = np.abs(model.predict_many(held) / truth - 1.0)
        points.append(CurvePoint(size, float(errors.mean()), upper_mean(errors, confidence)))
        on_fit()
    return points
