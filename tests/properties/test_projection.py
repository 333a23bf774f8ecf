"""The projection against sorting, against dynamic programming, and its bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.errors import ConfigError
from edgeecc.solvers import projection
from edgeecc.solvers.projection import LayerCost, project

pytestmark = pytest.mark.device

layer_costs = st.tuples(st.integers(1, 9), st.integers(0, 6), st.integers(0, 5)).map(
    lambda n: LayerCost(float(n[0]), float(n[0] + n[1]), n[2])
)


def case(data: st.DataObject) -> tuple[list, list, float]:
    costs = data.draw(st.lists(layer_costs, min_size=1, max_size=3))
    generator = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    weights = []
    for _ in costs:
        values = generator.standard_normal(data.draw(st.integers(1, 8))).astype(np.float32)
        if data.draw(st.booleans()):
            values = np.round(values, 1)  # ties and zeros
        weights.append(values)
    return weights, costs, float(data.draw(st.integers(1, 80)))


def items(weights: list, costs: list) -> list[tuple[float, float]]:
    """Return (squared magnitude, cost) of every weight, in order; the largest of a layer are inside."""
    found = []
    for values, cost in zip(weights, costs):
        inside = set(np.argsort(-np.abs(values), kind="stable")[: cost.room].tolist())
        found += [
            (float(v) ** 2, cost.inside if place in inside else cost.outside)
            for place, v in enumerate(values)
        ]
    return found


@given(data=st.data())
def test_the_prefix_is_the_one_that_sorting_finds(data: st.DataObject) -> None:
    weights, costs, budget = case(data)
    everything = items(weights, costs)
    density = np.array([np.float32(np.float32(np.sqrt(v)) ** 2) for v, _ in everything])
    exact = np.concatenate([np.square(values) for values in weights])
    assert np.allclose(density, exact, rtol=1e-5)
    keys = exact / np.array([c for _, c in everything], dtype=np.float32)
    kept, spent = np.zeros(len(keys), dtype=bool), 0.0
    for place in np.argsort(-keys, kind="stable"):
        if keys[place] == 0.0 or spent + everything[place][1] > budget:
            break
        kept[place], spent = True, spent + everything[place][1]
    result = project(weights, costs, budget)
    assert np.concatenate(result.keep).tolist() == kept.tolist()
    assert result.cost == pytest.approx(spent)
    assert result.cost <= budget


@given(data=st.data())
def test_no_choice_is_better_than_the_bound(data: st.DataObject) -> None:
    weights, costs, budget = case(data)
    best = np.zeros(int(budget) + 1)
    for value, cost in items(weights, costs):
        size = int(cost)
        if size <= budget:
            best[size:] = np.maximum(best[size:], best[: len(best) - size] + value)
    optimum = best.max()
    result = project(weights, costs, budget)
    assert result.value <= optimum * (1 + 1e-6)
    assert result.bound >= optimum * (1 - 1e-6)
    largest = max(cost for _, cost in items(weights, costs))
    assert result.value >= (1.0 - largest / budget) * optimum * (1 - 1e-6)
    assert 0.0 <= result.gap <= 1.0


@given(seed=st.integers(0, 10_000))
def test_more_budget_keeps_more(seed: int) -> None:
    generator = np.random.default_rng(seed)
    weights = [generator.standard_normal((6, 5)).astype(np.float32) for _ in range(2)]
    costs = [LayerCost(2.0, 5.0, 7), LayerCost(3.0, 3.0, 0)]
    results = [project(weights, costs, budget) for budget in (10.0, 40.0, 90.0, 1e9)]
    for one, other in zip(results, results[1:]):
        assert all((~a | b).all() for a, b in zip(one.keep, other.keep))
    assert results[-1].gap == 0.0
    assert results[-1].keep[0].shape == (6, 5)
    assert all(keep.all() for keep in results[-1].keep)


def test_parts_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    weights = [np.round(generator.standard_normal(1000), 2).astype(np.float32) for _ in range(3)]
    costs = [LayerCost(2.0, 5.0, 70), LayerCost(3.0, 3.0, 0), LayerCost(1.0, 2.5, 999)]
    whole = project(weights, costs, 2500.0)
    monkeypatch.setattr(projection, "CHUNK", 7)
    parts = project(weights, costs, 2500.0)
    assert all((a == b).all() for a, b in zip(whole.keep, parts.keep))
    assert (parts.cost, parts.value) == pytest.approx((whole.cost, whole.value))


def test_what_cannot_be_projected_is_refused() -> None:
    weights, costs = [np.ones(3, dtype=np.float32)], [LayerCost(1.0, 1.0, 0)]
    for budget in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="nothing fits a budget"):
            project(weights, costs, budget)
    with pytest.raises(ConfigError, match="not finite"):
        project([np.array([np.nan], dtype=np.float32)], costs, 1.0)
    for wrong in ((0.0, 1.0, 0), (2.0, 1.0, 0), (1.0, float("inf"), 0), (1.0, 1.0, -1)):
        with pytest.raises(ConfigError, match="both must be positive"):
            LayerCost(*wrong)
