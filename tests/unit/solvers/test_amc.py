"""AMC on a small problem: budgets hold, runs repeat, killed ones go on exactly."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import List

import numpy as np
import pytest
import torch

from edgeecc.config import TrainConfig
from edgeecc.cost.exact import mac_cost, size_cost
from edgeecc.data.splits import TensorSplit
from edgeecc.errors import ArtifactError, BudgetInfeasibleError, ConfigError
from edgeecc.graph.surgery import mask_tensors
from edgeecc.graph.trace import trace
from edgeecc.peer_config import AmcConfig
from edgeecc.solvers.amc import AmcSolver
from edgeecc.solvers.base import Limit, Problem, Solution, Step
from edgeecc.solvers.schedule import on_the_way
from edgeecc.solvers.table import make_solver, method
from edgeecc.training.loop import Checkpointing, TorchTrainer
from tests import zoo

QUICK = AmcConfig(episodes=8, warmup=3, alternations=2, images=30, hidden=8, batch=4)


class Setting:
    """A zoo network, its spec and random data."""

    def __init__(self, name: str = "residual") -> None:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn((120, 3, 8, 8), generator=generator)
        self.model, inputs = zoo.build(name)
        self.spec = trace(self.model, inputs, network=name)
        with torch.no_grad():  # labels of every class, all of which the dense network tells
            self.model.fc.bias.sub_(self.model(images).mean(0))
            labels = self.model(images).argmax(1)
        self.split = TensorSplit(images, labels)

    def problem(self, share: float, size: float = 0.0, seed: int = 0) -> Problem:
        dense = self.spec.vector(self.spec.dense_widths())
        pairs = ((mac_cost(self.spec), share), (size_cost(self.spec), size))
        limits = [Limit(cost, part * cost.predict(dense)) for cost, part in pairs if part]
        return Problem(self.spec, tuple(limits), seed)

    def solve(
        self, problem: Problem, config: AmcConfig = QUICK, steps: int = 6, **more: object
    ) -> tuple[torch.nn.Module, Solution]:
        model = copy.deepcopy(self.model)
        trainer = TorchTrainer(
            model, self.split, self.split, config=TrainConfig(batch_size=16, lr=1e-3), **{"held_out": 40, **more}
        )  # fmt: skip
        return model, AmcSolver(config).solve(problem, trainer, steps)


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting()


def same(one: tuple, other: tuple) -> bool:
    """Return whether two runs ended with the same weights, units and history."""
    weights = zip(one[0].state_dict().values(), other[0].state_dict().values())
    units = (np.array_equal(one[1].keep[name], other[1].keep[name]) for name in one[1].keep)
    return all(torch.equal(a, b) for a, b in weights) and all(units) and one[1].history == other[1].history  # fmt: skip


def widths(solution: Solution) -> np.ndarray:
    return np.array([len(units) for units in solution.keep.values()], dtype=float)


@pytest.mark.parametrize("name", ["residual", "inverted_residual", "dense_concat", "grouped"])
@pytest.mark.parametrize(("share", "alternations"), [(0.7, 2), (0.3, 2), (0.27, 2), (0.5, 1)])
def test_the_budget_holds_and_is_spent(name: str, share: float, alternations: int) -> None:
    setting = Setting(name)
    problem = setting.problem(share)
    config = AmcConfig(**{**vars(QUICK), "episodes": 4, "alternations": alternations})
    model, solution = setting.solve(problem, config)
    kept, dense = widths(solution), setting.spec.vector(setting.spec.dense_widths())
    assert problem.fits(kept)
    if alternations == 1:
        for group in np.flatnonzero(kept < dense):  # what the search left over was given back
            kept[group] += 1.0
            assert not problem.fits(kept)
            kept[group] -= 1.0
    for key, mask in mask_tensors(setting.spec, solution.keep).items():
        assert not (model.state_dict()[key] * (1 - mask)).any()
    assert [step.step for step in solution.history] == list(range(1, 7 - 6 // alternations))
    assert solution.left == 6 // alternations  # the last alternation trains in fine-tuning


def test_alternations_take_the_same_part_of_what_can_be_reduced(setting: Setting) -> None:
    problem = setting.problem(0.3)
    ends: List[float] = []

    def tell(phase: str, step: Step) -> None:
        if phase.startswith("alternation") and step.cost not in ends:
            ends.append(step.cost)

    config = AmcConfig(**{**vars(QUICK), "episodes": 9, "alternations": 3})
    setting.solve(problem, config, on_step=tell)
    bounds = [on_the_way(problem, share).limits[0].bound for share in (1 / 3, 2 / 3)]
    dense = problem.first_cost(setting.spec.vector(setting.spec.dense_widths()))
    assert len(ends) == 2
    for cost, bound in zip(ends, bounds):
        assert bound - 0.1 * dense < cost <= bound


def test_several_limits_hold_at_once(setting: Setting) -> None:
    for macs, size in ((0.3, 0.8), (0.8, 0.3)):
        problem = setting.problem(macs, size)
        _, solution = setting.solve(problem)
        assert problem.fits(widths(solution))


def test_the_thinnest_budget_is_met(setting: Setting) -> None:
    cost = mac_cost(setting.spec)
    lowest = cost.predict(setting.spec.vector(setting.spec.least_widths()))
    _, solution = setting.solve(Problem(setting.spec, (Limit(cost, lowest),), 0), steps=0)
    assert (widths(solution) == 1.0).all()


def test_widths_are_multiples_where_asked(setting: Setting) -> None:
    config = AmcConfig(**{**vars(QUICK), "divisor": 2, "alternations": 1})
    _, solution = setting.solve(setting.problem(0.5), config)
    assert sum(width % 2 for width in widths(solution)) <= 1


def test_a_budget_of_dense_changes_nothing(setting: Setting) -> None:
    model, solution = setting.solve(setting.problem(1.0))
    assert solution == Solution(solution.keep, "already_within", (), 6)
    assert all(len(solution.keep[g.name]) == g.width for g in setting.spec.prunable)
    state = setting.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_an_infeasible_budget_is_refused_before_anything_runs(setting: Setting) -> None:
    class Untouched:
        """A trainer that has nothing."""

    with pytest.raises(BudgetInfeasibleError, match="lowest that can be met is"):
        AmcSolver(QUICK).solve(setting.problem(0.001), Untouched(), 10)


def test_without_held_out_images_it_is_refused(setting: Setting) -> None:
    with pytest.raises(ConfigError, match="hold some out"):
        setting.solve(setting.problem(0.5), held_out=0)


def test_the_same_seed_gives_the_same_run(setting: Setting) -> None:
    runs = [setting.solve(setting.problem(0.4, seed=seed)) for seed in (0, 0, 1)]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_walks_are_reported_and_the_best_one_counts(setting: Setting) -> None:
    told: list[tuple[str, Step]] = []
    problem = setting.problem(0.4)
    setting.solve(problem, on_step=lambda phase, step: told.append((phase, step)))
    walks = [step for phase, step in told if phase == "search"]
    assert [phase for phase, _ in told] == [
        *["search"] * 4, *["alternation-1"] * 3, *["search"] * 4,
    ]  # fmt: skip
    assert [step.step for step in walks] == list(range(1, 9))
    assert all(step.steps == 8 for step in walks)
    for part in (walks[:4], walks[4:]):
        scores = [step.values["score"] for step in part]
        assert [step.values["best"] for step in part] == list(np.maximum.accumulate(scores))
        assert [step.loss for step in part] == [1.0 - score for score in scores]
    sigmas = [0.0, 0.5, 0.475, 0.475 * 0.95, 0.0, 0.0, 0.5, 0.475]  # one walk of chance, then two
    assert [step.values["sigma"] for step in walks] == pytest.approx(sigmas)
    assert all(step.cost <= problem.limits[0].bound for step in walks[4:])
    least = AmcConfig(**{**vars(QUICK), "episodes": 1, "warmup": 0, "alternations": 1})
    _, only = setting.solve(problem, least)  # one walk, of one factor, filled up
    assert np.ptp(widths(only) / problem.spec.vector(problem.spec.dense_widths())) < 0.5


def test_the_agent_finds_better_widths_than_chance(setting: Setting) -> None:
    told: list[Step] = []
    config = AmcConfig(
        episodes=60, warmup=20, alternations=1, images=30, hidden=16, batch=16, actor_lr=3e-3, critic_lr=1e-2
    )  # fmt: skip
    setting.solve(
        setting.problem(0.5), config, steps=0, on_step=lambda phase, step: told.append(step)
    )
    scores = [step.values["score"] for step in told]
    assert np.mean(scores[-20:]) > np.mean(scores[:20]) + 0.05
    assert told[-1].values["best"] == max(scores)


def test_training_begins_with_the_best_walk_fitted(setting: Setting) -> None:
    """Without training the network keeps its fitted weights: not those of the dense network with zeros."""
    model, solution = setting.solve(setting.problem(0.5), steps=0)
    state, masks = setting.model.state_dict(), mask_tensors(setting.spec, solution.keep)
    changed = [
        not torch.allclose(model.state_dict()[key], state[key] * masks[key]) for key in masks
    ]
    assert any(changed)
    for key, value in model.state_dict().items():
        assert key in masks or torch.equal(value, state[key])


class Killed(BaseException):
    """Stands for kill -9: not an Exception, so nothing may catch it."""


@pytest.mark.parametrize(
    ("phase", "at"),
    [("search", 1), ("search", 3), ("alternation-1", 2), ("search", 7)],
)
def test_a_killed_run_resumes_exactly(
    setting: Setting, tmp_path: Path, phase: str, at: int
) -> None:
    problem = setting.problem(0.4)
    straight = setting.solve(problem)
    saving = Checkpointing(tmp_path / "phase", 1e-9, tmp_path / "search")

    def die(name: str, step: Step) -> None:
        if (name, step.step) == (phase, at):
            raise Killed

    with pytest.raises(Killed):
        setting.solve(problem, checkpointing=saving, on_step=die)
    told: list[tuple[str, int]] = []
    resumed = setting.solve(
        problem, checkpointing=saving, on_step=lambda name, step: told.append((name, step.step))
    )
    assert same(straight, resumed)
    assert told[0] == (phase, at)


def test_what_another_search_remembers_is_refused(setting: Setting, tmp_path: Path) -> None:
    saving = Checkpointing(tmp_path / "phase", 1e-9, tmp_path / "search")
    setting.solve(setting.problem(0.4), checkpointing=saving)
    with pytest.raises(ArtifactError, match="another network"):
        Setting("inverted_residual").solve(setting.problem(0.4), checkpointing=saving)
    other = AmcConfig(**{**vars(QUICK), "hidden": 9})
    with pytest.raises(ArtifactError, match="another network"):
        setting.solve(setting.problem(0.4), other, checkpointing=saving)


def test_the_table_knows_it_and_settings_are_checked() -> None:
    assert method("amc").chooses
    assert isinstance(make_solver("amc"), AmcSolver)
    for wrong, text in (
        ({"episodes": 3}, "fewer than 4 alternations"),
        ({"warmup": 401}, "must lie in 0..400"),
        ({"alternations": 0}, "at least 1"),
        ({"divisor": 0}, "at least 1"),
        ({"actor_lr": 0.0}, "must be positive"),
        ({"lower_bound": 1.5}, r"must lie in 0..1"),
        ({"tau": 0.0}, r"must lie in \(0, 1\]"),
    ):
        with pytest.raises(ConfigError, match=text):
            AmcConfig(**wrong)
