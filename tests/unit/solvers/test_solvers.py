"""The solvers on a small real problem: budgets hold, runs repeat, resumes are exact."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeecc.config import EccConfig, TrainConfig
from edgeecc.cost.exact import mac_cost, size_cost
from edgeecc.cost.product import ProductModel
from edgeecc.data.splits import TensorSplit
from edgeecc.errors import ArtifactError, BudgetInfeasibleError, ConfigError
from edgeecc.graph.spec import NetworkSpec
from edgeecc.graph.surgery import mask_tensors
from edgeecc.graph.trace import trace
from edgeecc.solvers import table
from edgeecc.solvers.base import Limit, Problem
from edgeecc.solvers.ecc import EccSolver, ScaleFreeHooks, needed, round_share
from edgeecc.solvers.finetune import FixedPattern
from edgeecc.solvers.residuals import TOLERANCE
from edgeecc.solvers.schedule import target
from edgeecc.solvers.table import make_solver
from edgeecc.solvers.uniform import uniform_widths
from edgeecc.solvers.units import UnitTable, keep_of
from edgeecc.solvers.widths import floors
from edgeecc.solvers.widthstep import descend
from edgeecc.training.loop import Checkpointing, TorchTrainer
from tests import zoo

METHODS = [
    ("ecc", "taylor"),
    ("ecc", "adam"),
    ("uniform", "taylor"),
    ("netadapt", ""),
    ("eap-channels", ""),
]


@pytest.fixture(scope="module")
def setting() -> tuple:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((160, 3, 8, 8), generator=generator)
    labels = torch.randint(0, 5, (160,), generator=generator)
    model, inputs = zoo.build("residual")
    spec = trace(model, inputs, network="residual")
    return model, spec, TensorSplit(images, labels)


def problem_of(spec: NetworkSpec, share: float, model: object = None) -> Problem:
    cost = model or mac_cost(spec)
    return Problem(spec, (Limit(cost, share * cost.predict(spec.vector(spec.dense_widths()))),), 0)


def made(method: str, metric: str = "taylor", **settings: object):
    return make_solver(method, EccConfig(metric=metric, **settings) if method == "ecc" else None)


def solve(
    setting: tuple,
    problem: Problem,
    method: str = "ecc",
    metric: str = "taylor",
    steps: int = 30,
    ramp: float = 1.0,
    **trainer: object,
):
    model, _, split = setting
    model = copy.deepcopy(model)
    config = TrainConfig(batch_size=16, lr=1e-3)
    if table.method(method).chooses:
        trainer = {"held_out": 40, **trainer}
    loop = TorchTrainer(model, split, split, config=config, **trainer)
    solution = made(method, metric, warmup=5, ramp=ramp, pace=0).solve(problem, loop, steps)
    return model, solution, loop


@pytest.mark.parametrize(("method", "metric"), METHODS)
@pytest.mark.parametrize("share", [0.9, 0.5, 0.2, 0.05])
def test_the_budget_holds_on_the_integer_widths(
    setting: tuple, method: str, metric: str, share: float
) -> None:
    problem = problem_of(setting[1], share)
    model, solution, _ = solve(setting, problem, method, metric)
    spec = problem.spec
    widths = {name: len(units) for name, units in spec.checked_keep(solution.keep).items()}
    assert problem.first_cost(spec.vector(widths)) <= problem.limits[0].bound
    assert all(1 <= widths[group.name] <= group.width for group in spec.prunable)
    if method == "ecc":
        for name, mask in mask_tensors(spec, solution.keep).items():
            if metric == "taylor":
                assert not (model.state_dict()[name] * (1 - mask)).any()


@pytest.mark.parametrize("rounds", [1, 7, 100])
@pytest.mark.parametrize("steps", [1, 2, 9, 99, 100, 150, 199, 300, 1000, 12345])
def test_there_are_as_many_rounds_as_asked_up_to_twice(rounds: int, steps: int) -> None:
    config = EccConfig(rounds=rounds)
    warm = min(config.warmup, steps // 10)
    shares = [round_share(config, step, steps) for step in range(1, steps + 1)]
    made = [share for share in shares if share]
    assert made == sorted(made)
    assert made[-1] == shares[-1] == 1.0
    assert min(rounds, steps - warm) <= len(made) <= 2 * rounds
    assert not any(shares[:warm])


@pytest.mark.parametrize(("method", "metric"), METHODS)
def test_a_budget_of_dense_changes_nothing(setting: tuple, method: str, metric: str) -> None:
    problem = problem_of(setting[1], 1.0)
    model, solution, _ = solve(setting, problem, method, metric)
    assert solution.status == "already_within"
    assert all((solution.keep[g.name] == np.arange(g.width)).all() for g in problem.spec.prunable)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), setting[0].state_dict().values())
    )


@pytest.mark.parametrize(("method", "metric"), METHODS)
def test_an_infeasible_budget_is_refused_before_the_first_batch(
    setting: tuple, method: str, metric: str
) -> None:
    spec = setting[1]
    lowest = mac_cost(spec).predict(spec.vector(spec.least_widths()))
    problem = Problem(spec, (Limit(mac_cost(spec), 0.99 * lowest),), 0)

    class NeverTrain:
        model = setting[0]

        def train(self, *args: object) -> None:
            raise AssertionError("trained")

    with pytest.raises(BudgetInfeasibleError, match="lowest that can be met is") as caught:
        made(method, metric).solve(problem, NeverTrain(), 10)
    assert caught.value.lowest == pytest.approx(lowest)


def test_the_lowest_printed_budget_is_feasible(setting: tuple) -> None:
    spec = setting[1]
    cost = mac_cost(spec)
    lowest = cost.predict(spec.vector(spec.least_widths()))
    _, solution, _ = solve(setting, Problem(spec, (Limit(cost, lowest),), 0), steps=6)
    assert all(len(units) == 1 for units in solution.keep.values())


@pytest.mark.parametrize("metric", ["taylor", "adam"])
def test_the_same_seed_gives_the_same_run(setting: tuple, metric: str) -> None:
    problem = problem_of(setting[1], 0.4)
    one, first, _ = solve(setting, problem, metric=metric)
    other, second, _ = solve(setting, problem, metric=metric)
    assert all(np.array_equal(first.keep[name], second.keep[name]) for name in first.keep)
    assert all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values())
    )


def test_the_unit_of_energy_does_not_matter(setting: tuple) -> None:
    """Acceptance (i): a thousandfold cost gives the identical course of s."""
    spec = setting[1]
    macs = mac_cost(spec)
    milli = ProductModel(
        macs.metric,
        "m",
        groups=macs.groups,
        terms=macs.terms,
        coefficients=1000 * macs.coefficients,
        constant=0.0,
    )
    _, one, _ = solve(setting, problem_of(spec, 0.4))
    _, other, _ = solve(setting, problem_of(spec, 0.4, milli))
    assert [step.values["s"] for step in one.history] == pytest.approx(
        [step.values["s"] for step in other.history], rel=1e-9
    )
    assert all(np.array_equal(one.keep[name], other.keep[name]) for name in one.keep)


def test_the_schedule_is_geometric_and_ends_on_the_last_step(setting: tuple) -> None:
    problem = problem_of(setting[1], 0.3)
    _, solution, _ = solve(setting, problem, steps=120)
    costs = [step.cost for step in solution.history]
    dense = problem.first_cost(problem.spec.vector(problem.spec.dense_widths()))
    assert len(costs) == needed(problem, 120, EccConfig(warmup=5, ramp=1.0)) > 55
    assert costs == sorted(costs, reverse=True)
    assert costs[4] == dense
    assert costs[-2] > problem.limits[0].bound
    assert costs[-1] <= problem.limits[0].bound
    share = 28 / (len(costs) - 5)
    middle = target(problem.limits[0], problem.spec.vector(problem.spec.dense_widths()), share)
    assert costs[5 + 27] == pytest.approx(middle, abs=0.12 * dense)


def test_a_budget_takes_steps_as_its_logarithm_up_to_the_ramp(setting: tuple) -> None:
    whole = problem_of(setting[1], 0.3)
    (limit,) = whole.limits
    dense = whole.spec.vector(whole.spec.dense_widths())
    # What cannot be reduced, from three targets of a geometric course.
    a, b, c = (target(limit, dense, share) for share in (0.0, 0.5, 1.0))
    fixed = (a * c - b * b) / (a + c - 2.0 * b)

    config = EccConfig(ramp=0.4, warmup=40, pace=0)

    def steps(left: float, count: int = 1000) -> int:
        bound = fixed + left * (a - fixed)
        return needed(replace(whole, limits=(replace(limit, bound=bound),)), count, config)

    assert steps(0.1) == steps(0.03) == 400
    assert steps(0.5) == pytest.approx(400 * np.log10(2.0), abs=1.0)
    assert steps(0.25) == pytest.approx(2 * steps(0.5), abs=1.0)
    assert steps(0.99) == 40  # importance has to settle
    assert (steps(0.5, count=20), steps(0.5, count=0)) == (8, 0)
    both = replace(whole, limits=(replace(limit, bound=0.9 * a), limit))
    assert needed(both, 1000, config) == needed(whole, 1000, config)


@pytest.mark.parametrize(
    ("steps", "taken"),
    [(100, 100), (200, 150), (500, 200), (0, 0)],
    ids=["all", "pace", "ramp", "none"],
)
def test_the_way_takes_no_fewer_steps_than_training_keeps_up_with(
    setting: tuple, steps: int, taken: int
) -> None:
    problem = problem_of(setting[1], 0.05)
    assert needed(problem, steps, EccConfig(ramp=0.4, pace=150, warmup=0)) == taken


def test_the_budget_is_reached_early_and_the_rest_is_handed_back(setting: tuple) -> None:
    problem = problem_of(setting[1], 0.3)
    _, solution, _ = solve(setting, problem, steps=60, ramp=0.4)
    costs = [step.cost for step in solution.history]
    taken = needed(problem, 60, EccConfig(warmup=5, ramp=0.4, pace=0))
    assert (len(costs), solution.left) == (taken, 60 - taken)
    assert 0 < taken < 24
    assert costs[-2] > problem.limits[0].bound
    assert costs[-1] <= problem.limits[0].bound


def test_removed_units_stay_removed_in_fine_tuning(setting: tuple) -> None:
    problem = problem_of(setting[1], 0.3)
    model, solution, loop = solve(setting, problem)
    loop.train("finetune", 12, FixedPattern(problem, solution.keep))
    for name, mask in mask_tensors(problem.spec, solution.keep).items():
        assert not (model.state_dict()[name] * (1 - mask)).any()


class Killed(BaseException):
    """Stands for kill -9: not an Exception, so nothing may catch it."""


@pytest.mark.parametrize("metric", ["taylor", "adam"])
@pytest.mark.parametrize("at", [7, 23])
def test_a_killed_run_resumes_exactly(setting: tuple, tmp_path: Path, metric: str, at: int) -> None:
    problem = problem_of(setting[1], 0.1)  # far enough to take all steps
    straight, expected, _ = solve(setting, problem, metric=metric)

    def die(phase: str, step: object) -> None:
        if step.step == at + 1:
            raise Killed

    saving = Checkpointing(tmp_path / "checkpoint.safetensors", 1e-9)
    with pytest.raises(Killed):
        solve(setting, problem, metric=metric, checkpointing=saving, on_step=die)
    seen = []
    resumed, found, _ = solve(
        setting,
        problem,
        metric=metric,
        checkpointing=saving,
        on_step=lambda phase, step: seen.append(step.step),
    )
    assert seen[0] == at + 1
    assert all(np.array_equal(expected.keep[name], found.keep[name]) for name in found.keep)
    assert all(
        torch.equal(a, b)
        for a, b in zip(straight.state_dict().values(), resumed.state_dict().values())
    )
    assert [step.loss for step in expected.history] == [step.loss for step in found.history]
    assert found.course == expected.course
    assert found.course["step"] == [step.step for step in found.history]
    for step, s in zip(found.history, found.course["s"]):
        assert sum(s) == pytest.approx(step.values["s"], rel=1e-4)


def test_a_damaged_checkpoint_is_one_line(setting: tuple, tmp_path: Path) -> None:
    problem = problem_of(setting[1], 0.4)
    path = tmp_path / "checkpoint.safetensors"
    solve(setting, problem, checkpointing=Checkpointing(path, 1e-9))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ArtifactError, match="damaged"):
        solve(setting, problem, checkpointing=Checkpointing(path, 1e-9))


def test_a_diverging_loss_is_told(setting: tuple) -> None:
    model, spec, split = setting
    loop = TorchTrainer(
        copy.deepcopy(model), split, split, config=TrainConfig(batch_size=16, lr=1e30)
    )
    with pytest.raises(
        ConfigError, match=r"the loss is (nan|inf) at step \d+ of prune; lower --lr"
    ):
        loop.train("prune", 20, FixedPattern(problem_of(spec, 1.0), spec.keep_all()))


def test_uniform_takes_one_factor_and_fills_up(setting: tuple) -> None:
    spec = setting[1]
    for share in (0.7, 0.3):
        problem = problem_of(spec, share)
        widths = uniform_widths(problem)
        shares = widths / spec.vector(spec.dense_widths())
        assert problem.first_cost(widths) <= problem.limits[0].bound
        assert shares.max() - shares.min() < 2.0 / min(group.width for group in spec.prunable)


def test_uniform_keeps_the_largest_norms(setting: tuple) -> None:
    _, spec, _ = setting
    model, solution, _ = solve(setting, problem_of(spec, 0.5), "uniform")
    weight = model.c2.weight.detach().pow(2).sum((0, 2, 3)).numpy()
    kept = solution.keep["c1"]
    assert weight[kept].min() >= np.delete(weight, kept).max()


def test_sums_and_masks_follow_the_slices(setting: tuple) -> None:
    model, spec, _ = setting
    state = dict(model.named_parameters())
    sums = dict(
        zip(
            [g.name for g in spec.prunable], UnitTable(spec).sums(lambda name: state[name].detach())
        )
    )
    by_hand = sum(state[f"{name}.weight"].detach().sum((0, 2, 3)) for name in ("c1", "c3"))
    by_hand = by_hand + state["fc.weight"].detach().sum(0)
    np.testing.assert_allclose(sums["stem"], by_hand.numpy(), rtol=1e-5, atol=1e-6)
    alive = [np.arange(group.width) % 2 == 0 for group in spec.prunable]
    found = UnitTable(spec).masks(alive)
    for name, mask in mask_tensors(spec, keep_of(spec, alive)).items():
        assert torch.equal(found[name].expand_as(mask), mask)


def test_size_budgets_work_like_any_other(setting: tuple) -> None:
    spec = setting[1]
    problem = problem_of(spec, 0.5, size_cost(spec))
    _, solution, _ = solve(setting, problem)
    widths = {name: len(units) for name, units in solution.keep.items()}
    assert problem.first_cost(spec.vector(widths)) <= problem.limits[0].bound


def test_unknown_methods_and_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"known are .*ecc.*uniform"):
        make_solver("magic")
    for wrong in (
        {"metric": "x"},
        {"rho1": 0.0},
        {"importance_decay": 1.0},
        {"ramp": 0.0},
        {"warmup": -1},
        {"least": 0},
        {"level": -0.1},
        {"level": 1.1},
        {"level": float("nan")},
    ):
        with pytest.raises(ConfigError):
            EccConfig(**wrong)
    for wrong in ({"batch_size": 0}, {"lr": 0.0}, {"weight_decay": -1.0}, {"distill": 1.5}):
        with pytest.raises(ConfigError):
            TrainConfig(**wrong)


def test_several_limits_hold_together_each_with_its_dual(setting: tuple) -> None:
    spec = setting[1]
    dense = spec.vector(spec.dense_widths())
    limits = tuple(
        Limit(cost, share * cost.predict(dense))
        for cost, share in ((mac_cost(spec), 0.5), (size_cost(spec), 0.4))
    )
    problem = Problem(spec, limits, 0)
    _, solution, _ = solve(setting, problem, steps=60)
    widths = spec.vector({name: len(units) for name, units in solution.keep.items()})
    assert problem.fits(widths)
    last = solution.history[-1].values
    assert {"z.macs", "z.size", "load.macs", "load.size"} <= set(last)
    assert max(last["load.macs"], last["load.size"]) <= 1.0
    residuals = [step.values["primal"] for step in solution.history]
    assert residuals[0] > 0.5
    assert residuals[-1] == 0.0
    assert max(step.values["z.size"] for step in solution.history) > 0.0
    loose = Problem(
        spec, (limits[0], Limit(limits[1].cost, 2.0 * limits[1].cost.predict(dense))), 0
    )
    alone = solve(setting, Problem(spec, limits[:1], 0), steps=60)[1]
    both = solve(setting, loose, steps=60)[1]
    assert all(np.array_equal(alone.keep[name], both.keep[name]) for name in alone.keep)
    with pytest.raises(ConfigError, match="one budget, not 2"):
        solve(setting, problem, metric="adam")


@pytest.mark.parametrize("shares", [(0.4, 1.0), (1.0, 0.4), (0.5, 0.45)])
def test_the_last_duals_are_prices_at_which_all_units_there_were_would_hold_the_limits(
    setting: tuple, shares: tuple
) -> None:
    model, spec, split = setting
    dense = spec.vector(spec.dense_widths())
    costs = (mac_cost(spec), size_cost(spec))
    limits = tuple(Limit(cost, share * cost.predict(dense)) for cost, share in zip(costs, shares))
    lived = []
    loop = TorchTrainer(
        copy.deepcopy(model), split, split, config=TrainConfig(batch_size=16, lr=1e-3),
        on_step=lambda phase, step: lived.append(hooks.living.alive),
    )  # fmt: skip
    problem = Problem(spec, limits, 0)
    hooks = ScaleFreeHooks(problem, EccConfig(warmup=5, least=1), loop)
    with hooks.watching():
        loop.train("prune", 40, hooks)
    state = {name: value.numpy() for name, value in hooks.state().items()}
    worth, z = [state[f"worth.{index}"] for index in range(len(dense))], state["z"]
    unit = np.mean(np.concatenate([w[alive] for w, alive in zip(worth, lived[-2])]))
    halves = [np.sort(w)[::-1] / unit / 2.0 for w in worth]

    def load(prices: np.ndarray) -> float:
        # Costs are products of widths, so that where a descent ends depends on where it begins.
        ends = [
            descend(halves, limits, prices, start, np.ones_like(dense))
            for start in (dense, hooks.living.widths(), np.ones_like(dense))
        ]
        return min(problem.load(widths) for widths in ends)

    assert load(z) <= 1.0 + 1e-12
    assert z.max() > 0.0
    for place, price in enumerate(z):
        if price > 0.0:
            assert load(np.where(np.arange(len(z)) == place, 0.9 * price, z)) > 1.0
        assert price == 0.0 or shares[place] < 1.0


def test_a_solve_has_converged_where_its_last_round_moved_little(setting: tuple) -> None:
    problem = problem_of(setting[1], 0.5)
    ends = {}
    for rounds in (1, 100):
        loop = TorchTrainer(
            copy.deepcopy(setting[0]), setting[2], setting[2], config=TrainConfig(batch_size=16)
        )
        solver = EccSolver(EccConfig(rounds=rounds, warmup=5, ramp=1.0))
        ends[rounds] = solver.solve(problem, loop, 60)
    at_once, in_rounds = (ends[rounds].history[-1].values for rounds in (1, 100))
    assert ends[1].status == "landed_in_large_steps"
    assert at_once["primal"] == 0.0
    assert at_once["dual"] > TOLERANCE
    assert ends[100].status == "converged"
    assert max(in_rounds["dual"], in_rounds["gap"]) <= TOLERANCE


def test_the_published_form_has_converged_where_its_bounds_hold_too(setting: tuple) -> None:
    """Its residuals fall, and the widths that hold a budget may still be beyond their bounds."""
    ends = {
        share: solve(setting, problem_of(setting[1], share), metric="adam")[1]
        for share in (0.5, 0.05)
    }
    for share, within in ((0.5, False), (0.05, True)):
        found = [step.values for step in ends[share].history]
        assert found[0]["primal"] > found[-1]["primal"]
        assert (found[-1]["primal"] == 0.0) is within
        assert ends[share].status == ("converged" if within else "landed_in_large_steps")


@pytest.mark.parametrize("least", [1, 2, 3])
def test_every_group_keeps_its_least_units_where_the_budget_allows(
    setting: tuple, least: int
) -> None:
    model, spec, split = setting
    problem = problem_of(spec, 0.3)
    loop = TorchTrainer(copy.deepcopy(model), split, split, config=TrainConfig(batch_size=16))
    config = EccConfig(level=0.0, least=least, warmup=2, ramp=1.0)
    solution = make_solver("ecc", config).solve(problem, loop, 20)
    widths = spec.vector({name: len(units) for name, units in solution.keep.items()})
    assert problem.fits(widths)
    floor = floors(problem, least)
    assert (widths >= floor).all()
    assert int(floor.max()) == int(widths.min()) == least
    assert all((np.array(row) >= floor).all() for row in solution.course["s"])


def test_the_last_widths_are_whole_tiles_where_the_budget_allows(setting: tuple) -> None:
    model, spec, split = setting
    for share, whole in ((0.5, True), (0.05, False)):
        loop = TorchTrainer(copy.deepcopy(model), split, split, config=TrainConfig(batch_size=16))
        problem = problem_of(spec, share)
        solution = make_solver("ecc", EccConfig(tile=4, warmup=2)).solve(problem, loop, 20)
        widths = {name: len(units) for name, units in solution.keep.items()}
        assert problem.fits(spec.vector(widths))
        tiles = all(widths[g.name] % 4 == 0 or widths[g.name] == g.width for g in spec.prunable)
        assert tiles is whole
