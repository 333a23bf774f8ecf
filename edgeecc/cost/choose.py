"""Which form a cost model should have, by cross-validation (ours).

A richer form fits its own samples better and others worse where there are too few of them. So the forms are judged on
samples that they were not fitted to, and of those that cannot be told from the best the one with the fewest terms is
taken: the rule of one standard error, on the differences of the same samples' errors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Callable, Dict, List, Sequence

import numpy as np

from edgeecc.cost.forms import Form, tiles_within
from edgeecc.graph.spec import FloatArray, NetworkSpec

#: Parts that samples are divided into; each is predicted by a fit to the others.
FOLDS = 5
#: (form, training widths (N, G), values (N,), widths to predict (M, G)) -> predictions (M,).
Predict = Callable[[Form, FloatArray, FloatArray, FloatArray], FloatArray]


@dataclass(frozen=True)
class Tried:
    """A form and how well it predicted.

    Args:
        form: the form.
        terms: how many it has, without the constant.
        error: mean relative error over all samples, each predicted by a fit that did not see it.
        standard_error: of its difference to the best form's; 0 for that.
        level: whether it cannot be told from the best, which is so of the best itself.
    """

    form: Form
    terms: int
    error: float
    standard_error: float
    level: bool


def cross_validated(
    form: Form, widths: FloatArray, values: FloatArray, *, predict: Predict, seed: int
) -> FloatArray:
    """Return the relative error at every sample, (N,), by a fit to the other folds.

    Args:
        form: the form.
        widths, values: (N, G) and (N,), N at least 2.
        predict: fits and predicts.
        seed: of the folds.
    """
    folds = np.random.default_rng([seed, 0xF01D]).permutation(len(values)) % FOLDS
    errors = np.zeros(len(values))
    for fold in range(FOLDS):
        held = folds == fold
        if held.any() and not held.all():
            told = predict(form, widths[~held], values[~held], widths[held])
            errors[held] = np.abs(told - values[held]) / values[held]
    return errors


def choose(
    spec: NetworkSpec, widths: FloatArray, values: FloatArray, *, predict: Predict, seed: int
) -> List[Tried]:
    """Try the forms that a network and its samples allow, and return them, the one to take first.

    The tile is looked for with linear terms, as they are what small tiles are taken for without; parts of widths are
    tried last, alone and with the tile that did best.

    Args: see `cross_validated`.
    """
    errors: Dict[Form, FloatArray] = {}

    def consider(forms: Sequence[Form]) -> Form:
        """Try forms, and return the best so far."""
        for form in forms:
            errors[form] = cross_validated(form, widths, values, predict=predict, seed=seed)
        return min(errors, key=lambda form: float(errors[form].mean()))

    linear = Form(linear=True)
    best = consider([Form(), linear, *(replace(linear, tile=tile) for tile in tiles_within(spec))])
    spans = replace(linear, spans=True)
    best = consider(sorted({spans, replace(spans, tile=best.tile)}, key=lambda form: form.tile))
    tried = [_judged(spec, form, errors[form], errors[best]) for form in errors]
    taken = min((one for one in tried if one.level), key=lambda one: (one.terms, one.error))
    return [taken, *sorted((one for one in tried if one is not taken), key=lambda one: one.error)]


def _judged(spec: NetworkSpec, form: Form, errors: FloatArray, best: FloatArray) -> Tried:
    deviation = float(np.std(errors - best, ddof=1)) if len(errors) > 1 else 0.0
    error, standard_error = float(errors.mean()), deviation / float(np.sqrt(len(errors)))
    level = error - float(best.mean()) <= standard_error
    return Tried(form, len(form.terms(spec)), error, standard_error, level)
