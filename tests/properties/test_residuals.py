"""The residuals of ECC against their definitions, written out and by brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.cost.exact import mac_cost
from edgeecc.graph.trace import trace
from edgeecc.solvers.base import Limit, Problem
from edgeecc.solvers.residuals import (
    TOLERANCE,
    Residuals,
    dual_residual,
    price_gap,
    primal_residual,
)
from edgeecc.solvers.widthstep import solve
from tests import zoo
from tests.properties.test_width_step import Linear, knapsacks, lost


@given(st.integers(1, 2).flatmap(knapsacks), st.data())
def test_the_gap_is_what_other_widths_would_better_at_the_same_prices(
    drawn: tuple, data: st.DataObject
) -> None:
    ranked, limits = drawn
    counts = [len(values) for values in ranked]
    widths = tuple(data.draw(st.integers(1, count)) for count in counts)
    least = np.array([data.draw(st.integers(1, width)) for width in widths], dtype=float)
    z = np.array([data.draw(st.floats(0.0, 5.0)) for _ in limits])

    def lagrangian(choice: tuple) -> float:
        at = np.array(choice, dtype=float)
        prices = [v * limit.cost.predict(at) / limit.bound for v, limit in zip(z, limits)]
        return lost(ranked, choice) + sum(prices)

    choices = itertools.product(*(range(int(a), b + 1) for a, b in zip(least, counts)))
    better = lagrangian(widths) - min(map(lagrangian, choices))
    everything = sum(float(values.sum()) for values in ranked) / 2.0
    found = price_gap(ranked, limits, np.array(widths, dtype=float), z, least=least)
    assert found == pytest.approx(better / everything, abs=1e-9)


@given(st.integers(1, 2).flatmap(knapsacks))
def test_a_solved_width_step_leaves_no_gap(drawn: tuple) -> None:
    ranked, limits = drawn
    start = np.array([len(values) for values in ranked], dtype=float)
    widths, z = solve(ranked, limits, start=start, duals=np.zeros(len(limits)))
    assert price_gap(ranked, limits, widths, z, least=np.ones(len(widths))) <= 1e-9


def test_a_width_that_is_dear_for_what_it_keeps_leaves_a_gap() -> None:
    ranked = [np.array([4.0, 2.0, 0.2]), np.array([4.0, 2.0, 1.8])]
    limits = [Limit(Linear((1.0, 1.0), (3, 3)), 5.0)]
    z, least = np.array([2.5]), np.ones(2)  # 0.5 a unit: units of more than 1.0 pay
    assert price_gap(ranked, limits, np.array([2.0, 3.0]), z, least=least) == 0.0
    # The third unit of the first group costs 0.5 and keeps 0.1; the third of the second would keep 0.9.
    found = price_gap(ranked, limits, np.array([3.0, 2.0]), z, least=least)
    assert found == pytest.approx((0.4 + 0.4) / 7.0)
    assert price_gap(ranked, limits, np.array([3.0, 2.0]), np.array([np.inf]), least=least) == 0.0
    # What must be kept is not missed, and nothing is worth nothing.
    kept = price_gap(ranked, limits, np.array([3.0, 3.0]), z, least=np.full(2, 3.0))
    assert kept == 0.0
    nothing = [np.zeros(2), np.zeros(2)]
    assert price_gap(nothing, limits, np.ones(2), np.zeros(1), least=least) == 0.0


def test_the_primal_residual_is_the_largest_excess_of_a_width_or_of_a_cost() -> None:
    model, inputs = zoo.build("residual")
    spec = trace(model, inputs, network="residual")
    dense = spec.vector(spec.dense_widths())
    cost = mac_cost(spec)
    problem = Problem(spec, (Limit(cost, 0.5 * cost.predict(dense)),), 0)
    assert primal_residual(problem, dense, dense, dense) == pytest.approx(1.0)
    least = np.ones_like(dense)
    assert primal_residual(problem, least, least, dense) == 0.0
    assert primal_residual(problem, least + 1.0, least, dense) == pytest.approx(1.0 / dense.min())


def test_the_dual_residual_is_the_largest_move_either_way_beyond_a_grain() -> None:
    dense = np.array([10.0, 4.0])
    assert dual_residual(np.array([10.0, 2.0]), np.array([9.0, 4.0]), dense) == 0.25
    assert dual_residual(np.array([10.0, 4.0]), np.array([2.0, 4.0]), dense, grain=3) == 0.5
    assert dual_residual(dense, dense - 1.0, dense) == 0.0


@pytest.mark.parametrize(
    ("residuals", "small"),
    [
        (Residuals(), True),
        (Residuals(0.0, TOLERANCE, TOLERANCE), True),
        (Residuals(1e-9, 0.0, 0.0), False),
        (Residuals(0.0, 1.01 * TOLERANCE, 0.0), False),
        (Residuals(0.0, 0.0, 1.01 * TOLERANCE), False),
    ],
)
def test_residuals_are_small_where_the_limits_hold_and_little_moved(
    residuals: Residuals, small: bool
) -> None:
    assert residuals.are_small is small
