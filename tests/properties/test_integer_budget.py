"""Acceptance (v): the integer widths that ECC ends with cost at most the budget, to the last bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, zeros

from edgeecc.config import EccConfig
from edgeecc.cost.exact import mac_cost
from edgeecc.cost.product import ProductModel
from edgeecc.graph.trace import trace
from edgeecc.solvers.base import Limit, Problem
from edgeecc.solvers.ecc import TaylorHooks

SPEC = trace(
    nn.Sequential(
        nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)
    ),
    (zeros(1, 1, 10, 10),),
    network="chain",
)  # fmt: skip
MACS = mac_cost(SPEC)


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
    point = np.array(widths, dtype=float)
    bound = model.predict(point) * (1.0 - below)
    dense, least = model.predict(np.array([5.0, 6.0, 4.0])), model.predict(np.ones(3))
    if not least <= bound < dense:
        return
    generator = np.random.default_rng(seed)
    hooks = TaylorHooks(Problem(SPEC, (Limit(model, bound),), 0), EccConfig())
    hooks.importance = [
        np.where(np.arange(group.width) < width, 1.0, 1e-9) * generator.uniform(1, 2, group.width)
        for group, width in zip(SPEC.prunable, widths)
    ]
    hooks.cut()
    assert hooks.cost() <= bound
    if below == 0.0:
        # Nothing that the budget pays for is thrown away.
        found = np.array([living.sum() for living in hooks.alive], dtype=float)
        for group in np.flatnonzero(found < [5, 6, 4]):
            wider = found.copy()
            wider[group] += 1.0
            assert model.predict(wider) > bound
