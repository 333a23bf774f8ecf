"""Targets on the way to the limits."""

from __future__ import annotations

import numpy as np
import pytest

from edgeecc.cost.exact import mac_cost
from edgeecc.cost.product import ProductModel
from edgeecc.solvers.base import Limit
from edgeecc.solvers.schedule import depth, on_the_way, target
from tests.peers import problem_of, traced


@pytest.mark.parametrize("constant", [0.0, 0.4, 3.0])
@pytest.mark.parametrize("left", [1e-9, 0.2, 0.9])
def test_every_round_takes_the_same_part_of_what_can_be_reduced(
    constant: float, left: float
) -> None:
    spec = traced("residual")[1]
    macs = mac_cost(spec)
    dense, least = spec.vector(spec.dense_widths()), spec.vector(spec.least_widths())
    cost = ProductModel(
        macs.metric, "m", groups=macs.groups, terms=macs.terms,
        coefficients=macs.coefficients, constant=constant * macs.predict(dense),
    )  # fmt: skip
    most, floor = cost.predict(dense), cost.predict(least)
    limit = Limit(cost, floor + left * (most - floor))
    course = [target(limit, dense, share) for share in np.linspace(0.0, 1.0, 9)]
    assert course[0] == pytest.approx(most)
    assert course[-1] == pytest.approx(limit.bound)
    taken = -np.diff(course)
    assert (taken > 0.0).all()
    assert taken[1:] / taken[:-1] == pytest.approx(np.full(7, taken[1] / taken[0]))
    slack = Limit(cost, 2.0 * most)
    assert target(slack, dense, 0.5) == slack.bound
    assert depth(slack, dense) == 0.0


def test_every_limit_goes_its_own_way_and_all_end_together() -> None:
    whole = problem_of(traced("residual")[1], 0.2, 0.6)
    spec = whole.spec
    dense, least = spec.vector(spec.dense_widths()), spec.vector(spec.least_widths())
    assert on_the_way(whole, 1.0) == whole
    assert on_the_way(whole, 0.0).load(dense) == pytest.approx(1.0)
    before = on_the_way(whole, 0.0)
    for share in (0.3, 0.7, 1.0):
        now = on_the_way(whole, share)
        assert now.fits(least)
        for limit, former, end in zip(now.limits, before.limits, whole.limits):
            assert end.bound <= limit.bound < former.bound
            assert limit.bound == target(end, dense, share)
        before = now
