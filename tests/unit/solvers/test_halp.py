"""HALP: importance by hand, allotments by brute force, and whole runs on small networks."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Tuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgeecc.config import TrainConfig
from edgeecc.cost.exact import mac_cost
from edgeecc.cost.product import ProductModel
from edgeecc.errors import BudgetInfeasibleError, ConfigError
from edgeecc.graph.spec import NetworkSpec
from edgeecc.graph.surgery import mask_tensors
from edgeecc.peer_config import HalpConfig
from edgeecc.solvers.allotment import Allotter
from edgeecc.solvers.base import Limit, Problem, Solution
from edgeecc.solvers.gates import Gates, trained_parameters
from edgeecc.solvers.halp import HalpHooks, HalpSolver, round_ends
from edgeecc.solvers.schedule import target
from edgeecc.training.loop import Checkpointing, TorchTrainer
from tests.peers import fresh, noise, problem_of, widths_of

Traced = Tuple[nn.Module, NetworkSpec]
SIX = HalpConfig(rounds=6)


def run(
    network: Traced, problem: Problem, steps: int = 24, config: HalpConfig = SIX, **trainer: object
) -> Tuple[nn.Module, Solution]:  # fmt: skip
    model = copy.deepcopy(network[0])
    training = TrainConfig(batch_size=16, lr=1e-3)
    loop = TorchTrainer(model, noise(), noise(), config=training, **trainer)
    return model, HalpSolver(config).solve(problem, loop, steps)


@pytest.mark.parametrize("name", ["residual", "depthwise", "inverted_residual"])
@pytest.mark.parametrize("share", [0.8, 0.4, 0.1])
def test_the_budget_holds_on_the_integer_widths(name: str, share: float) -> None:
    network = fresh(name)
    problem = problem_of(network[1], share)
    model, solution = run(network, problem)
    assert solution.status == "converged"
    assert len(solution.history) == 24 - solution.left == 12  # the last round ends it
    assert problem.fits(widths_of(problem, solution))
    for parameter, mask in mask_tensors(problem.spec, solution.keep).items():
        assert not (model.state_dict()[parameter] * (1 - mask)).any()


def test_two_limits_hold_at_once() -> None:
    network = fresh("residual")
    problem = problem_of(network[1], 0.45, 0.4)
    _, solution = run(network, problem)
    widths = widths_of(problem, solution)
    loads = [one.cost.predict(widths) / one.bound for one in problem.limits]
    assert max(loads) <= 1.0
    assert max(loads) > 0.6  # nor is the budget left unused


def test_a_budget_of_dense_changes_nothing() -> None:
    network = fresh("residual")
    model, solution = run(network, problem_of(network[1], 1.0))
    assert solution.status == "already_within"
    before = network[0].state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before))


class NeverTrain:
    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def train(self, *_: object) -> None:
        raise AssertionError("trained")


def test_an_infeasible_budget_is_refused_before_the_first_batch() -> None:
    model, spec = fresh("residual")
    with pytest.raises(BudgetInfeasibleError, match="lowest that can be met is"):
        HalpSolver(HalpConfig()).solve(problem_of(spec, 1e-3), NeverTrain(model), 10)


def test_weights_that_cannot_be_weighed_are_told_before_the_first_batch() -> None:
    model, spec = fresh("plain")
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="makes the channels of c1 is trained"):
        HalpSolver(HalpConfig()).solve(problem_of(spec, 0.5), NeverTrain(model), 10)


def test_the_same_seed_gives_the_same_run() -> None:
    network = fresh("residual")
    runs = [run(network, problem_of(network[1], 0.4)) for _ in range(2)]
    states = [list(model.state_dict().values()) for model, _ in runs]
    assert all(torch.equal(a, b) for a, b in zip(*states))


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.mark.parametrize("at", [5, 11])
def test_a_killed_run_resumes_exactly(tmp_path: Path, at: int) -> None:
    network = fresh("residual")
    problem = problem_of(network[1], 0.3)
    straight, expected = run(network, problem)

    def die(_: str, step: object) -> None:
        if step.step == at + 1:
            raise Killed

    saving = Checkpointing(tmp_path / "checkpoint", 1e-9)
    with pytest.raises(Killed):
        run(network, problem, checkpointing=saving, on_step=die)
    seen = []
    resumed, found = run(
        network, problem, checkpointing=saving, on_step=lambda _, step: seen.append(step.step)
    )
    assert seen[0] == at + 1
    assert all(np.array_equal(expected.keep[name], found.keep[name]) for name in found.keep)
    assert [step.values for step in expected.history] == [step.values for step in found.history]
    states = (straight.state_dict().values(), resumed.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(*states))


def test_the_load_falls_geometrically_and_the_rest_is_handed_back() -> None:
    network = fresh("residual")
    problem = problem_of(network[1], 0.25)
    _, solution = run(network, problem, steps=40, config=HalpConfig(rounds=10, ramp=0.5))
    bound, dense = problem.limits[0].bound, 4.0
    loads = [step.cost / bound for step in solution.history]
    for turn in range(1, 11):
        load = loads[2 * turn - 1]
        assert load <= dense ** (1.0 - turn / 10) * (1 + 1e-9)
        assert load > 0.6 * dense ** (1.0 - turn / 10)
    assert (len(loads), solution.left) == (20, 20)


def test_what_can_be_reduced_falls_geometrically_where_that_is_asked_for() -> None:
    network = fresh("residual")
    macs = mac_cost(network[1])
    dense = network[1].vector(network[1].dense_widths())
    cost = ProductModel(
        macs.metric, "half of it fixed", groups=macs.groups, terms=macs.terms, coefficients=macs.coefficients,
        constant=macs.predict(dense),
    )  # fmt: skip
    problem = Problem(network[1], (Limit(cost, 0.6 * cost.predict(dense)),), 0)
    half_way = {}
    for course in ("load", "reducible"):
        config = HalpConfig(rounds=10, ramp=0.5, course=course)
        _, solution = run(network, problem, steps=40, config=config)
        costs = [cost.predict(dense), *(step.cost for step in solution.history[1::2])]
        if course == "reducible":
            for turn, found in enumerate(costs[1:], 1):
                assert found <= target(problem.limits[0], dense, turn / 10) * (1 + 1e-9)
        half_way[course] = costs[5]
        assert problem.fits(network[1].vector({n: len(u) for n, u in solution.keep.items()}))
    assert half_way["reducible"] < half_way["load"]


@pytest.mark.parametrize(
    ("config", "steps", "ends"),
    [
        (HalpConfig(rounds=4, ramp=1.0), 12, [3, 6, 9, 12]),
        (HalpConfig(rounds=30, ramp=0.5), 6, [1, 2, 3]),
        (HalpConfig(rounds=3, interval=5), 100, [5, 10, 15]),
        (HalpConfig(rounds=30, interval=5), 12, [5, 10]),
        (HalpConfig(rounds=30, interval=5), 3, [3]),
        (HalpConfig(ramp=0.1), 1, [1]),
        (HalpConfig(rounds=4, ramp=0.1, pace=12), 40, [3, 6, 9, 12]),
        (HalpConfig(rounds=4, ramp=0.1, pace=12), 8, [2, 4, 6, 8]),
        (HalpConfig(rounds=4, ramp=0.5, pace=12), 40, [5, 10, 15, 20]),
    ],
)
def test_rounds_are_spread_as_asked(config: HalpConfig, steps: int, ends: list) -> None:
    assert round_ends(config, steps) == ends


def test_without_steps_norms_decide() -> None:
    network = fresh("residual")
    problem = problem_of(network[1], 0.5)
    _, solution = run(network, problem, steps=0)
    assert solution.status == "cut_after_steps"
    assert problem.fits(widths_of(problem, solution))


def test_widths_are_multiples_of_the_grain_while_the_budget_can_be_met() -> None:
    network = fresh("residual")
    spec = network[1]
    coarse = problem_of(spec, 0.6)
    _, solution = run(network, coarse, config=HalpConfig(rounds=3, grain=4))
    dense = spec.vector(spec.dense_widths())
    widths = widths_of(coarse, solution)
    assert ((widths % 4 == 0) | (widths == dense)).all()
    tight = problem_of(spec, 0.03)
    _, solution = run(network, tight, config=HalpConfig(rounds=3, grain=4))
    assert tight.fits(widths_of(tight, solution))


def backward(model: nn.Module) -> None:
    images, labels = noise().take(range(32))
    model.train()
    F.cross_entropy(model(images), labels).backward()


def test_importance_is_the_slope_of_closing_a_batch_norm() -> None:
    """Scaling gamma and beta of one channel by 1 - e moves the loss by -e times the signed importance."""
    model, spec = fresh("plain")
    model = model.double()
    images, labels = noise().take(range(32))
    images = images.double()
    model.train()
    F.cross_entropy(model(images), labels).backward()
    found = Gates(spec, trained_parameters(model)).importance(model)
    for norm, importance in zip((model.b1, model.b2), found):
        for unit in range(len(importance)):
            losses = []
            for scale in (1 + 1e-5, 1 - 1e-5):
                with torch.no_grad():
                    kept = norm.weight[unit].clone(), norm.bias[unit].clone()
                    norm.weight[unit] *= scale
                    norm.bias[unit] *= scale
                    losses.append(float(F.cross_entropy(model(images), labels)))
                    norm.weight[unit], norm.bias[unit] = kept
            slope = abs(losses[0] - losses[1]) / 2e-5
            # a neighbour's ReLU may pass its kink
            assert importance[unit] == pytest.approx(slope, rel=1e-3, abs=1e-3 * importance.max())


def test_coupled_norms_are_summed_before_the_absolute_value() -> None:
    model, spec = fresh("rep_vgg")
    backward(model)
    found = Gates(spec, trained_parameters(model)).importance(model)
    by_hand = {"c1": (model.n1, model.n2, model.n3, model.n4, model.n5)}
    groups = {group.name: place for place, group in enumerate(spec.prunable)}
    own = {piece.parameter for piece in spec.prunable[groups["c1"]].slices}
    norms = [
        norm for name, norm in model.named_children() if f"{name}.weight" in own and name[0] == "n"
    ]
    assert set(norms) <= set(by_hand["c1"])
    assert len(norms) >= 2
    total = sum(norm.weight * norm.weight.grad + norm.bias * norm.bias.grad for norm in norms)
    np.testing.assert_allclose(
        found[groups["c1"]], total.detach().abs().numpy(), rtol=1e-5, atol=1e-9
    )


def test_without_a_norm_filters_and_biases_tell() -> None:
    model, spec = fresh("residual")
    backward(model)
    found = Gates(spec, trained_parameters(model)).importance(model)
    c1 = model.c1
    total = (c1.weight * c1.weight.grad).sum((1, 2, 3)) + c1.bias * c1.bias.grad
    place = [group.name for group in spec.prunable].index("c1")
    np.testing.assert_allclose(found[place], total.detach().abs().numpy(), rtol=1e-5, atol=1e-9)


def test_filters_stand_in_for_frozen_norms() -> None:
    model, spec = fresh("plain")
    model.b1.requires_grad_(False)
    backward(model)
    found = Gates(spec, trained_parameters(model)).importance(model)
    total = (model.c1.weight * model.c1.weight.grad).sum((1, 2, 3))
    np.testing.assert_allclose(found[0], total.detach().abs().numpy(), rtol=1e-4, atol=1e-7)


def test_batches_that_are_not_finite_are_left_out() -> None:
    model, spec = fresh("plain")
    gates = Gates(spec, trained_parameters(model))
    backward(model)
    first = gates.importance(model)
    hooks = HalpHooks(problem_of(spec, 0.5), HalpConfig(), gates, [1])
    hooks.after_backward(model)
    model.b1.weight.grad[0] = torch.nan
    assert gates.importance(model) is None
    hooks.after_backward(model)
    state = hooks.state()
    assert int(state["batches"]) == 1
    assert np.array_equal(state["sums.0"].numpy(), first[0])


@pytest.mark.parametrize("shares", [(0.5,), (0.2,), (0.5, 0.35)])
def test_an_allotment_is_nearly_the_best_of_all(shares: Tuple[float, ...]) -> None:
    """In small steps, as rounds make them, next to nothing is better than what is found."""
    _, spec = fresh("projection")
    generator = np.random.default_rng(3)
    problem = problem_of(spec, *shares)
    ranked = [np.sort(generator.exponential(1.0, 5))[::-1] for _ in spec.prunable]
    target = max(1.0, 0.6 * problem.load(np.full(len(ranked), 5.0)))
    found = Allotter(problem, ranked, target=target).choose().widths
    assert problem.load(found) <= target
    totals = [np.concatenate([[0.0], np.cumsum(row)]) for row in ranked]

    def value(widths: np.ndarray) -> float:
        return sum(row[int(width)] for row, width in zip(totals, widths))

    trials = map(np.array, itertools.product(range(1, 6), repeat=len(ranked)))
    best = max(value(widths) for widths in trials if problem.load(widths.astype(float)) <= target)
    assert value(found) >= 0.97 * best


@pytest.mark.parametrize(
    "wrong", [{"rounds": 0}, {"grain": 0}, {"interval": -1}, {"ramp": 0.0}, {"ramp": 1.1}]
)
def test_settings_are_checked(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        HalpConfig(**wrong)
