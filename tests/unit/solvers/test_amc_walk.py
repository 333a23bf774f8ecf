"""Walks end within the budget, and each width is bounded by what brute force finds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.cost.exact import mac_cost, size_cost
from edgeecc.graph.spec import NetworkSpec
from edgeecc.graph.trace import trace
from edgeecc.solvers.amc_walk import (
    FEATURES,
    STATIC,
    Course,
    lower_bounds,
    rounded,
    static_features,
    widest,
)
from edgeecc.solvers.base import Limit, Problem
from edgeecc.solvers.uniform import uniform_widths
from tests import zoo

NETS = ["residual", "inverted_residual", "depthwise", "dense_concat", "grouped", "plain"]


def spec_of(name: str) -> NetworkSpec:
    model, inputs = zoo.build(name)
    return trace(model, inputs, network=name)


SPECS = {name: spec_of(name) for name in NETS}


def problem_of(spec: NetworkSpec, share: float, *others: float) -> Problem:
    limits = []
    for cost, part in zip((mac_cost(spec), size_cost(spec)), (share, *others)):
        dense, least = (cost.predict(spec.vector(w)) for w in (spec.dense_widths(), spec.least_widths()))  # fmt: skip
        limits.append(Limit(cost, max(part * dense, least)))
    return Problem(spec, tuple(limits), 0)


def course_of(problem: Problem, share: float = 0.2, divisor: int = 1) -> Course:
    dense = problem.spec.vector(problem.spec.dense_widths())
    return Course(problem, dense, lower_bounds(problem.fits, dense, dense, share), divisor)


@pytest.mark.parametrize("name", NETS)
@given(seed=st.integers(0, 10**6), share=st.floats(0.01, 0.95), divisor=st.sampled_from([1, 2, 4]))
def test_every_walk_ends_within_the_budget(
    name: str, seed: int, share: float, divisor: int
) -> None:
    problem, rng = problem_of(SPECS[name], share), np.random.default_rng(seed)
    course = course_of(problem, divisor=divisor)
    for policy in (lambda state: float(rng.random()), lambda state: 1.0, lambda state: 0.0):
        walked = course.walk(policy)
        assert problem.fits(walked.widths)
        assert (walked.widths >= np.maximum(1.0, course.least)).all()
        assert (walked.widths <= course.available).all()
        np.testing.assert_array_equal(walked.widths, np.round(walked.widths))
        asked = np.clip(np.round(walked.actions * course.available), course.least, None)
        assert divisor > 1 or (walked.widths <= asked).all()  # cut by the budget alone


@given(st.integers(0, 10**6), st.floats(0.05, 0.9), st.floats(0.05, 0.9))
def test_two_limits_hold_at_once(seed: int, macs: float, size: float) -> None:
    problem, rng = problem_of(SPECS["residual"], macs, size), np.random.default_rng(seed)
    walked = course_of(problem).walk(lambda state: float(rng.uniform(0.5, 1.0)))
    assert all(limit.cost.predict(walked.widths) <= limit.bound for limit in problem.limits)


@given(st.integers(0, 10**6), st.floats(0.05, 0.9))
def test_the_widest_is_what_brute_force_finds(seed: int, share: float) -> None:
    problem, rng = problem_of(SPECS["residual"], share), np.random.default_rng(seed)
    course = course_of(problem)
    widths, group = course.walk(lambda state: float(rng.random())).widths, 0
    for group in range(len(widths)):
        fitting = []
        for width in range(1, int(course.available[group]) + 1):
            trial = widths.copy()
            trial[group] = width
            if problem.fits(trial):
                fitting.append(width)
        assert widest(problem.fits, widths, group, course.available[group]) == max(fitting)


def test_the_bound_leaves_later_groups_their_least_widths() -> None:
    """Of all widths with which the rest can still fit, a greedy walk takes the largest."""
    problem = problem_of(SPECS["plain"], 0.4)
    course = course_of(problem)
    ranges = [range(int(low), int(high) + 1) for low, high in zip(course.least, course.available)]
    fitting = [np.array(w, float) for w in itertools.product(*ranges) if problem.fits(np.array(w, float))]  # fmt: skip
    best = max(tuple(widths) for widths in fitting)  # by the first group, then the next
    assert tuple(course.walk(lambda state: 1.0).widths) == best


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("share", [0.001, 0.03, 0.1, 0.4, 0.99])
def test_lower_bounds_fit_and_leave_a_choice(name: str, share: float) -> None:
    problem = problem_of(SPECS[name], share)
    dense = problem.spec.vector(problem.spec.dense_widths())
    least = lower_bounds(problem.fits, dense, dense, 0.2)
    assert problem.fits(least)
    assert (least >= 1.0).all()
    if share >= 0.4:
        np.testing.assert_array_equal(least, np.ceil(0.2 * dense))
    thinner = np.maximum(1.0, dense - 2.0)
    assert (lower_bounds(problem.fits, dense, np.minimum(thinner, least), 0.2) <= thinner).all()


@given(st.floats(0.0, 70.0), st.integers(1, 64), st.integers(0, 40), st.sampled_from([1, 2, 8]))
def test_rounding_stays_within_the_bounds(
    width: float, least: int, room: int, divisor: int
) -> None:
    most = least + room
    got = rounded(width, (float(least), float(most)), divisor)
    assert least <= got <= most
    multiples = [value for value in range(least, most + 1) if value % divisor == 0]
    if multiples:
        assert got % divisor == 0
        assert abs(got - min(max(width, least), most)) <= divisor + 0.5
    else:
        assert abs(got - min(max(width, least), most)) <= 0.5


def test_features_lie_between_nought_and_one_and_tell_where_the_budget_stands() -> None:
    problem = problem_of(SPECS["inverted_residual"], 0.5)
    walked = course_of(problem).walk(lambda state: 0.6)
    assert walked.states.shape == (len(problem.spec.prunable), FEATURES)
    assert walked.states.min() >= 0.0
    assert walked.states.max() <= 1.0
    gone, left, before = walked.states[:, STATIC:].T
    assert gone[0] == 0.0
    assert (np.diff(gone) >= 0.0).all()
    assert (np.diff(left) <= 1e-12).all()
    assert (walked.actions == 0.6).all()
    dense = problem.spec.vector(problem.spec.dense_widths())
    np.testing.assert_array_equal(before, [1.0, *(walked.widths / dense)[:-1]])
    table = dict(zip([g.name for g in problem.spec.prunable], static_features(problem, dense)))
    assert table["expand"][2] == 1.0  # a depthwise convolution carries it
    assert table["expand"][0] > table["stem"][0] == 0.0


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_the_even_walk_is_the_uniform_width_before_it_is_filled_up(name: str, share: float) -> None:
    problem = problem_of(SPECS[name], share)
    walked = course_of(problem).even()
    filled = uniform_widths(problem)
    assert problem.fits(walked.widths)
    assert ((filled == walked.widths) | (filled == walked.widths + 1.0)).all()


def test_eased_bounds_scale_together() -> None:
    problem = problem_of(SPECS["residual"], 0.3, 0.4)
    dense = problem.spec.vector(problem.spec.dense_widths())
    assert problem.eased(2.0).load(dense) == pytest.approx(problem.load(dense) / 2.0)
    assert problem.eased(2.0).seed == problem.seed
