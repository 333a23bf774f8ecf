"""Fits towards what work says: exact where it is so, least squares where samples are many, sensible between."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.cost.fit import fit
from edgeecc.cost.forms import Form
from edgeecc.cost.nnls import nnls
from edgeecc.cost.prior import (
    DEVIATION,
    _freedom,
    _most_probable,
    by_model,
    by_work,
    fit_towards,
    layer_works,
)
from edgeecc.cost.product import ProductModel
from edgeecc.cost.terms import Features, layer_terms, spec_groups
from edgeecc.errors import ConfigError
from edgeecc.graph.spec import FloatArray
from edgeecc.units import Metric
from tests.chains import chain_spec

pytestmark = pytest.mark.device

SPEC = chain_spec([64, 96, 128])
TERMS = layer_terms(SPEC)
RICH = Form(linear=True, tile=8, spans=True)


def drawn(count: int, seed: int) -> FloatArray:
    generator = np.random.default_rng(seed)
    return np.column_stack(
        [generator.integers(1, group.width + 1, count) for group in SPEC.prunable]
    ).astype(float)


def design(widths: FloatArray, terms: list = TERMS) -> FloatArray:
    return np.column_stack([np.ones(len(widths)), Features(spec_groups(SPEC), terms)(widths)])


def by_hand(prices: list, fixed: float) -> FloatArray:
    """Return the coefficients of a device with these prices of MACs, weights and moved values."""
    return np.concatenate([[fixed], layer_works(SPEC) @ np.array(prices)])


@given(
    st.lists(st.floats(0.0, 10.0), min_size=3, max_size=3), st.floats(0.1, 1.0), st.integers(0, 99)
)
def test_a_device_that_pays_for_work_alone_is_known_from_few_samples(
    prices: list, fixed: float, seed: int
) -> None:
    truth = by_hand(prices, fixed)
    widths = drawn(8, seed)
    found = fit_towards(by_work(SPEC, TERMS), design(widths), design(widths) @ truth)
    wanted = drawn(50, seed + 1)
    np.testing.assert_allclose(design(wanted) @ found, design(wanted) @ truth, rtol=2e-2)


def test_many_samples_outweigh_the_prior() -> None:
    truth = np.array([0.1, 5.0, 0.01, 0.01, 3.0])[: 1 + len(TERMS)]
    widths = drawn(3000, 0)
    noise = 1.0 + 0.02 * np.random.default_rng(1).standard_normal(3000)
    values = design(widths) @ truth * noise
    found = fit_towards(by_work(SPEC, TERMS), design(widths), values)
    alone = nnls(design(widths) / values[:, None], np.ones(len(values)))
    np.testing.assert_allclose(found, alone, atol=0.03 * truth.sum())


@pytest.mark.parametrize("terms", [TERMS, RICH.terms(SPEC)])
@pytest.mark.parametrize(("count", "noise"), [(3, 0.01), (10, 0.1), (60, 0.02)])
def test_the_answer_is_that_of_bounded_least_squares(terms: list, count: int, noise: float) -> None:
    """Residuals over the noise, distances over deviations, by scipy."""
    optimize = pytest.importorskip("scipy.optimize")
    generator = np.random.default_rng(count)
    relative = design(drawn(count, 3), terms) / generator.uniform(1.0, 3.0, count)[:, None]
    expected = generator.uniform(0.0, 1.0, 1 + len(terms))
    deviations = generator.uniform(0.1, 2.0, 1 + len(terms))
    found = _most_probable(relative, (expected, deviations), noise**2)
    matrix = np.vstack([relative / noise, np.diag(1.0 / deviations)])
    target = np.concatenate([np.full(count, 1.0 / noise), expected / deviations])
    wanted = optimize.lsq_linear(matrix, target, (0.0, np.inf), tol=1e-14).x
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("noise", [0.003, 0.03, 0.2])
def test_settled_coefficients_are_counted_by_finite_differences(noise: float) -> None:
    """The trace of d fitted / d value, of the unbounded problem."""
    generator = np.random.default_rng(0)
    relative = design(drawn(12, 1))
    expected, deviations = np.ones(len(TERMS) + 1), generator.uniform(0.1, 1.0, len(TERMS) + 1)
    matrix = np.vstack([relative / noise, np.diag(1.0 / deviations)])

    def fitted(values: FloatArray) -> FloatArray:
        target = np.concatenate([values / noise, expected / deviations])
        return np.asarray(relative @ np.linalg.lstsq(matrix, target, rcond=None)[0])

    unit = np.eye(12)
    trace = sum(float((fitted(unit[at]) - fitted(0.0 * unit[at]))[at]) for at in range(12))
    assert _freedom(relative, deviations, noise**2) == pytest.approx(trace)


@given(st.floats(1e-6, 1e6), st.integers(1, 40), st.integers(0, 99))
def test_units_do_not_matter(unit: float, count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    widths = drawn(count, seed)
    values = generator.uniform(0.5, 1.5, count)
    terms = RICH.terms(SPEC)
    one, other = (
        fit_towards(by_work(SPEC, terms), design(widths, terms), values * by) for by in (1.0, unit)
    )
    np.testing.assert_allclose(other, one * unit, rtol=1e-6, atol=1e-9 * unit)


def test_works_are_shares_by_hand() -> None:
    works = layer_works(SPEC)
    np.testing.assert_allclose(works.sum(axis=0), 1.0)
    macs = np.array([layer.dense_macs for layer in SPEC.layers], dtype=float)
    np.testing.assert_allclose(works[:, 0], macs / macs.sum())


def test_terms_of_groups_may_cost_what_the_layers_beside_them_do() -> None:
    terms = Form(linear=True).terms(SPEC)
    prior = by_work(SPEC, terms)
    expected = prior.patterns @ np.array([1.0, 1.0, 1.0])
    assert (expected[len(TERMS) :] == 0.0).all()
    deviations = prior.deviations(expected, 0.0)
    assert (deviations[: len(TERMS)] >= DEVIATION * expected[: len(TERMS)]).all()
    # g0 is made by the first layer and read by the second, half of each.
    near = 0.5 * deviations[0] + 0.5 * deviations[1]
    assert deviations[len(TERMS)] == pytest.approx(near)


def test_what_groups_are_called_does_not_matter() -> None:
    """A trace names a group after the layer that makes it."""
    named = chain_spec([64, 96, 128], groups="layer")
    assert [group.name for group in named.prunable] == [layer.name for layer in named.layers[:-1]]
    one, other = (by_work(spec, RICH.terms(spec)) for spec in (SPEC, named))
    for part in ("patterns", "layers", "own"):
        np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


@given(st.floats(0.1, 10.0), st.integers(4, 8), st.integers(0, 99))
def test_a_device_in_proportion_to_another_is_known_from_four_samples(
    factor: float, count: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    terms = Form(linear=True).terms(SPEC)
    other = ProductModel(
        Metric.ENERGY, "other", groups=spec_groups(SPEC), terms=terms,
        coefficients=generator.uniform(0.1, 1.0, len(terms)), constant=0.3,
    )  # fmt: skip
    widths = drawn(count, seed)
    found = fit(
        SPEC, widths, factor * other.predict_many(widths), form=Form(linear=True), method="like", meter="m",
        metric=Metric.ENERGY, like=other,
    )  # fmt: skip
    wanted = drawn(40, seed + 1)
    truth = factor * other.predict_many(wanted)
    np.testing.assert_allclose(found.predict_many(wanted), truth, rtol=0.02)


def test_terms_that_the_other_model_lacks_are_expected_to_cost_nothing() -> None:
    other = ProductModel(
        Metric.ENERGY, "other", groups=spec_groups(SPEC), terms=TERMS,
        coefficients=np.ones(len(TERMS)), constant=0.0,
    )  # fmt: skip
    prior, work = by_model(SPEC, RICH.terms(SPEC), other), by_work(SPEC, RICH.terms(SPEC))
    np.testing.assert_allclose(prior.patterns[: len(TERMS), 0], 1.0 / len(TERMS))
    np.testing.assert_array_equal(prior.patterns[:, 1:], work.patterns)
    assert (prior.patterns[len(TERMS) :] == 0.0).all()


def test_terms_that_the_other_model_settled_are_kept() -> None:
    """A plain form towards a device with tiles has its tiles, and knows the same device from few samples."""
    terms, generator = Form(linear=True, tile=32).terms(SPEC), np.random.default_rng(0)
    other = ProductModel(
        Metric.ENERGY, "other", groups=spec_groups(SPEC), terms=terms,
        coefficients=generator.uniform(0.5, 1.0, len(terms)), constant=0.1,
    )  # fmt: skip
    known, wanted = drawn(6, 0), drawn(50, 1)
    found = fit(
        SPEC, known, 3.0 * other.predict_many(known), form=Form(), method="like", meter="m", metric=Metric.ENERGY,
        like=other,
    )  # fmt: skip
    assert set(found.terms) == set(terms)
    np.testing.assert_allclose(
        found.predict_many(wanted), 3.0 * other.predict_many(wanted), rtol=0.02
    )


def test_a_fit_like_another_needs_it() -> None:
    widths = drawn(5, 0)
    with pytest.raises(ConfigError, match="give --like PROFILE"):
        fit(SPEC, widths, np.ones(5), form=Form(), method="like", meter="m", metric=Metric.ENERGY)
