"""How well samples settle the coefficients of a cost model: percentile intervals of the bootstrap over samples.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), sections 9.5 (pairs) and 13.3 (percentiles): the
fit is repeated on as many samples, drawn with replacement, and an interval cuts off equal shares of both ends.

It tells the scatter of a fit and not its bias: a form that lacks a term, or a fit towards a prior, moves all draws
alike. A coefficient that non-negative least squares holds at 0 has an interval that starts there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import numpy as np

from edgeecc.cost.fit import Fitter
from edgeecc.graph.spec import FloatArray


@dataclass(frozen=True)
class Interval:
    """Between which values a figure lies with a confidence, in the figure's unit."""

    low: float
    high: float


def bootstrap(
    fitter: Fitter, widths: FloatArray, values: FloatArray, *, times: int, seed: int,
    on_fit: Callable[[], None] = lambda: None,
) -> FloatArray:  # fmt: skip
    """Return the coefficients of fits to resampled samples, (B, T + 1), metric unit, the constant first.

    Args:
        fitter: how samples become a cost model of T terms.
        widths, values: (N, G) and (N,), metric unit, of the samples that are fitted.
        times: B.
        seed: of the draws.
        on_fit: called after each fit.
    """
    generator = np.random.default_rng([seed, 0xB007])
    draws = []
    for _ in range(times):
        chosen = generator.integers(0, len(values), len(values))
        model = fitter(widths[chosen], values[chosen])
        draws.append(np.append(model.constant, model.coefficients))
        on_fit()
    return np.array(draws)


def percentile_interval(draws: FloatArray, confidence: float) -> Interval:
    """Return the interval that holds this share of draws (B,), as many cut off below as above.

    Args:
        draws: of a figure.
        confidence: two-sided, in (0, 1).
    """
    low, high = np.quantile(draws, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    return Interval(float(low), float(high))
