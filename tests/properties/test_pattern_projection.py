"""The projection onto a budget and a pattern against every choice there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgeecc.errors import ConfigError
from edgeecc.pattern import Pattern
from edgeecc.solvers.projection import LayerCost
from edgeecc.solvers.sparse import SparseLayer, SparseProblem, masks_of, zero_

FIXED = 3.0


def network(*weights: np.ndarray) -> nn.Module:
    model = nn.Module()
    for place, values in enumerate(weights):
        model.register_parameter(f"w{place}", nn.Parameter(torch.from_numpy(values.copy())))
    return model


@st.composite
def cases(draw: st.DrawFn) -> tuple[nn.Module, SparseProblem]:
    """Draw a layer with a pattern and a free one, 11 weights, two tiers of cost each."""
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    weights = [
        generator.standard_normal(shape).astype(np.float32) for shape in ((2, 4), (1, 3, 1, 1))
    ]
    if draw(st.booleans()):
        weights = [np.round(values) for values in weights]  # ties and zeros
    layers = []
    for place, pattern in enumerate((Pattern(draw(st.integers(1, 2)), 4), None)):
        inside, more, room = (draw(st.integers(*ends)) for ends in ((1, 9), (0, 6), (0, 5)))
        cost = LayerCost(float(inside), float(inside + more), room)
        layers.append(SparseLayer(f"w{place}", cost, pattern))
    bound = FIXED + draw(st.integers(1, 80))
    return network(*weights), SparseProblem(tuple(layers), FIXED, bound, 0)


def best_value(model: nn.Module, problem: SparseProblem) -> float:
    """Return the greatest sum of squares over all choices within the budget and the pattern."""
    one, other = problem.weights(model)
    pattern = problem.layers[0].pattern
    best = 0.0
    halves = [
        [np.array(bits).reshape(values.shape) for bits in itertools.product((0, 1), repeat=values.size)]
        for values in (one, other)
    ]  # fmt: skip
    allowed = [bits for bits in halves[0] if pattern.holds(bits)]
    for a, b in itertools.product(allowed, halves[1]):
        if problem.relaxed([int(a.sum()), int(b.sum())]) <= problem.bound:
            best = max(best, float((a * one**2).sum() + (b * other**2).sum()))
    return best


@given(case=cases())
def test_no_choice_with_the_pattern_is_better_than_the_bound(case: tuple) -> None:
    model, problem = case
    found = problem.project(problem.values(model), problem.bound)
    optimum = best_value(model, problem)
    assert found.value <= optimum * (1 + 1e-6)
    assert found.bound >= optimum * (1 - 1e-6)
    zero_(model, masks_of(problem, found))
    assert problem.is_met_by(model)
    assert problem.cost_of(model) == pytest.approx(FIXED + found.cost)


@given(case=cases())
def test_enough_budget_keeps_the_best_that_the_pattern_allows(case: tuple) -> None:
    model, problem = case
    rich = SparseProblem(problem.layers, FIXED, 1e4, 0)
    assert rich.project(rich.values(model), 1e4).value == pytest.approx(best_value(model, rich))
    assert rich.project(rich.values(model), 1e4).gap == pytest.approx(0.0, abs=1e-6)


def test_a_network_within_the_budget_is_not_done_without_the_pattern() -> None:
    model = network(np.ones((1, 4), dtype=np.float32))
    layer = SparseLayer("w0", LayerCost(1.0, 1.0, 0), Pattern(2, 4))
    problem = SparseProblem((layer,), FIXED, 100.0, 0)
    assert problem.cost_of(model) <= problem.bound
    assert not problem.is_met_by(model)
    problem.project_(model)
    assert model.w0.detach().numpy().tolist() == [[1.0, 1.0, 0.0, 0.0]]  # of equal ones the first
    assert problem.is_met_by(model)
    assert not SparseProblem((layer,), FIXED, FIXED + 1.0, 0).is_met_by(model)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(wrong: float) -> None:
    values = np.array([[1.0, 2.0, 3.0, wrong]], dtype=np.float32)
    layer = SparseLayer("w0", LayerCost(1.0, 1.0, 0), Pattern(2, 4))
    with pytest.raises(ConfigError, match="not finite"):
        SparseProblem((layer,), 0.0, 9.0, 0).project_(network(values))
