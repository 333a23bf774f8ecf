"""NetAdapt: targets, the steps of candidates, the choice among them, resumes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np
import pytest
import torch

from edgeecc.cost.exact import mac_cost
from edgeecc.errors import ArtifactError, BudgetInfeasibleError, ConfigError
from edgeecc.peer_config import NetAdaptConfig, with_settings
from edgeecc.solvers.base import Step
from edgeecc.solvers.netadapt import NetAdaptSolver, revive_
from edgeecc.solvers.netadapt_plan import Plan, planned, shared_out
from edgeecc.solvers.netadapt_state import Progress as SearchProgress
from edgeecc.solvers.netadapt_state import State, Trial, packed, unpacked
from edgeecc.training.loop import Checkpointing, TorchTrainer
from tests.peers import (
    Killed,
    check_same,
    check_solution,
    dense,
    problem_of,
    solved,
    traced,
)

QUICK = NetAdaptConfig(decay=0.8, least_steps=4)


def net(
    name: str = "residual",
    share: float = 0.5,
    steps: int = 60,
    config: NetAdaptConfig = QUICK,
    **more: object,
):
    problem = problem_of(traced(name)[1], share)
    return solved(NetAdaptSolver(config), name, problem, steps, **more)


def test_targets_fall_geometrically_from_dense_to_one() -> None:
    plan = planned(2.0, 10_000, 5, NetAdaptConfig())
    assert plan.rounds == 17  # ln 2 / -ln 0.96 = 16.98
    assert [plan.target(turn) for turn in (1, 2, 16)] == [2 * 0.96, 2 * 0.96**2, 2 * 0.96**16]
    assert plan.target(17) == 1.0
    assert planned(0.8**-3, 10_000, 5, QUICK).rounds == 3
    assert planned(1.0 + 1e-12, 10_000, 5, QUICK).rounds == 1


def test_few_steps_make_fewer_and_larger_rounds() -> None:
    config = NetAdaptConfig(scarce="coarsen", least_steps=4)
    assert planned(2.0, 17 * 5 * 4, 5, config).decay == 0.96
    coarse = planned(2.0, 17 * 5 * 4 - 1, 5, config)
    assert coarse.rounds == 16
    assert coarse.target(8) == pytest.approx(math.sqrt(2.0))
    assert planned(2.0, 0, 5, config) == Plan(2.0, 1, 0.5)
    assert planned(2.0, 0, 5, NetAdaptConfig()).rounds == 17


@pytest.mark.parametrize("scarce", ["screen", "coarsen"])
def test_rounds_never_take_more_steps_than_there_are(scarce: str) -> None:
    config = NetAdaptConfig(scarce=scarce)
    rng = np.random.default_rng(0)
    for _ in range(200):
        rounds, steps, spent = int(rng.integers(1, 60)), int(rng.integers(0, 2000)), 0
        plan = Plan(2.0, rounds, 0.9)
        for turn in range(1, rounds + 1):
            if rng.random() < 0.2 and turn < rounds:  # its target held before it began
                continue
            due, candidates = plan.due(turn, steps, spent), int(rng.integers(1, 20))
            trained, each = shared_out(due, candidates, config)
            assert 0 <= trained * each <= due
            assert 0 <= trained <= candidates
            if scarce == "screen":
                assert each >= config.least_steps or not trained
                assert trained == candidates or due < (trained + 1) * config.least_steps
            spent += trained * each
        assert spent <= steps


@pytest.mark.parametrize(
    "name", ["residual", "inverted_residual", "concat_twice", "deep", "grouped"]
)
@pytest.mark.parametrize("share", [0.8, 0.3])
def test_the_budget_holds_and_no_room_is_left(name: str, share: float) -> None:
    problem = problem_of(traced(name)[1], share)
    model, solution = net(name, share, steps=24)
    widths = problem.spec.vector(check_solution(model, problem, solution))
    most = problem.spec.vector(problem.spec.dense_widths())
    for group in np.flatnonzero(widths < most):
        assert not problem.fits(widths + (np.arange(len(most)) == group))


def test_where_no_group_is_enough_alone_all_shrink() -> None:
    """Thirty like layers: none carries the fifth of the load that a round takes."""
    _, solution = net("deep", 0.8, steps=0)
    lost = [g.width - len(solution.keep[g.name]) for g in traced("deep")[1].prunable]
    assert sum(units > 0 for units in lost) > len(lost) / 3
    assert max(lost) == 1
    assert len(solution.history) == 1


def test_two_limits_hold_at_once() -> None:
    problem = problem_of(traced("residual")[1], 0.5, 0.35)
    model, solution = solved(NetAdaptSolver(QUICK), "residual", problem, 30)
    check_solution(model, problem, solution)


@pytest.mark.parametrize("steps", [0, 3, 20, 70])
@pytest.mark.parametrize("scarce", ["screen", "coarsen"])
def test_training_takes_no_more_steps_than_it_is_given_and_hands_the_rest_back(
    monkeypatch: pytest.MonkeyPatch, steps: int, scarce: str
) -> None:
    spent: List[int] = []
    train = TorchTrainer.train

    def counted(self: TorchTrainer, phase: str, number: int, *args: object, **more: object):
        spent.append(number)
        return train(self, phase, number, *args, **more)

    monkeypatch.setattr(TorchTrainer, "train", counted)
    _, solution = net("plain", steps=steps, config=NetAdaptConfig(decay=0.8, scarce=scarce))
    assert sum(spent) + solution.left == steps
    assert [step.step for step in solution.history] == sorted(s.step for s in solution.history)
    assert solution.history[-1].step == sum(spent)


def test_equal_scores_go_by_what_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TorchTrainer, "held_out", lambda self, keep=None, renew=None: 0.5)
    for start, tried, done in rounds("score"):
        assert done.cost == min(step.cost for step in tried), start


@pytest.mark.parametrize("select", ["score", "ratio"])
def test_the_best_candidate_is_kept(monkeypatch: pytest.MonkeyPatch, select: str) -> None:
    generator = torch.Generator().manual_seed(3)
    monkeypatch.setattr(
        TorchTrainer,
        "held_out",
        lambda self, keep=None, renew=None: float(torch.rand((), generator=generator).double()),
    )
    first = float(torch.rand((), generator=torch.Generator().manual_seed(3)).double())
    spec = traced("plain")[1]
    cost, score = mac_cost(spec).predict(spec.vector(spec.dense_widths())), first
    bound = 0.5 * cost
    for _, tried, done in rounds(select):

        def ratio(step: Step, cost: float = cost, score: float = score) -> float:
            return (score - step.values["score"] + 1e-6) / ((cost - step.cost) / bound + 1e-5)

        by_score = max(tried, key=lambda step: step.values["score"])
        best = by_score if select == "score" else min(tried, key=ratio)
        assert (done.cost, done.values["score"]) == (best.cost, best.values["score"])
        cost, score = done.cost, done.values["score"]


def rounds(select: str) -> Iterator[Tuple[int, List[Step], Step]]:
    """Return the number of each round with its candidates and what was kept."""
    told: List[Step] = []
    config = NetAdaptConfig(decay=0.85, least_steps=1, select=select)
    _, solution = net("plain", steps=24, config=config, on_step=lambda _, step: told.append(step))
    start = 0
    found = [step for step in solution.history if step.values]
    assert len(found) > 2
    for number, done in enumerate(found):
        tried = [step for step in told if step.values and start < step.step <= done.step]
        start = done.step
        yield number, tried, done


def test_units_with_the_smallest_readers_go_first() -> None:
    problem = problem_of(traced("plain")[1], 0.9)
    model = dense("plain")
    _, solution = solved(NetAdaptSolver(NetAdaptConfig(decay=0.5)), "plain", problem, 0)
    for name, reader in (("c1", model.c2.weight), ("c2", model.fc.weight)):
        norms = reader.detach().pow(2).sum([a for a in range(reader.ndim) if a != 1]).numpy()
        kept = solution.keep[name]
        if len(kept) < len(norms):
            assert norms[kept].min() >= np.delete(norms, kept).max()


def test_what_makes_revived_units_is_as_it_was() -> None:
    model, spec = dense("inverted_residual"), traced("inverted_residual")[1]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()
    group = [group.name for group in spec.prunable].index("expand")
    units = np.array([1, 4])
    revive_(model, before, spec, group, units)
    state = model.state_dict()
    for piece in spec.prunable[group].slices:
        at = torch.from_numpy(piece.indices(units).reshape(-1))
        expected = before[piece.parameter].index_select(piece.axis, at)
        found = state[piece.parameter].index_select(piece.axis, at)
        assert torch.equal(found, torch.zeros_like(found) if piece.role == "in" else expected)
    assert sum(bool(value.any()) for value in model.parameters()) < len(list(model.parameters()))


@pytest.mark.parametrize("batches", [0, 2])
def test_candidates_are_scored_with_statistics_of_so_many_batches(
    monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    given: List[int] = []
    held_out = TorchTrainer.held_out

    def seen(self: TorchTrainer, keep: object = None, renew: Optional[torch.Tensor] = None):
        given.append(0 if renew is None else len(renew))
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        score = held_out(self, keep, renew)
        assert all(torch.equal(before[k], v) for k, v in self.model.state_dict().items())
        return score

    monkeypatch.setattr(TorchTrainer, "held_out", seen)
    net("plain", steps=12, config=NetAdaptConfig(decay=0.8, recalibrate=batches))
    assert len(given) > 4
    assert set(given) == {16 * batches}


def test_the_same_seed_gives_the_same_run() -> None:
    check_same(net(), net())


def test_candidates_go_on_with_what_the_optimiser_knew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first batch of every candidate is met with the moments of the weights that it starts from."""
    begun: List[Dict[str, torch.Tensor]] = []
    ended: List[Dict[str, torch.Tensor]] = []
    real = TorchTrainer.train

    def train(self: TorchTrainer, *args: Any, moments: Any = None, **more: Any) -> List[Step]:
        begun.append({name: value.clone() for name, value in (moments or {}).items()})
        history = real(self, *args, moments=moments, **more)
        ended.append({name: value.clone() for name, value in (moments or {}).items()})
        return history

    monkeypatch.setattr(TorchTrainer, "train", train)
    carried = net(steps=400, config=replace(QUICK, carry=True))
    assert not begun[0]
    later = [one for one in begun if one]
    assert later
    for one in later:
        assert any(
            all(torch.equal(one[name], former[name]) for name in one) for former in ended if former
        )
    steps = [int(one["step.c1.weight"]) for one in later if "step.c1.weight" in one]
    assert steps == sorted(steps)
    begun.clear()
    afresh = net(steps=400)
    assert not any(begun)
    assert carried[1].status == afresh[1].status == "converged"


@pytest.mark.parametrize("carry", [False, True])
@pytest.mark.parametrize(
    ("name", "steps", "at"),
    [("plain", 12, 1), ("plain", 40, 5), ("plain", 40, 7), ("residual", 9, 9)],
)
def test_a_killed_run_resumes_exactly(
    tmp_path: Path, name: str, steps: int, at: int, carry: bool
) -> None:
    config = replace(QUICK, carry=carry)
    told: List[Step] = []

    def die(phase: str, step: Step) -> None:
        told.append(step)
        if len(told) == at:
            raise Killed

    saving = Checkpointing(tmp_path / "phase", 1e-9, tmp_path / "search")
    with pytest.raises(Killed):
        net(name, steps=steps, config=config, checkpointing=saving, on_step=die)
    resumed = net(name, steps=steps, config=config, checkpointing=saving, on_step=die)
    everything: List[Step] = []
    expected = net(
        name, steps=steps, config=config, on_step=lambda phase, step: everything.append(step)
    )
    check_same(resumed, expected)
    assert len(everything) <= len(told) <= len(everything) + 2


def test_an_infeasible_budget_is_refused_before_anything_is_scored() -> None:
    class Never:
        model = traced("residual")[0]

    with pytest.raises(BudgetInfeasibleError):
        NetAdaptSolver(QUICK).solve(problem_of(traced("residual")[1], 1e-6), Never(), 10)


def test_images_must_be_held_out() -> None:
    with pytest.raises(ConfigError, match="hold some out"):
        net(held_out=0)


def test_a_budget_of_dense_changes_nothing() -> None:
    model, solution = net(share=1.0)
    assert solution.status == "already_within"
    before = traced("residual")[0].state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before))


def test_settings_are_read_from_text() -> None:
    made = with_settings(NetAdaptConfig(), ["scarce=coarsen", "select=ratio", "decay=0.9"])
    assert made == NetAdaptConfig(scarce="coarsen", select="ratio", decay=0.9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"decay": 1.0}, {"least_steps": 0}, {"rate": 0.0}, {"scarce": "x"}, {"select": "x"}, {"recalibrate": -1},
    ],
)  # fmt: skip
def test_settings_are_checked(wrong: Dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        NetAdaptConfig(**wrong)


def test_a_damaged_search_is_told_with_what_to_remove() -> None:
    living = [np.ones(4, dtype=bool), np.array([True, False])]
    weights = {"0.weight": torch.ones(4, 3), "0.bias": torch.zeros(4)}
    state = State(living, weights, 0.5, 1.0, 90, 10, ((10.0, 1.0, 0.9, 0.5),))
    progress = SearchProgress((0.1, 0.2), 1, Trial(1, 0.6, 0.9, weights))
    tensors = packed(state, progress)
    back, further = unpacked(tensors)
    assert [one.tolist() for one in back.alive] == [one.tolist() for one in living]
    assert (back.left, back.seen, back.history) == (90, 10, state.history)
    assert (further.screened, further.tried) == ((0.1, 0.2), 1)
    for name, wrong in (
        ("counts", None),
        ("counts", torch.zeros(3)),
        ("numbers", torch.zeros(5)),
        ("history", torch.zeros(2)),
        ("screened", torch.tensor(1.0)),
        ("best", None),
    ):
        damaged = {key: value for key, value in tensors.items() if key != name}
        if wrong is not None:
            damaged[name] = wrong
        with pytest.raises(
            ArtifactError, match=r"what the search remembers .*; remove search.safe"
        ):
            unpacked(damaged)
