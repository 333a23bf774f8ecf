"""Fit the coefficients of a cost model to measured samples, and say how far off it is on held-out ones.

Four fits: non-negative least squares, alone, towards what the layers' work says, or towards another profile (see
`cost.prior`); and full-batch Adam, the paper's. The paper's weight decay of 1.0 is not the default, for it cannot work
on normalised features: Adam's loss is a mean over samples, so a coupled decay wd equals a ridge of wd*N/2 on the sum of
squares and pulls the dense prediction down by half (see docs/cost_models.md, where it is measured).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Optional

import numpy as np

from edgeecc.config import FitMethod
from edgeecc.cost.forms import Form
from edgeecc.cost.nnls import nnls
from edgeecc.cost.prior import by_model, by_work, fit_towards
from edgeecc.cost.product import ProductModel
from edgeecc.cost.terms import Features, spec_groups
from edgeecc.errors import ConfigError
from edgeecc.graph.spec import FloatArray, NetworkSpec
from edgeecc.units import Metric

#: From widths (N, G) and values (N,), metric unit, to a cost model.
Fitter = Callable[[FloatArray, FloatArray], ProductModel]


@dataclass(frozen=True)
class HeldoutError:
    """Relative error |predicted - measured| / measured on samples that were not fitted."""

    mean: float
    p95: float
    max: float


def fit(  # noqa: PLR0913  # keyword-only, one sample or state each
    spec: NetworkSpec, widths: FloatArray, values: FloatArray, *, form: Form, method: FitMethod, meter: str,
    metric: Metric, like: Optional[ProductModel] = None,
) -> ProductModel:  # fmt: skip
    """Fit a cost model.

    Args:
        spec: the network.
        widths: (N, G).
        values: (N,), metric unit, positive.
        form: which terms it sums; towards another cost model, that model's beside.
        method: see `CalibrateConfig`; "like" is towards another cost model.
        meter: meter of the values; the model's own is "model of METER".
        metric: what was measured.
        like: the other cost model, of the same network.
    Raises: ConfigError when a value is not positive, or for "like" without another model.
    """
    if not (np.isfinite(values).all() and (values > 0.0).all()):
        raise ConfigError("a measured value is not positive; look at the samples")
    terms, groups = form.terms(spec), spec_groups(spec)
    if method == "like" and like is not None:  # what the other settled need not be found again
        terms = list(dict.fromkeys([*terms, *like.terms]))
    design = np.column_stack([np.ones(len(widths)), Features(groups, terms)(widths)])
    if method == "nnls":
        # Relative residuals: the error that is reported and that a budget feels is relative.
        solution = nnls(design / values[:, None], np.ones(len(values)))
    elif method == "adam":
        solution = np.maximum(adam(design, values), 0.0)
    elif method == "work":
        solution = fit_towards(by_work(spec, terms), design, values)
    elif like is not None:
        solution = fit_towards(by_model(spec, terms, like), design, values)
    else:
        raise ConfigError("a fit like another profile needs that profile; give --like PROFILE")
    return ProductModel(
        metric,
        f"model of {meter}",
        groups=groups,
        terms=terms,
        coefficients=solution[1:],
        constant=solution[0],
    )


def adam(
    design: FloatArray, values: FloatArray, *, steps: int = 10_000, lr: float = 1e-3, weight_decay: float = 0.0
) -> FloatArray:  # fmt: skip
    """Fit by full-batch Adam on the mean squared error, weights from 0 (ECC section 4.1).

    Values are scaled to mean 1 inside, so that the learning rate does not depend on joules or millijoules;
    coupled weight decay acts on all weights but the first, the constant.

    Args:
        design: (N, T), first column ones.
        values: (N,).
    Returns: (T,), metric unit; not constrained to be non-negative.
    """
    scale = float(values.mean())
    target = values / scale
    gram, moment = design.T @ design / len(values), design.T @ target / len(values)
    weights = np.zeros(design.shape[1])
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    decay = np.full(len(weights), weight_decay)
    decay[0] = 0.0
    for step in range(1, steps + 1):
        slope = 2.0 * (gram @ weights - moment) + decay * weights
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        weights -= lr * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return weights * scale


def heldout_error(model: ProductModel, widths: FloatArray, values: FloatArray) -> HeldoutError:
    """Return the relative error of a model on samples (N, G), (N,)."""
    error = np.abs(model.predict_many(widths) - values) / values
    return HeldoutError(float(error.mean()), float(np.quantile(error, 0.95)), float(error.max()))
