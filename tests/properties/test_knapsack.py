"""The knapsack against brute force: nothing better fits, and what it chooses does."""

from __future__ import annotations

import itertools
from typing import List, Tuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.errors import ConfigError
from edgeecc.solvers import knapsack

pytestmark = pytest.mark.device

Items = Tuple[List[np.ndarray], List[np.ndarray]]


@st.composite
def whole(draw: st.DrawFn) -> Items:
    """Draw up to four groups of options of any order, costs whole, some below zero."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    number = st.integers(-20, 100)
    values = [draw(st.lists(number, min_size=n, max_size=n)) for n in lengths]
    costs = [draw(st.lists(st.integers(-5, 30), min_size=n, max_size=n)) for n in lengths]
    return [np.array(v, float) for v in values], [np.array(c, float) for c in costs]


@st.composite
def prefixes(draw: st.DrawFn) -> Items:
    """Draw groups whose options are prefixes of a falling ranking at real, rising costs."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = draw(st.integers(1, 4))
    values, costs = [], []
    for _ in range(groups):
        size = generator.integers(1, 6)
        values.append(np.cumsum(np.sort(generator.exponential(1.0, size))[::-1]))
        costs.append(np.cumsum(generator.uniform(0.1, 2.0, size)))
    return values, costs


def brute(items: Items, capacity: float) -> float:
    """Return the most value within the capacity."""
    values, costs = items
    best = -np.inf
    for options in itertools.product(*(range(len(row)) for row in values)):
        if sum(row[at] for row, at in zip(costs, options)) <= capacity:
            best = max(best, sum(row[at] for row, at in zip(values, options)))
    return float(best)


def sums(items: Items, choice: knapsack.Choice) -> Tuple[float, float]:
    return tuple(float(sum(r[at] for r, at in zip(rows, choice.options))) for rows in items)


@given(whole(), st.integers(-20, 120))
def test_whole_costs_are_solved_exactly(items: Items, capacity: int) -> None:
    least = sum(row.min() for row in items[1])
    if capacity < least:
        with pytest.raises(ConfigError, match="cheapest choice costs"):
            knapsack.solve(*items, capacity)
        return
    choice = knapsack.solve(*items, capacity, unit=1.0)
    assert sums(items, choice) == (choice.value, choice.cost)
    assert choice.cost <= capacity
    assert choice.value == pytest.approx(brute(items, capacity))
    assert choice.bound >= choice.value


@given(prefixes(), st.floats(0.0, 1.0))
def test_real_costs_fit_and_nothing_beats_the_bound(items: Items, share: float) -> None:
    least, most = (sum(f(row) for row in items[1]) for f in (np.min, np.max))
    capacity = (least + share * (most - least)) * (1 + 1e-12)  # sums round by their order
    choice = knapsack.solve(*items, capacity)
    best = brute(items, capacity)
    assert choice.cost <= capacity
    assert choice.value <= best * (1 + 1e-12)
    assert best <= choice.bound * (1 + 1e-12)
    assert choice.value >= (1.0 - choice.gap) * best * (1 - 1e-12)
    # Costs are rounded up by at most one unit a group, so what fits less those units is not beaten.
    unit = (capacity - least) / knapsack.UNITS
    held = capacity - len(items[0]) * unit
    if held >= least:
        assert choice.value >= brute(items, held) * (1 - 1e-12)


@given(whole())
def test_more_capacity_is_never_worth_less(items: Items) -> None:
    least = int(sum(row.min() for row in items[1]))
    values = [
        knapsack.solve(*items, capacity, unit=1.0).value for capacity in range(least, least + 60, 4)
    ]
    assert values == sorted(values)


@given(prefixes(), st.floats(0.05, 0.95), st.sampled_from([1e-9, 0.3, 7.0, 1e9]))
def test_the_choice_is_free_of_scale(items: Items, share: float, scale: float) -> None:
    values, costs = items
    least, most = (sum(f(row) for row in costs) for f in (np.min, np.max))
    capacity = (least + share * (most - least)) * (1 + 1e-12)
    one = knapsack.solve(values, costs, capacity)
    other = knapsack.solve([scale * row for row in values], costs, capacity)
    power = 2.0 ** round(np.log2(scale))  # exact, where rounding could price out what just fits
    dearer = knapsack.solve(values, [power * row for row in costs], power * capacity)
    assert np.array_equal(one.options, other.options)
    assert one.gap == pytest.approx(other.gap, abs=1e-9)
    assert np.array_equal(one.options, dearer.options)


def test_a_network_of_real_size_is_nearly_exact() -> None:
    generator = np.random.default_rng(0)
    sizes = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    values = [np.cumsum(np.sort(generator.exponential(1.0, n) ** 2)[::-1]) for n in sizes]
    costs = [np.arange(1, n + 1) * generator.uniform(0.5, 2.0) for n in sizes]
    choice = knapsack.solve(values, costs, 0.4 * sum(row[-1] for row in costs))
    assert choice.gap < 1e-4


def test_a_greedy_choice_is_beaten() -> None:
    """The best value per cost first leaves half of the room; the program fills it."""
    values = [np.array([0.0, 6.0]), np.array([0.0, 10.0])]
    costs = [np.array([0.0, 5.0]), np.array([0.0, 9.0])]
    assert knapsack.solve(values, costs, 9.0).options.tolist() == [0, 1]


def test_all_options_fit_a_large_capacity() -> None:
    choice = knapsack.solve([np.array([1.0, 3.0, 2.0])], [np.array([1.0, 2.0, 3.0])], 10.0)
    assert choice.options.tolist() == [1]
    assert choice.gap == 0.0


@pytest.mark.parametrize(
    ("values", "costs", "message"),
    [
        ([], [], "at least one option"),
        ([[]], [[]], "at least one option"),
        ([[1.0]], [[1.0, 2.0]], "a cost for each value"),
        ([[np.nan]], [[1.0]], "must be finite"),
        ([[1.0]], [[np.inf]], "must be finite"),
        ([[1.0, 2.0]], [[3.0, 4.0]], "raise the capacity"),
    ],
)
def test_what_cannot_be_solved_is_refused(values: list, costs: list, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        knapsack.solve([np.array(v) for v in values], [np.array(c) for c in costs], 2.0)
