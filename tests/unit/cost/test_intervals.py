"""Intervals of coefficients and the curve of errors, on devices whose cost is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.cost.error_curve import LEAST, curve_sizes, error_curve
from edgeecc.cost.fit import fit, heldout_error
from edgeecc.cost.forms import Form
from edgeecc.cost.intervals import Interval, bootstrap, percentile_interval
from edgeecc.cost.product import ProductModel
from edgeecc.cost.stopping import upper_mean
from edgeecc.cost.terms import layer_terms, spec_groups
from edgeecc.graph.spec import FloatArray
from edgeecc.units import Metric
from tests.chains import chain_spec

pytestmark = pytest.mark.device
SPEC = chain_spec((12, 20))


def fitter(widths: FloatArray, values: FloatArray) -> ProductModel:
    return fit(
        SPEC, widths, values, form=Form(), method="nnls", meter="device", metric=Metric.ENERGY
    )


def device() -> ProductModel:
    terms = layer_terms(SPEC)
    coefficients = np.linspace(1.0, 2.0, len(terms))
    return ProductModel(
        Metric.ENERGY, "device", groups=spec_groups(SPEC), terms=terms, coefficients=coefficients, constant=1.5
    )  # fmt: skip


def measured(count: int, noise: float, seed: int) -> tuple:
    generator = np.random.default_rng(seed)
    dense = [width for _, width in spec_groups(SPEC)]
    widths = np.column_stack(
        [generator.integers(1, width, count, endpoint=True) for width in dense]
    )
    values = device().predict_many(widths) * (1.0 + noise * generator.standard_normal(count))
    return widths.astype(float), values


def test_a_noiseless_device_leaves_no_doubt() -> None:
    truth = device()
    draws = bootstrap(fitter, *measured(60, 0.0, 0), times=40, seed=0)
    assert draws.shape == (40, len(truth.terms) + 1)
    for column, true in zip(draws.T, [truth.constant, *truth.coefficients]):
        interval = percentile_interval(column, 0.95)
        assert interval.high - interval.low < 1e-9
        assert interval.low == pytest.approx(true)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    truth = np.append(device().constant, device().coefficients)
    covered = []
    for seed in range(60):
        draws = bootstrap(fitter, *measured(120, 0.03, seed), times=60, seed=seed)
        intervals = [percentile_interval(column, 0.9) for column in draws.T]
        covered += [one.low <= true <= one.high for one, true in zip(intervals, truth)]
    assert 0.80 < np.mean(covered) < 0.96


def test_more_samples_narrow_the_intervals() -> None:
    lengths = []
    for count in (50, 800):
        draws = bootstrap(fitter, *measured(count, 0.05, 1), times=60, seed=0)
        lengths.append(np.ptp(np.quantile(draws, [0.05, 0.95], axis=0), axis=0).mean())
    assert lengths[1] < 0.5 * lengths[0]


def test_draws_are_those_of_their_seed() -> None:
    done: list = []
    one, same, other = (
        bootstrap(fitter, *measured(30, 0.05, 2), times=5, seed=seed, on_fit=lambda: done.append(1))
        for seed in (3, 3, 4)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert len(done) == 15


def test_percentiles_cut_off_equal_shares() -> None:
    found = percentile_interval(np.arange(101.0), 0.9)
    assert (found.low, found.high) == pytest.approx((5.0, 95.0))
    assert percentile_interval(np.full(7, 2.5), 0.95) == Interval(2.5, 2.5)


@given(st.integers(1, 5000))
def test_sizes_rise_to_all(count: int) -> None:
    sizes = curve_sizes(count)
    assert sizes == sorted(set(sizes))
    assert sizes[0] == min(LEAST, count)
    assert sizes[-1] == count


def test_the_curve_ends_in_the_error_of_all_samples() -> None:
    known, told = measured(90, 0.05, 5)
    held, truth = measured(40, 0.05, 6)
    points = error_curve(fitter, known, told, held, truth, confidence=0.95)
    model = fitter(known, told)
    assert points[-1].samples == 90
    assert points[-1].error == pytest.approx(heldout_error(model, held, truth).mean, rel=1e-12)
    assert points[-1].upper == upper_mean(np.abs(model.predict_many(held) / truth - 1.0), 0.95)
    assert all(point.upper > point.error for point in points)
    first = fitter(known[:LEAST], told[:LEAST])
    assert points[0].error == pytest.approx(heldout_error(first, held, truth).mean)


def test_one_held_out_sample_bounds_nothing() -> None:
    known, told = measured(20, 0.05, 5)
    points = error_curve(fitter, known, told, *measured(1, 0.05, 6), confidence=0.95)
    assert all(math.isinf(point.upper) for point in points)
