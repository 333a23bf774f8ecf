"""Importance between units of loss and shares of a layer's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.solvers.base import Limit
from edgeecc.solvers.levels import levels
from edgeecc.solvers.widthstep import solve
from tests.unit.cost.test_cost import chain


@st.composite
def groups(draw: st.DrawFn) -> list:
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    sizes = generator.integers(1, 9, draw(st.integers(1, 4)))
    return [generator.uniform(0.01, 1.0, n) * 10.0 ** generator.uniform(-6, 6) for n in sizes]


@given(groups(), st.floats(0.0, 1.0))
def test_the_mean_of_a_reading_falls_to_the_rest_of_the_power(
    importance: list, power: float
) -> None:
    for values, factor in zip(importance, levels(importance, power)):
        assert (factor * values).mean() == pytest.approx(values.mean() ** (1.0 - power))


@given(groups())
def test_the_ends_are_loss_and_shares(importance: list) -> None:
    assert levels(importance, 0.0).tolist() == [1.0] * len(importance)
    shares = [a * factor for a, factor in zip(importance, levels(importance, 1.0))]
    assert [a.mean() for a in shares] == pytest.approx([1.0] * len(importance))


@given(st.integers(0, 10_000), st.sampled_from([1e-6, 1e6]))
def test_a_common_factor_changes_no_width(seed: int, factor: float) -> None:
    generator = np.random.default_rng(seed)
    dense = [6, 5]
    importance = [generator.uniform(0.01, 1.0, n) for n in dense]
    model = chain(dense, generator.uniform(0.1, 1.0, 3).tolist(), 0.1)
    limit = Limit(model, 0.5 * model.predict(np.array(dense, float)))
    widths = []
    for scale in (1.0, factor):
        scaled = [scale * a for a in importance]
        ranked = [np.sort(a * f)[::-1] for a, f in zip(scaled, levels(scaled, 0.5))]
        widths.append(solve(ranked, [limit], start=np.array(dense, float), duals=np.zeros(1))[0])
    assert widths[0].tolist() == widths[1].tolist()


def test_a_reading_that_is_worth_nothing_stays_so() -> None:
    found = levels([np.zeros(3), np.ones(2)], 0.5)
    assert np.isfinite(found).all()
    assert found[1] == 1.0
