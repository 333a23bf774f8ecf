"""Acceptance (v): integer widths cost at most the budget, to the last bit, and no single move betters them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, zeros

from edgeecc.cost.exact import mac_cost, size_cost
from edgeecc.cost.product import ProductModel
from edgeecc.cost.terms import layer_terms, spec_groups, tile_terms
from edgeecc.errors import ConfigError
from edgeecc.graph.trace import trace
from edgeecc.solvers.base import Limit, Problem
from edgeecc.solvers.ladder import integer_widths, ladder, widths_by_tiles
from edgeecc.units import Metric
from tests.chains import chain_spec

DENSE = (5, 6, 4)
SPEC = trace(
    nn.Sequential(
        nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)
    ),
    (zeros(1, 1, 10, 10),),
    network="chain",
)  # fmt: skip
MACS = mac_cost(SPEC)


def kept(importance: list, widths: tuple) -> float:
    return sum(float(np.sort(a)[::-1][: int(w)].sum()) for a, w in zip(importance, widths))


@given(
    st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4),
    st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 4)),
    st.sampled_from([0.0, 1e-16, 1e-13, 1e-11, 1e-9, 0.01]),
    st.integers(-6, 6),
    st.integers(0, 10_000),
)
def test_a_budget_beside_an_integer_point_holds(
    coefficients: list, widths: tuple, below: float, power: int, seed: int
) -> None:
    model = ProductModel(
        MACS.metric, "model", groups=MACS.groups, terms=MACS.terms,
        coefficients=10.0**power * np.array(coefficients), constant=0.0,
    )  # fmt: skip
    bound = model.predict(np.array(widths, dtype=float)) * (1.0 - below)
    dense, least = model.predict(np.array(DENSE, dtype=float)), model.predict(np.ones(3))
    if not least <= bound < dense:
        return
    generator = np.random.default_rng(seed)
    importance = [
        np.where(np.arange(width) < kept_width, 1.0, 1e-9) * generator.uniform(1, 2, width)
        for width, kept_width in zip(DENSE, widths)
    ]
    problem = Problem(SPEC, (Limit(model, bound),), 0)
    found = integer_widths(problem, [ladder(a) for a in importance], np.array(DENSE, dtype=float))
    assert model.predict(found) <= bound
    for group in np.flatnonzero(found < DENSE):  # nothing that the budget pays for is thrown away
        wider = found.copy()
        wider[group] += 1.0
        assert model.predict(wider) > bound


@given(st.integers(0, 10_000), st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_two_limits_hold_and_little_is_lost_to_the_best(
    seed: int, share: float, size: float
) -> None:
    generator = np.random.default_rng(seed)
    importance = [generator.uniform(0.0, 1.0, width) ** 2 for width in DENSE]
    limits = []
    for cost, part in ((MACS, share), (size_cost(SPEC), size)):
        dense, least = cost.predict(np.array(DENSE, dtype=float)), cost.predict(np.ones(3))
        limits.append(Limit(cost, least + part * (dense - least)))
    problem = Problem(SPEC, tuple(limits), 0)
    found = integer_widths(problem, [ladder(a) for a in importance], np.array(DENSE, dtype=float))
    assert problem.fits(found)
    choices = itertools.product(*(range(1, width + 1) for width in DENSE))
    best = max(
        kept(importance, choice)
        for choice in choices
        if problem.fits(np.array(choice, dtype=float))
    )
    assert kept(importance, tuple(found)) >= 0.9 * best


def test_widths_are_whole_tiles() -> None:
    importance = [np.linspace(1.0, 2.0, width) for width in DENSE]
    rungs = [ladder(a, 2, width) for a, width in zip(importance, DENSE)]
    assert [rung.widths.tolist() for rung in rungs] == [[2, 4, 5], [2, 4, 6], [2, 4]]
    assert rungs[0].kept == pytest.approx([3.75, 6.5, 7.5])
    assert ladder(importance[0], 2).widths.tolist() == [2, 4]
    assert ladder(importance[0][:1], 2).widths.tolist() == [1]
    problem = Problem(SPEC, (Limit(MACS, 0.5 * MACS.predict(np.array(DENSE, dtype=float))),), 0)
    found = integer_widths(problem, rungs, np.array(DENSE, dtype=float))
    assert problem.fits(found)
    assert all(width in rung.widths for width, rung in zip(found, rungs))
    with pytest.raises(ConfigError, match="at least 1 channel"):
        ladder(importance[0], tile=0)


def test_where_the_lowest_rungs_are_too_much_they_are_returned() -> None:
    problem = Problem(SPEC, (Limit(MACS, MACS.predict(np.ones(3))),), 0)
    rungs = [ladder(np.ones(width), 2, width) for width in DENSE]
    assert integer_widths(problem, rungs, np.array(DENSE, dtype=float)).tolist() == [2, 2, 2]


TILED = (16, 24, 12)
WIDE = chain_spec(TILED, ends=(3, 10))


@given(st.integers(0, 10_000), st.floats(0.1, 0.9), st.sampled_from([4, 8]))
def test_landing_by_tiles_keeps_no_less_than_single_channels_and_little_less_than_the_best(
    seed: int, share: float, tile: int
) -> None:
    """The device charges whole tiles; brute force over all widths is the oracle."""
    generator = np.random.default_rng(seed)
    importance = [generator.uniform(0.0, 1.0, width) ** 2 for width in TILED]
    terms = [*layer_terms(WIDE), *tile_terms(WIDE, tile)]
    coefficients = np.array([0.05 if term.name.startswith("layer") else 1.0 for term in terms])
    cost = ProductModel(
        Metric.ENERGY, "m", groups=spec_groups(WIDE), terms=terms, coefficients=coefficients, constant=0.0
    )  # fmt: skip
    assert cost.tile == tile
    dense, least = np.array(TILED, dtype=float), np.ones(3)
    bound = cost.predict(least) + share * (cost.predict(dense) - cost.predict(least))
    problem = Problem(WIDE, (Limit(cost, bound),), 0)
    rungs = [ladder(a) for a in importance]
    single = integer_widths(problem, rungs, dense)
    tiled = [ladder(a, tile, len(a), below=True) for a in importance]
    found = widths_by_tiles(problem, tiled, rungs, dense)
    assert problem.fits(found)
    every = np.array(
        list(itertools.product(*(range(1, width + 1) for width in TILED))), dtype=float
    )
    totals = [np.concatenate([[0.0], np.cumsum(np.sort(a)[::-1])]) for a in importance]
    worth = sum(total[every[:, at].astype(int)] for at, total in enumerate(totals))
    best = float(np.max(worth[cost.predict_many(every) <= bound]))
    assert kept(importance, tuple(found)) >= kept(importance, tuple(single)) - 1e-9
    assert kept(importance, tuple(found)) >= 0.9 * best


def test_rungs_below_a_tile_are_single_channels() -> None:
    assert ladder(np.ones(10), 4, 10, below=True).widths.tolist() == [1, 2, 3, 4, 8, 10]
    assert ladder(np.ones(3), 4, 10, below=True).widths.tolist() == [1, 2, 3]
    assert ladder(np.ones(4), 4, 4, below=True).widths.tolist() == [1, 2, 3, 4]
    assert ladder(np.ones(5), 1, 5, below=True).widths.tolist() == [1, 2, 3, 4, 5]
    assert ladder(np.ones(10), 4, 10, below=True, least=3).widths.tolist() == [3, 4, 8, 10]
    assert ladder(np.ones(2), 1, 10, least=3).widths.tolist() == [2]
    kept = ladder(np.array([1.0, 3.0, 2.0]), least=2)
    assert (kept.widths.tolist(), kept.kept.tolist()) == ([2, 3], [5.0, 6.0])
