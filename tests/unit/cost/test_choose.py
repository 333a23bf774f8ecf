"""The form of a cost model is found again in samples made by it, and no more is taken than they show."""

from __future__ import annotations

import numpy as np
import pytest

from edgeecc.cost.choose import FOLDS, Recipe, choose, cross_validated
from edgeecc.cost.fit import fit
from edgeecc.cost.forms import Form
from edgeecc.cost.product import ProductModel
from edgeecc.cost.terms import spec_groups
from edgeecc.graph.spec import FloatArray
from edgeecc.units import Metric
from tests.chains import chain_spec

pytestmark = pytest.mark.device

SPEC = chain_spec([64, 96, 128])


def samples(form: Form, count: int, noise: float, seed: int = 0) -> tuple:
    """Return widths and values of a device that works as a form says, all of its terms alike."""
    generator = np.random.default_rng(seed)
    terms = form.terms(SPEC)
    truth = ProductModel(
        Metric.ENERGY, "m", groups=spec_groups(SPEC), terms=terms, coefficients=np.ones(len(terms)), constant=0.2
    )  # fmt: skip
    dense = [group.width for group in SPEC.prunable]
    widths = np.column_stack([generator.integers(1, c + 1, count) for c in dense]).astype(float)
    return widths, truth.predict_many(widths) * (1.0 + noise * generator.standard_normal(count))


def predict(
    recipe: Recipe, widths: FloatArray, values: FloatArray, wanted: FloatArray
) -> FloatArray:
    model = fit(
        SPEC, widths, values, form=recipe.form, method=recipe.fit, meter="m", metric=Metric.ENERGY
    )
    return model.predict_many(wanted)


def by_nnls(widths: FloatArray, values: FloatArray, seed: int) -> list:
    """Return the recipes that were tried, fitted by least squares alone."""
    return choose(SPEC, widths, values, predict=predict, seed=seed, fits=["nnls"])


@pytest.mark.parametrize(
    ("truth", "noise"),
    [
        (Form(), 0.02),
        (Form(linear=True), 0.01),
        (Form(linear=True, tile=8), 0.01),
        (Form(linear=True, tile=32), 0.02),
    ],
)
def test_the_form_of_the_device_is_found(truth: Form, noise: float) -> None:
    widths, values = samples(truth, 400, noise)
    tried = by_nnls(widths, values, 1)
    assert tried[0].recipe.form == truth
    assert {one.recipe.form for one in tried} >= {
        Form(),
        Form(linear=True),
        Form(linear=True, tile=64),
    }
    assert [one.error for one in tried[1:]] == sorted(one.error for one in tried[1:])


def test_spans_are_taken_for_a_cost_that_bends() -> None:
    widths, _ = samples(Form(), 400, 0.0)
    values = 1.0 + np.minimum(widths, 12.0).sum(1) + widths.prod(1) ** (1 / 3) / 50.0
    tried = by_nnls(widths, values, 1)
    assert tried[0].recipe.form.spans
    assert tried[0].error < 0.5 * next(
        one.error for one in tried if one.recipe.form == Form(linear=True)
    )


def test_noise_alone_buys_no_terms() -> None:
    chosen = []
    for seed in range(10):
        widths, values = samples(Form(), 100, 0.05, seed)
        chosen.append(by_nnls(widths, values, seed)[0].recipe.form)
    assert chosen.count(Form()) >= 8


def test_every_sample_is_predicted_by_a_fit_that_did_not_see_it() -> None:
    widths, values = samples(Form(), 23, 0.02)
    seen = []

    def spy(recipe: Recipe, known: FloatArray, told: FloatArray, wanted: FloatArray) -> FloatArray:
        seen.append(len(wanted))
        rows = {tuple(row) for row in known}
        assert not any(tuple(row) in rows for row in wanted)
        assert len(known) == len(told) == len(values) - len(wanted)
        return np.full(len(wanted), 2.0 * values[0])

    errors = cross_validated(Recipe(Form(), "nnls"), widths, values, predict=spy, seed=0)
    assert (len(seen), sum(seen)) == (FOLDS, 23)
    np.testing.assert_allclose(errors, np.abs(2.0 * values[0] - values) / values)


def test_fits_are_compared_on_the_form_that_is_taken() -> None:
    widths, values = samples(Form(linear=True), 60, 0.01)
    tried = choose(SPEC, widths, values, predict=predict, seed=1)
    taken = [one.recipe.fit for one in tried if one.recipe.form == tried[0].recipe.form]
    assert sorted(taken) == ["nnls", "work"]
    assert [one.recipe.fit for one in tried].count("nnls") == 1


def test_least_squares_alone_is_taken_where_work_tells_wrong() -> None:
    """All terms cost alike on this device, whatever their work."""
    widths, values = samples(Form(), 400, 0.001)
    tried = choose(SPEC, widths, values, predict=predict, seed=1, form=Form())
    assert {one.recipe.form for one in tried} == {Form()}
    assert len(tried) == 2
    assert min(one.error for one in tried) == tried[0].error or tried[0].recipe.fit == "work"
