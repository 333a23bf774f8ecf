"""Which form a cost model should have, and how it should be fitted, by cross-validation (ours).

A richer form fits its own samples better and others worse where there are too few of them, and so does a freer fit. So
both are judged on samples that they were not fitted to, and of those that cannot be told from the best the one with the
fewest terms is taken: the rule of one standard error, on the differences of the same samples' errors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Callable, Dict, List, Optional, Sequence

import numpy as np

from edgeecc.config import FitMethod
from edgeecc.cost.forms import Form, tiles_within
from edgeecc.graph.spec import FloatArray, NetworkSpec

#: Parts that samples are divided into; each is predicted by a fit to the others.
FOLDS = 5


@dataclass(frozen=True)
class Recipe:
    """How a cost model is made of samples: its form, and how it is fitted."""

    form: Form
    fit: FitMethod


#: (recipe, training widths (N, G), values (N,), widths to predict (M, G)) -> predictions (M,).
Predict = Callable[[Recipe, FloatArray, FloatArray, FloatArray], FloatArray]


@dataclass(frozen=True)
class Tried:
    """A recipe and how well it predicted.

    Args:
        recipe: the recipe.
        terms: how many it has, without the constant.
        error: mean relative error over all samples, each predicted by a fit that did not see it.
        standard_error: of its difference to the best form's; 0 for that.
        level: whether it cannot be told from the best, which is so of the best itself.
    """

    recipe: Recipe
    terms: int
    error: float
    standard_error: float
    level: bool


def cross_validated(
    recipe: Recipe, widths: FloatArray, values: FloatArray, *, predict: Predict, seed: int
) -> FloatArray:
    """Return the relative error at every sample, (N,), by a fit to the other folds.

    Args:
        recipe: the form and the fit.
        widths, values: (N, G) and (N,), N at least 2.
        predict: fits and predicts.
        seed: of the folds.
    """
    folds = np.random.default_rng([seed, 0xF01D]).permutation(len(values)) % FOLDS
    errors = np.zeros(len(values))
    for fold in range(FOLDS):
        held = folds == fold
        if held.any() and not held.all():
            told = predict(recipe, widths[~held], values[~held], widths[held])
            errors[held] = np.abs(told - values[held]) / values[held]
    return errors


def choose(  # noqa: PLR0913  # keyword-only, one choice each
    spec: NetworkSpec,
    widths: FloatArray,
    values: FloatArray,
    *,
    predict: Predict,
    seed: int,
    fits: Sequence[FitMethod] = ("work", "nnls"),
    form: Optional[Form] = None,
) -> List[Tried]:
    """Try the recipes that a network and its samples allow, and return them, the one to take first.

    The tile is looked for with linear terms, as they are what small tiles are taken for without; parts of widths are
    tried next, alone and with the tile that did best. All that is by the first fit; the form that is taken is then
    tried with the others.

    Args: see `cross_validated`.
        fits: to choose among, the plainest first.
        form: the only one to try; None tries all.
    """
    errors: Dict[Recipe, FloatArray] = {}

    def consider(recipes: Sequence[Recipe]) -> Recipe:
        """Try recipes, and return the best so far."""
        for recipe in recipes:
            errors[recipe] = cross_validated(recipe, widths, values, predict=predict, seed=seed)
        return min(errors, key=lambda recipe: float(errors[recipe].mean()))

    linear = Form(linear=True)
    forms = [Form(), linear, *(replace(linear, tile=tile) for tile in tiles_within(spec))]
    best = consider([Recipe(one, fits[0]) for one in (forms if form is None else [form])])
    if form is None:
        spans = replace(linear, spans=True)
        forms = sorted({spans, replace(spans, tile=best.form.tile)}, key=lambda one: one.tile)
        best = consider([Recipe(one, fits[0]) for one in forms])
    taken = _taken([_judged(spec, recipe, errors[recipe], errors[best]) for recipe in errors])
    best = consider([Recipe(taken.recipe.form, fit) for fit in fits[1:]])
    tried = [_judged(spec, recipe, errors[recipe], errors[best]) for recipe in errors]
    taken = _taken(tried)
    return [taken, *sorted((one for one in tried if one is not taken), key=lambda one: one.error)]


def _taken(tried: Sequence[Tried]) -> Tried:
    """Return the plainest recipe of those that cannot be told from the best; of one form the first fit."""
    return min((one for one in tried if one.level), key=lambda one: one.terms)


def _judged(spec: NetworkSpec, recipe: Recipe, errors: FloatArray, best: FloatArray) -> Tried:
    deviation = float(np.std(errors - best, ddof=1)) if len(errors) > 1 else 0.0
    error, standard_error = float(errors.mean()), deviation / float(np.sqrt(len(errors)))
    level = error - float(best.mean()) <= standard_error
    return Tried(recipe, len(recipe.form.terms(spec)), error, standard_error, level)
