"""LcP and LeGR: the ranking against a removal one by one, the evolution, and whole runs on small networks."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Dict, List, Tuple

import numpy as np
import pytest
import torch
from torch import nn

from edgeecc.config import TrainConfig
from edgeecc.cost.exact import mac_cost
from edgeecc.errors import ArtifactError, BudgetInfeasibleError, ConfigError
from edgeecc.graph.spec import NetworkSpec
from edgeecc.graph.surgery import mask_tensors
from edgeecc.peer_config import LcpConfig
from edgeecc.solvers.base import Limit, Problem, Solution
from edgeecc.solvers.evolution import Tried, proposed
from edgeecc.solvers.lcp import LcpSolver, search_steps
from edgeecc.solvers.ranking import Ranking, filter_norms
from edgeecc.training.loop import Checkpointing, TorchTrainer
from tests.peers import fresh, noise, problem_of, widths_of

Traced = Tuple[nn.Module, NetworkSpec]
SHORT = LcpConfig(evaluations=10, population=5, tournament=3, recalibrate=32)


def run(
    network: Traced, problem: Problem, steps: int = 12, config: LcpConfig = SHORT, **trainer: object
) -> Tuple[nn.Module, Solution]:
    model = copy.deepcopy(network[0])
    training = TrainConfig(batch_size=16, lr=1e-3)
    loop = TorchTrainer(model, noise(), noise(), config=training, held_out=40, **trainer)
    return model, LcpSolver(config).solve(problem, loop, steps)


@pytest.mark.parametrize("name", ["residual", "depthwise", "inverted_residual"])
@pytest.mark.parametrize("share", [0.8, 0.4, 0.1])
def test_the_budget_holds_on_the_integer_widths(name: str, share: float) -> None:
    network = fresh(name)
    problem = problem_of(network[1], share)
    model, solution = run(network, problem)
    assert problem.fits(widths_of(problem, solution))
    for parameter, mask in mask_tensors(problem.spec, solution.keep).items():
        assert not (model.state_dict()[parameter] * (1 - mask)).any()


def test_two_limits_hold_at_once_and_nothing_more_fits() -> None:
    network = fresh("residual")
    problem = problem_of(network[1], 0.45, 0.4)
    _, solution = run(network, problem)
    widths = widths_of(problem, solution)
    dense = problem.spec.vector(problem.spec.dense_widths())
    assert problem.fits(widths)
    for group in np.flatnonzero(widths < dense):
        assert not problem.fits(widths + np.eye(len(widths))[group])


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


@pytest.mark.parametrize(
    ("share", "config", "error"),
    [
        (1e-3, SHORT, BudgetInfeasibleError),
        (0.5, LcpConfig(tau=1), ConfigError),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_first_batch(
    share: float, config: LcpConfig, error: type
) -> None:
    model, spec = fresh("residual")
    with pytest.raises(
        error, match=r"lowest that can be met is|exceed the 10 steps; raise --steps"
    ):
        LcpSolver(config).solve(problem_of(spec, share), NeverTrain(model), 10)


def test_every_candidate_starts_dense_and_what_it_does_not_train_is_handed_back() -> None:
    network = fresh("residual")
    dense = {name: value.clone() for name, value in network[0].state_dict().items()}
    phases: Dict[str, int] = {}

    class Counting(TorchTrainer):
        def train(self, phase: str, steps: int, *args: object, **more: object) -> list:
            phases[phase] = steps
            for name, value in self.model.state_dict().items():
                assert ((value == dense[name]) | (value == 0.0)).all()
            return super().train(phase, steps, *args, **more)

    loop = Counting(
        copy.deepcopy(network[0]), noise(), noise(), config=TrainConfig(batch_size=16), held_out=40
    )
    solution = LcpSolver(SHORT).solve(problem_of(network[1], 0.4), loop, 47)
    assert solution.left == 27
    assert phases == {f"lcp-{turn}": 2 for turn in range(10)}
    assert search_steps(SHORT, 19) == 0


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.mark.parametrize(("tau", "phase", "at"), [(0, "search", 3), (2, "search", 7)])
def test_a_killed_search_resumes_exactly(tmp_path: Path, tau: int, phase: str, at: int) -> None:
    network = fresh("residual")
    problem = problem_of(network[1], 0.4)
    config = LcpConfig(evaluations=10, population=5, tournament=3, tau=tau, recalibrate=32)
    scores: List[float] = []

    def tell(_: str, step: object) -> None:
        scores.append(step.values.get("score", step.loss))

    straight, expected = run(network, problem, 30, config, on_step=tell)

    def die(now: str, step: object) -> None:
        if now == phase and step.step == at:
            raise Killed

    saving = Checkpointing(tmp_path / "checkpoint", 1e-9, tmp_path / "journal")
    with pytest.raises(Killed):
        run(network, problem, 30, config, checkpointing=saving, on_step=die)
    whole, scores = scores, []
    resumed, found = run(network, problem, 30, config, checkpointing=saving, on_step=tell)
    assert len(scores) <= len(whole) - at + 1
    assert scores == whole[-len(scores) :]
    assert all(np.array_equal(expected.keep[name], found.keep[name]) for name in found.keep)
    states = (straight.state_dict().values(), resumed.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(*states))


def test_a_journal_of_another_network_is_one_line() -> None:
    state = Tried.none(3).plus(np.ones(3), np.zeros(3), 0.5).state()
    assert len(Tried.taken_back(state, 3).scores) == 1
    with pytest.raises(ArtifactError, match="does not fit the network"):
        Tried.taken_back(state, 4)
    with pytest.raises(ArtifactError, match="does not fit the network"):
        Tried.taken_back({}, 3)


def test_filters_that_make_a_unit_count() -> None:
    model, spec = fresh("residual")
    names = [group.name for group in spec.prunable]
    norms = dict(zip(names, filter_norms(model, spec)))
    coupled = sum(
        getattr(model, c).weight.detach().pow(2).sum((1, 2, 3)) for c in ("stem", "c2", "c4")
    )
    np.testing.assert_allclose(norms["stem"], coupled.numpy(), rtol=1e-5)
    np.testing.assert_allclose(
        norms["c1"], model.c1.weight.detach().pow(2).sum((1, 2, 3)).numpy(), rtol=1e-5
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.7, 0.3, 0.08])
def test_bisection_removes_what_one_by_one_would(seed: int, share: float) -> None:
    _, spec = fresh("projection")
    problem = problem_of(spec, share)
    generator = np.random.default_rng(seed)
    norms = [generator.exponential(1.0, group.width) for group in spec.prunable]
    scale, shift = generator.exponential(1.0, len(norms)), generator.normal(0.0, 1.0, len(norms))
    ranking = Ranking(problem, norms, 0.1)
    widths = ranking.widths(scale, shift)
    removed = one_by_one(problem, norms, scale, shift)
    assert problem.fits(widths)
    assert (widths >= removed).all()
    dense = spec.vector(spec.dense_widths())
    for group in np.flatnonzero(widths < dense):
        assert not problem.fits(widths + np.eye(len(widths))[group])
    alive = ranking.alive(widths)
    for values, living in zip(norms, alive):
        if not living.all():
            assert values[living].min() >= values[~living].max()


def one_by_one(
    problem: Problem, norms: List[np.ndarray], scale: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """Remove the lowest key over and over; the best tenth of a group and its last unit only when all else is gone."""
    units = [
        (rank < -(-len(row) // 10), a * value + b, group)
        for group, (row, a, b) in enumerate(zip(norms, scale, shift))
        for rank, value in enumerate(sorted(row, reverse=True))
        if rank
    ]
    widths = np.array([len(row) for row in norms], dtype=float)
    for _, _, group in sorted(units):
        if problem.fits(widths):
            break
        widths[group] -= 1
    return widths


def test_the_best_tenth_of_a_group_goes_last() -> None:
    _, spec = fresh("residual")
    norms = [np.arange(1.0, group.width + 1) for group in spec.prunable]
    scale = np.ones(len(norms))
    shift = np.array([-100.0] + [0.0] * (len(norms) - 1))
    least = spec.vector(spec.least_widths())
    half = Ranking(problem_of(spec, 0.5), norms, 0.5).widths(scale, shift)
    assert half[0] >= 4
    cost = mac_cost(spec)
    thinnest = Problem(spec, (Limit(cost, cost.predict(least)),), 0)
    assert Ranking(thinnest, norms, 0.5).widths(scale, shift).tolist() == least.tolist()


def evolved(config: LcpConfig, target: np.ndarray) -> Tried:
    """Search for the shifts nearest to a target."""
    tried = Tried.none(len(target))
    for _ in range(config.evaluations):
        scale, shift = proposed(tried, np.ones(len(target)), config, seed=4)
        tried = tried.plus(scale, shift, -float(np.abs(shift - target).sum()))
    return tried


def test_evolution_finds_what_chance_does_not() -> None:
    target = np.linspace(-2.0, 2.0, 12)
    tried = evolved(LcpConfig(evaluations=300), target)
    assert tried.scores.max() > tried.scores[:64].max() + 2.0
    assert (tried.scales[63] == 1.0).all()
    assert (tried.shifts[63] == 0.0).all()
    assert (tried.scales > 0.0).all()


def test_mutants_descend_from_the_living() -> None:
    """After the start each differs from one of the `population` before it in no more groups than are drawn."""
    config = LcpConfig(evaluations=60, population=8, tournament=4, mutated=0.3)
    tried = evolved(config, np.zeros(10))
    for turn in range(8, 60):
        changed = (tried.shifts[turn - 8 : turn] != tried.shifts[turn]).sum(1)
        assert changed.min() in (1, 2, 3)


def test_the_shift_form_leaves_scales_alone() -> None:
    config = LcpConfig(form="shift", evaluations=20, population=5, tournament=2)
    assert (evolved(config, np.zeros(4)).scales == 1.0).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"form": "x"}, {"tournament": 65}, {"evaluations": 63}, {"tournament": 0}, {"mutated": 0.0}, {"tau": -2},
        {"protected": 1.5}, {"recalibrate": -1},
    ],
)  # fmt: skip
def test_settings_are_checked(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        LcpConfig(**wrong)
