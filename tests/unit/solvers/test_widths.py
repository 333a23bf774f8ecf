"""Integer widths under a target, against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgeecc.cost.exact import mac_cost, size_cost
from edgeecc.graph.spec import NetworkSpec
from edgeecc.graph.trace import trace
from edgeecc.solvers.base import Limit, Problem
from edgeecc.solvers.widths import filled, floors, largest, shrunk
from tests import zoo
from tests.peers import problem_of, traced


@pytest.mark.parametrize("name", ["residual", "inverted_residual", "dense_concat"])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_the_largest_width_within_a_target_is_that_of_brute_force(name: str, share: float) -> None:
    spec = traced(name)[1]
    problem = problem_of(spec, share, share)
    widths = spec.vector(spec.dense_widths())
    for target in (1.0, 0.5 * (1.0 + problem.load(widths))):
        holds = problem.eased(target).fits
        for group, width in enumerate(widths):
            fitting = [0]
            for value in range(1, int(width)):
                trial = widths.copy()
                trial[group] = value
                if holds(trial):
                    fitting.append(value)
            assert largest(widths, group, holds) == max(fitting)


def test_a_width_of_one_cannot_shrink() -> None:
    assert largest(np.array([1.0, 4.0]), 0, lambda widths: True) == 0
    assert largest(np.array([1.0, 4.0]), 1, lambda widths: True) == 3


@pytest.mark.parametrize("share", [0.8, 0.4, 0.15])
def test_all_groups_shrink_alike_and_nothing_more_would_fit(share: float) -> None:
    spec = traced("residual")[1]
    problem = problem_of(spec, share)
    dense = spec.vector(spec.dense_widths())
    widths = shrunk(dense, problem.fits)
    assert problem.fits(widths)
    assert (widths / dense).max() - (widths / dense).min() < 2.0 / dense.min()
    assert not problem.fits(np.minimum(dense, widths + 1.0))


def test_filling_stops_where_no_unit_fits_and_prefers_worth_per_load() -> None:
    spec = traced("residual")[1]
    problem = problem_of(spec, 0.5)
    dense = spec.vector(spec.dense_widths())
    start = np.ones_like(dense)
    for favourite in range(len(dense)):
        widths = filled(problem, start, most=dense, worth=lambda g, _, f=favourite: float(g == f))
        assert widths[favourite] == largest(
            np.where(np.arange(len(dense)) == favourite, dense + 1, start), favourite, problem.fits
        )
        for group in np.flatnonzero(widths < dense):
            assert not problem.fits(widths + (np.arange(len(dense)) == group))
    assert (start == 1.0).all()


def test_the_oracle_of_two_groups_is_never_beaten() -> None:
    """Of all pairs of widths none that fits is larger in both places than what filling reaches."""
    spec = traced("plain")[1]
    problem = problem_of(spec, 0.6)
    dense = spec.vector(spec.dense_widths())
    found = filled(problem, np.ones_like(dense), most=dense, worth=lambda group, width: 1.0)
    for widths in itertools.product(*(range(1, int(width) + 1) for width in dense)):
        larger = (np.array(widths) >= found).all() and tuple(found) != widths
        assert not (larger and problem.fits(np.array(widths, dtype=float)))


@pytest.fixture(scope="module")
def spec() -> NetworkSpec:
    model, inputs = zoo.build("residual")
    return trace(model, inputs, network="residual")


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.2, 0.5])
@pytest.mark.parametrize("least", [1, 2, 3, 1000])
def test_floors_leave_something_to_choose(spec: NetworkSpec, share: float, least: int) -> None:
    thinnest, dense = spec.vector(spec.least_widths()), spec.vector(spec.dense_widths())
    limits = tuple(
        Limit(cost, cost.predict(thinnest) + share * (cost.predict(dense) - cost.predict(thinnest)))
        for cost in (mac_cost(spec), size_cost(spec))
    )
    problem = Problem(spec, limits, 0)
    found = floors(problem, least)
    count = int(found.max())
    assert 1 <= count <= least
    assert found.tolist() == np.minimum(dense, float(count)).tolist()
    loads = [
        (limit.cost.predict(found) - limit.cost.predict(thinnest))
        / (limit.bound - limit.cost.predict(thinnest))
        for limit in limits
    ]
    assert max(loads) <= 0.5 + 1e-12
    if count < min(least, int(dense.max())):
        one_more = np.minimum(dense, count + 1.0)
        assert any(
            limit.cost.predict(one_more) > 0.5 * (limit.cost.predict(thinnest) + limit.bound)
            for limit in limits
        )


def test_at_the_lowest_budget_one_unit_may_be_all(spec: NetworkSpec) -> None:
    cost, thinnest = mac_cost(spec), spec.vector(spec.least_widths())
    lowest = Problem(spec, (Limit(cost, cost.predict(thinnest)),), 0)
    assert floors(lowest, 2).tolist() == thinnest.tolist()
