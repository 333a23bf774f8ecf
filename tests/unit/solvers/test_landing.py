"""Landing in a band of loads: against brute force, one way only, and on devices that work in tiles."""

from __future__ import annotations

import itertools
from typing import List, Tuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.cost.forms import Form
from edgeecc.cost.product import ProductModel
from edgeecc.cost.terms import spec_groups
from edgeecc.graph.spec import FloatArray
from edgeecc.solvers.base import Limit, Problem
from edgeecc.solvers.landing import land
from edgeecc.units import Metric
from tests.chains import chain_spec

WIDTHS = st.tuples(st.integers(1, 12), st.integers(1, 9))
SPEC = chain_spec([12, 9])


def problem_of(bound: float, form: Form = Form(linear=True), fixed: float = 1.0) -> Problem:  # noqa: B008  # frozen
    terms = form.terms(SPEC)
    model = ProductModel(
        Metric.ENERGY, "model", groups=spec_groups(SPEC), terms=terms,
        coefficients=np.linspace(1.0, 2.0, len(terms)), constant=fixed,
    )  # fmt: skip
    return Problem(SPEC, (Limit(model, bound * model.predict(np.array([12.0, 9.0]))),), 0)


def worth_of(seed: int) -> List[FloatArray]:
    rng = np.random.default_rng(seed)
    return [rng.exponential(size=width) for width in (12, 9)]


@given(WIDTHS, st.floats(0.3, 1.0), st.floats(0.9, 1.0), st.integers(0, 99))
def test_units_only_go_or_only_come_back_and_the_bound_holds(
    start: Tuple[int, int], bound: float, low: float, seed: int
) -> None:
    problem = problem_of(bound)
    before = np.array(start, dtype=np.float64)
    after = land(problem, worth_of(seed), before, low=low)
    fewer = problem.load(before) > 0.5 * (1.0 + low)
    assert (after <= before).all() if fewer else (after >= before).all()
    assert ((after >= 1) & (after <= [12, 9]) & (after == np.floor(after))).all()
    reachable = problem.fits(np.ones(2))
    assert problem.fits(after) or (fewer and not reachable)


@given(WIDTHS, st.floats(0.35, 1.0), st.integers(0, 99))
def test_it_comes_as_near_as_one_unit_allows(
    start: Tuple[int, int], bound: float, seed: int
) -> None:
    """Among all widths on its side there may be nearer ones, but no single unit more is."""
    problem, low = problem_of(bound), 0.96
    middle = 0.5 * (1.0 + low)
    before = np.array(start, dtype=np.float64)
    after = land(problem, worth_of(seed), before, low=low)
    fewer = problem.load(before) > middle
    if fewer and not problem.fits(np.ones(2)):
        return
    most = before if fewer else np.array([12.0, 9.0])
    for group in range(2):
        more = after + np.eye(2)[group]
        if (more <= most).all() and problem.load(more) <= middle:
            assert middle - problem.load(more) >= middle - problem.load(after) - 1e-12 or (
                problem.load(after) > middle
            )


def test_it_keeps_as_much_worth_as_brute_force_that_fills_as_well() -> None:
    """Of all widths whose load is in the band, few keep more."""
    problem, low, start = problem_of(0.7), 0.9, np.array([12.0, 9.0])
    lost = []
    for seed in range(20):
        worth = worth_of(seed)
        # Units stay in this order whatever they are worth; a ladder need not be concave.
        worth = [np.sort(values)[::-1] for values in worth]

        def kept(widths: np.ndarray, worth: List[FloatArray] = worth) -> float:
            return sum(float(v[: int(w)].sum()) for v, w in zip(worth, widths))

        after = land(problem, worth, start, low=low)
        inside = [
            np.array(widths, dtype=np.float64)
            for widths in itertools.product(range(1, 13), range(1, 10))
            if problem.load(np.array(widths, dtype=np.float64)) <= problem.load(after)
        ]
        lost.append(1.0 - kept(after) / max(kept(widths) for widths in inside))
    assert np.mean(lost) < 0.02


def test_whole_tiles_are_used_up() -> None:
    problem = problem_of(0.8, Form(tile=4), fixed=0.0)
    assert problem.limits[0].cost.tile == 4
    for start in ((12.0, 9.0), (4.0, 4.0)):
        after = land(problem, worth_of(1), np.array(start), low=0.9)
        assert problem.fits(after)
        for group in range(2):
            more = after + np.eye(2)[group]
            if (more <= (start if problem.load(np.array(start)) > 0.95 else (12, 9))).all():
                assert problem.load(more) > problem.load(after)


def test_nothing_to_move_is_the_start() -> None:
    worth = worth_of(0)
    assert land(problem_of(2.0), worth, np.array([12.0, 9.0]), low=0.9).tolist() == [12.0, 9.0]
    least = land(problem_of(0.01), worth, np.array([1.0, 1.0]), low=0.9)
    assert least.tolist() == pytest.approx([1.0, 1.0])
