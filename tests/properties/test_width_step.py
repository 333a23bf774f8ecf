"""The width step solved in its dual, against brute force."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import List, Optional, Tuple

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeecc.solvers.base import Limit
from edgeecc.solvers.widthstep import solve
from edgeecc.units import Metric
from tests.unit.cost.test_cost import chain

#: How far a dual may stay from the smallest that holds its limit when two have settled: each then moves by little a
#: turn, and may have some way to go.
SETTLED = 0.01


@dataclass(frozen=True)
class Linear:
    """A cost without products: the width step then is a knapsack."""

    prices: Tuple[float, ...]
    dense: Tuple[int, ...]
    metric: Metric = Metric.ENERGY
    meter: str = "test"
    tile: int = 1

    def predict(self, widths: np.ndarray) -> float:
        return float(np.dot(self.prices, widths))

    def gradient(self, widths: np.ndarray) -> np.ndarray:
        return np.array(self.prices)

    def to_json(self) -> dict:
        return {}


def lost(ranked: List[np.ndarray], widths: tuple) -> float:
    return sum(float(values[int(w) :].sum()) for values, w in zip(ranked, widths)) / 2.0


@st.composite
def knapsacks(draw: st.DrawFn, limits: int) -> tuple:
    dense = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    values = st.floats(0.01, 1.0)
    ranked = [np.sort(draw(st.lists(values, min_size=n, max_size=n)))[::-1].copy() for n in dense]
    costs = [
        Linear(
            tuple(draw(st.lists(values, min_size=len(dense), max_size=len(dense)))), tuple(dense)
        )
        for _ in range(limits)
    ]
    bounds = []
    for cost in costs:
        least, most = cost.predict(np.ones(len(dense))), cost.predict(np.array(dense))
        bounds.append(Limit(cost, least + draw(st.floats(0.0, 1.0)) * (most - least)))
    return ranked, bounds


def run(ranked: list, limits: list) -> tuple:
    start = np.array([len(values) for values in ranked], dtype=float)
    return solve(ranked, limits, start=start, duals=np.zeros(len(limits)))


@given(st.integers(1, 2).flatmap(knapsacks))
def test_limits_hold_and_the_lagrangian_is_least(drawn: tuple) -> None:
    ranked, limits = drawn
    widths, z = run(ranked, limits)
    if not np.isfinite(z).all():
        assert (widths == 1.0).all()
        return
    assert all(limit.cost.predict(widths) <= limit.bound * (1 + 1e-12) for limit in limits)

    def lagrangian(choice: tuple) -> float:
        prices = [
            v * limit.cost.predict(np.array(choice)) / limit.bound for v, limit in zip(z, limits)
        ]
        return lost(ranked, choice) + sum(prices)

    choices = itertools.product(*(range(1, len(values) + 1) for values in ranked))
    assert lagrangian(tuple(widths)) <= min(map(lagrangian, choices)) + 1e-9


def smallest(ranked: list, limits: list, z: np.ndarray, place: int) -> float:
    """Return the smallest dual with which a limit of linear costs holds, the other duals as they are.

    A unit goes where half its importance is no more than its price, so only the prices at which one goes count.
    """
    shares = np.array([limit.cost.prices for limit in limits])
    shares /= np.array([[limit.bound] for limit in limits])
    others = z @ shares - z[place] * shares[place]

    def cost(price: np.ndarray) -> float:
        stay = [max(1, int((values / 2.0 > each).sum())) for values, each in zip(ranked, price)]
        return float(limits[place].cost.predict(np.array(stay)))

    turns = [
        (value / 2.0 - other) / share
        for values, other, share in zip(ranked, others, shares[place])
        for value in values
    ]
    # What rounding makes of a price at which a unit goes must not keep it.
    duals = [0.0, *(turn * (1.0 + 1e-9) for turn in sorted(turns) if turn > 0.0)]
    return next(
        dual for dual in duals if cost(others + dual * shares[place]) <= limits[place].bound
    )


@given(knapsacks(1))
def test_the_dual_is_the_smallest_that_holds(drawn: tuple) -> None:
    ranked, limits = drawn
    _, z = run(ranked, limits)
    assert z[0] == pytest.approx(smallest(ranked, limits, z, 0), rel=2e-3, abs=5e-3)


@given(knapsacks(2))
def test_of_two_limits_the_last_dual_is_the_smallest_and_the_first_no_smaller(
    drawn: tuple,
) -> None:
    """A few rounds over two duals may leave the first, found before the second, above the smallest."""
    ranked, limits = drawn
    _, z = run(ranked, limits)
    least = [smallest(ranked, limits, z, place) for place in range(2)]
    assert z[1] == pytest.approx(least[1], rel=2e-3, abs=5e-3)
    assert z[0] >= least[0] * (1.0 - 1e-8)


@given(knapsacks(2))
def test_what_one_price_holds_has_no_second(drawn: tuple) -> None:
    ranked, limits = drawn
    _, z = run(ranked, limits)
    for place, limit in enumerate(limits):
        alone, _ = run(ranked, [limit])
        if limits[1 - place].cost.predict(alone) <= limits[1 - place].bound:
            assert z.min() == 0.0
            return
    assert z.min() > 0.0


@given(knapsacks(2))
def test_each_of_two_duals_is_the_smallest_that_holds_once_they_have_settled(drawn: tuple) -> None:
    """Rounds of ECC start from the duals of the last, and so they settle there too."""
    ranked, limits = drawn
    start, z = np.array([len(values) for values in ranked], dtype=float), np.zeros(2)
    for _ in range(40):
        before = z
        widths, z = solve(ranked, limits, start=start, duals=z)
        if np.allclose(before, z, rtol=1e-4, atol=1e-9):
            break
    assert all(limit.cost.predict(widths) <= limit.bound * (1 + 1e-12) for limit in limits)
    for place in range(2):
        assert z[place] == pytest.approx(
            smallest(ranked, limits, z, place), rel=SETTLED, abs=SETTLED
        )


@given(st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_on_products_no_change_of_one_group_betters_the_lagrangian(seed: int, share: float) -> None:
    generator = np.random.default_rng(seed)
    dense = generator.integers(2, 9, 3)
    model = chain(dense.tolist(), generator.uniform(0.1, 1.0, 4).tolist(), 0.1)
    ranked = [np.sort(generator.uniform(0.01, 1.0, n))[::-1] for n in dense]
    least, most = model.predict(np.ones(3)), model.predict(dense.astype(float))
    limit = Limit(model, least + share * (most - least))
    widths, z = run(ranked, [limit])
    assert model.predict(widths) <= limit.bound * (1 + 1e-12)
    assert ((widths >= 1) & (widths <= dense)).all()

    def lagrangian(choice: np.ndarray) -> float:
        return lost(ranked, tuple(choice)) + z[0] * model.predict(choice) / limit.bound

    for group in range(3):
        for width in range(1, dense[group] + 1):
            other = widths.copy()
            other[group] = width
            assert lagrangian(other) >= lagrangian(widths) - 1e-9


@example(52, 3, 0.0)  # what is raised last lets the first go, by 7 %
@example(11, 2, 0.0)
@given(st.integers(0, 10_000), st.integers(2, 3), st.sampled_from([0.0, 5.0, np.inf]))
def test_several_limits_on_products_hold_wherever_the_search_starts(
    seed: int, count: int, dual: float
) -> None:
    """Costs of products: a width may grow again, and a limit that was held before be missed."""
    generator = np.random.default_rng(seed)
    dense = generator.integers(8, 65, 5)
    ranked = [np.sort(generator.lognormal(0.0, 1.0, n))[::-1] for n in dense]
    limits = []
    for _ in range(count):
        model = chain(dense.tolist(), generator.uniform(0.1, 1.0, 6).tolist(), 0.1)
        limits.append(
            Limit(model, generator.uniform(0.2, 0.6) * model.predict(dense.astype(float)))
        )
    widths, z = solve(ranked, limits, start=dense.astype(float), duals=np.full(count, dual))
    assert np.isfinite(z).all()
    assert all(limit.cost.predict(widths) <= limit.bound for limit in limits)


@given(st.integers(0, 10_000))
def test_the_unit_of_a_cost_does_not_matter(seed: int) -> None:
    generator = np.random.default_rng(seed)
    dense = [6, 5]
    ranked = [np.sort(generator.uniform(0.01, 1.0, n))[::-1] for n in dense]
    coefficients = generator.uniform(0.1, 1.0, 3).tolist()
    results = []
    for unit in (1.0, 1024.0):
        model = chain(dense, [unit * a for a in coefficients], 0.1 * unit)
        results.append(run(ranked, [Limit(model, 0.5 * model.predict(np.array(dense, float)))]))
    assert results[0][0].tolist() == results[1][0].tolist()
    assert results[0][1] == pytest.approx(results[1][1])


@pytest.mark.parametrize("least", [None, np.array([2.0, 1.0])])
def test_a_limit_below_the_least_widths_gives_those(least: Optional[np.ndarray]) -> None:
    limit = Limit(Linear((1.0, 1.0), (3, 3)), 1.0)
    start = np.array([3.0, 3.0])
    widths, z = solve([np.ones(3)] * 2, [limit], start=start, duals=np.zeros(1), least=least)
    assert widths.tolist() == ([1.0, 1.0] if least is None else [2.0, 1.0])
    assert np.isinf(z).all()


@given(knapsacks(1), st.integers(1, 4))
def test_among_widths_that_keep_the_least_the_lagrangian_is_least(drawn: tuple, least: int) -> None:
    ranked, limits = drawn
    most = np.array([len(values) for values in ranked], dtype=float)
    floor = np.minimum(float(least), most)
    widths, z = solve(
        ranked, limits, start=most, duals=np.zeros(1), least=np.full(len(most), least)
    )
    assert (widths >= floor).all()
    if not np.isfinite(z).all():
        assert widths.tolist() == floor.tolist()
        return
    assert limits[0].cost.predict(widths) <= limits[0].bound * (1 + 1e-12)

    def lagrangian(choice: tuple) -> float:
        return (
            lost(ranked, choice) + z[0] * limits[0].cost.predict(np.array(choice)) / limits[0].bound
        )

    choices = itertools.product(*(range(int(f), int(m) + 1) for f, m in zip(floor, most)))
    assert lagrangian(tuple(widths)) <= min(map(lagrangian, choices)) + 1e-9


def test_widths_grow_again_when_their_neighbour_shrinks() -> None:
    """What the flow of one direction cannot do: the second group comes back when the first is worth little."""
    model = chain([4, 4], [0.0, 1.0, 0.0], 0.0)
    limit = Limit(model, 0.5 * model.predict(np.array([4.0, 4.0])))
    ranked = [np.array([1.0, 0.1, 0.1, 0.1]), np.array([1.0, 0.9, 0.8, 0.7])]
    widths, _ = solve(ranked, [limit], start=np.array([4.0, 2.0]), duals=np.zeros(1))
    assert widths.tolist() == [1.0, 4.0]
