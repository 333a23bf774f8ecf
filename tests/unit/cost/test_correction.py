"""Correcting a cost model by measurements: devices that are affine in it, noise, bounds, and a brute-force oracle."""

from __future__ import annotations

import math
from typing import List

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.cost.correction import (
    LEAST_SCALE,
    OFFSET_SPREAD,
    REGION,
    SCALE_SPREAD,
    Correction,
    Pair,
    corrected_by,
)
from edgeecc.cost.forms import Form
from edgeecc.cost.product import ProductModel
from edgeecc.cost.terms import spec_groups
from edgeecc.errors import ConfigError
from edgeecc.units import Metric
from tests.chains import chain_spec

pytestmark = pytest.mark.device
SPEC = chain_spec([12, 8])
#: Predicted costs of the networks of a run, the present one last, in units of that one.
SHARES = st.lists(st.floats(0.6, 3.0), min_size=1, max_size=4)
SCALES = st.floats(0.3, 3.0)
OFFSETS = st.floats(-0.15, 0.5)
ERRORS = st.floats(1e-4, 0.05)


def model_of(fixed: float, slopes: List[float]) -> ProductModel:
    terms = Form(linear=True).terms(SPEC)
    return ProductModel(
        Metric.ENERGY, "model of a", groups=spec_groups(SPEC), terms=terms,
        coefficients=np.resize(np.array(slopes), len(terms)), constant=fixed,
    )  # fmt: skip


@given(SHARES, SCALES, OFFSETS, st.floats(1e-6, 1e3))
def test_an_affine_device_is_recovered(
    others: List[float], scale: float, offset: float, unit: float
) -> None:
    """Two pairs that lie apart and no noise settle the line."""
    others = [share for share in others if abs(share - 1.0) > 0.05] or [2.0]
    pairs = [
        Pair(p * unit, (scale * p + offset) * unit, 0.0)
        for p in (*others, 1.0)
        if scale * p + offset > 0.0
    ]
    if len(pairs) < 2 or pairs[-1].predicted != unit:
        return
    found = corrected_by(pairs, 0.2 * unit if 0.2 * scale + offset >= 0.0 else unit)
    if found.offset / unit < -0.9 * scale:  # the bound of a constant as large as the cost
        return
    assert found.scale == pytest.approx(scale, rel=1e-3)
    assert found.offset / unit == pytest.approx(offset, abs=1e-3)


@given(SHARES, SCALES, OFFSETS, ERRORS, st.floats(1e-6, 1e6))
def test_units_do_not_matter(
    others: List[float], scale: float, offset: float, error: float, unit: float
) -> None:
    def found(unit: float) -> Correction:
        pairs = [
            Pair(p * unit, max(0.1, scale * p + offset) * unit, error * unit)
            for p in (*others, 1.0)
        ]
        return corrected_by(pairs, 0.3 * unit)

    one, other = found(1.0), found(unit)
    assert other.scale == pytest.approx(one.scale, rel=1e-6)
    assert other.offset == pytest.approx(one.offset * unit, rel=1e-6, abs=1e-9 * unit)


@given(
    st.lists(st.tuples(st.floats(0.3, 3.0), st.floats(0.05, 5.0), st.floats(0.0, 0.3)), min_size=1),
    st.floats(0.0, 0.3),
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=9),
)
def test_what_is_corrected_stays_monotone_and_non_negative(
    numbers: List[tuple], fixed: float, slopes: List[float]
) -> None:
    """Whatever was measured; the receipt of a model asks its coefficients to be at least 0."""
    pairs = [Pair(*each) for each in numbers]
    model = model_of(fixed, slopes)
    correction = corrected_by(pairs, fixed)
    assert correction.scale >= LEAST_SCALE
    better = correction.of(model, "corrected")
    assert better.meter == "corrected"
    assert better.constant >= 0.0
    assert (better.coefficients >= 0.0).all()
    some, more = np.array([3.0, 4.0]), np.array([9.0, 4.0])
    assert 0.0 <= better.predict(some) <= better.predict(more)
    assert better.predict(some) == pytest.approx(correction.at(model.predict(some)), abs=1e-9)


@given(SHARES, SCALES, OFFSETS, ERRORS)
def test_it_is_the_least_of_the_stated_sum(
    others: List[float], scale: float, offset: float, error: float
) -> None:
    """A grid around the answer, in scale and corrected constant, holds nothing better that is allowed."""
    fixed = 0.3
    pairs = [Pair(p, max(0.1, scale * p + offset), error) for p in (*others, 1.0)]

    def loss(a: float, b: float) -> float:
        total = ((a - 1.0) / SCALE_SPREAD) ** 2 + (b / OFFSET_SPREAD) ** 2
        for pair in pairs:
            spread = pair.error * (1.0 + ((pair.predicted - 1.0) / REGION) ** 2)
            total += ((pair.measured - a * pair.predicted - b) / spread) ** 2
        return total

    found = corrected_by(pairs, fixed)
    best = loss(found.scale, found.offset)
    for da in np.linspace(-0.5, 0.5, 21):
        for db in np.linspace(-0.5, 0.5, 21):
            a, b = found.scale + da, found.offset + db
            if a >= LEAST_SCALE and a * fixed + b >= 0.0:
                assert best <= loss(a, b) * (1.0 + 1e-9) + 1e-9


@given(st.floats(0.5, 2.0), st.floats(0.0, 0.9))
def test_one_pair_goes_through_the_measurement_and_mostly_into_the_scale(
    ratio: float, fixed: float
) -> None:
    found = corrected_by([Pair(2.0, 2.0 * ratio, 1e-6)], 2.0 * fixed)
    assert found.at(2.0) == pytest.approx(2.0 * ratio, rel=1e-4)
    if found.offset > -found.scale * 2.0 * fixed + 1e-9:  # not at the bound
        assert found.scale - 1.0 == pytest.approx(0.9 * (ratio - 1.0), abs=1e-4)


@given(SCALES, OFFSETS)
def test_noise_shrinks_the_correction(scale: float, offset: float) -> None:
    def distance(error: float) -> float:
        pairs = [Pair(p, scale * p + offset, error) for p in (2.0, 1.0)]
        found = corrected_by(pairs, 0.5)
        return math.hypot((found.scale - 1.0) / SCALE_SPREAD, found.offset / OFFSET_SPREAD)

    distances = [distance(error) for error in (1e-3, 0.1, 1.0, 10.0, 1e3)]
    assert all(b <= a + 1e-9 for a, b in zip(distances, distances[1:]))
    assert distances[-1] < 1e-3


def test_pairs_weigh_by_nearness_and_by_their_errors() -> None:
    """Two measurements of one prediction disagree; the one with the smaller error is nearer to the answer."""
    sharp = corrected_by([Pair(1.0, 1.4, 0.1), Pair(1.0, 1.2, 0.01)])
    assert abs(sharp.at(1.0) - 1.2) < 0.1 * abs(sharp.at(1.0) - 1.4)
    # Off the line of the two near ones, the same pair counts less the further off it lies.
    near = [Pair(1.1, 1.1, 0.01), Pair(1.0, 1.0, 0.01)]
    bent = [corrected_by([Pair(p, 1.3 * p, 0.01), *near]).scale - 1.0 for p in (1.3, 4.0)]
    assert bent[0] > bent[1] > 0.0


def test_what_cannot_correct_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing was measured"):
        corrected_by([])
    for pair in ((0.0, 1.0, 0.1), (1.0, -1.0, 0.1), (1.0, 1.0, -0.1), (1.0, math.nan, 0.1)):
        with pytest.raises(ConfigError, match="look at the meter and the profile"):
            Pair(*pair)
