"""Energy-aware pruning of channels: the error of leaving channels out, widths, fits, sweeps, resumes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Dict, List

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.errors import BudgetInfeasibleError, ConfigError
from edgeecc.peer_config import EapChannelsConfig
from edgeecc.solvers.base import Step
from edgeecc.solvers.channel_budget import allotted, noise, worths
from edgeecc.solvers.channel_error import (
    Quadratic,
    chosen,
    eliminated,
    kept_shares,
    quadratic,
    total,
)
from edgeecc.solvers.eap_channels import EapChannelsSolver, Sweeper, by_load
from edgeecc.solvers.local_fit import RIDGE, Moments
from edgeecc.solvers.readers import readers
from edgeecc.solvers.sample import Sample
from edgeecc.solvers.units import UnitTable
from edgeecc.training.loop import Checkpointing
from tests.peers import (
    Killed,
    check_same,
    check_solution,
    dense,
    images,
    problem_of,
    solved,
    traced,
)

SMALL = EapChannelsConfig(images=24)


def net(
    name: str = "residual",
    share: float = 0.5,
    steps: int = 6,
    config: EapChannelsConfig = SMALL,
    **more: object,
):
    problem = problem_of(traced(name)[1], share)
    return solved(EapChannelsSolver(config), name, problem, steps, held_out=0, **more)


class Layer:
    """Rows of a layer of g groups that reads c units, some of several inputs, and inputs of no unit."""

    def __init__(self, seed: int, *, groups: int = 2, units: int = 5) -> None:
        rng = np.random.default_rng(seed)
        self.count = units
        self.units = np.stack(
            [rng.permutation([*range(units), *range(units), -1]) for _ in range(groups)]
        )
        inputs = self.units.shape[1]
        mix = rng.normal(size=(groups, inputs, inputs))
        self.x = np.maximum(rng.normal(size=(groups, 80, inputs)) @ mix, 0.0)
        self.weight = rng.normal(size=(groups, 3, inputs))
        self.y = self.x @ self.weight.transpose(0, 2, 1) + 0.1 * rng.normal(size=(groups, 80, 3))

    @property
    def moments(self) -> Moments:
        x, y = torch.from_numpy(self.x), torch.from_numpy(self.y)
        return Moments(x.mT @ x, x.mT @ y, y.square().sum(1))

    @property
    def error(self) -> Quadratic:
        weight, units = torch.from_numpy(self.weight), torch.from_numpy(self.units)
        return quadratic(self.moments, weight, units, self.count)

    def by_hand(self, mask: np.ndarray) -> float:
        """Return the error of the rows themselves without the inputs of units outside the mask."""
        stays = np.append(mask, True)[self.units]  # unit -1 is the last
        given = (self.x * stays[:, None, :]) @ self.weight.transpose(0, 2, 1)
        return float(np.square(self.y - given).sum() / np.square(self.y).sum())


def masks(count: int, width: int) -> List[np.ndarray]:
    return [np.isin(np.arange(count), some) for some in itertools.combinations(range(count), width)]


@given(st.integers(0, 10**6))
def test_the_error_of_every_mask_is_that_of_the_rows(seed: int) -> None:
    layer = Layer(seed)
    error = layer.error
    for width in range(layer.count + 1):
        for mask in masks(layer.count, width):
            expected = layer.by_hand(mask)
            assert error.error(mask) == pytest.approx(expected, rel=1e-8, abs=1e-10)
            for unit, growth in enumerate(np.where(mask, error.without(mask), error.along(mask))):
                other = mask ^ (np.arange(layer.count) == unit)
                assert growth == pytest.approx(layer.by_hand(other) - expected, abs=1e-8)


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_the_choice_of_channels_against_trying_all(seed: int, width: int) -> None:
    """No swap of two channels is better, elimination alone is not, and the best choice of all rarely is."""
    error = total([Layer(seed).error, Layer(seed + 1).error], 5)
    alive = np.ones(5, dtype=bool)
    found = chosen(error, alive, width, beyond=0.3)
    assert found.sum() == width
    every = [error.error(mask) for mask in masks(5, width)]
    plain = ~np.isin(np.arange(5), eliminated(error, alive, width))
    assert min(every) - 1e-9 <= error.error(found) <= error.error(plain) + 1e-9
    for mask in masks(5, width):
        if (mask ^ found).sum() == 2:
            assert error.error(found) <= error.error(mask) + 1e-9


def test_the_choice_is_mostly_the_best_of_all() -> None:
    best = 0
    for seed in range(60):
        error = Layer(seed, units=7).error
        found = error.error(chosen(error, np.ones(7, dtype=bool), 3, beyond=0.3))
        best += found <= min(error.error(mask) for mask in masks(7, 3)) + 1e-9
    assert best >= 54


def test_channels_that_went_do_not_come_back() -> None:
    error = Layer(5).error
    alive = np.array([True, False, True, True, False])
    for width in (1, 2, 3):
        found = chosen(error, alive, width, beyond=0.5)
        assert found.sum() == width
        assert not (found & ~alive).any()


def test_without_moments_squared_weights_are_lost() -> None:
    layer = Layer(2)
    error = quadratic(None, torch.from_numpy(layer.weight), torch.from_numpy(layer.units), 5)
    squares = np.square(layer.weight).sum(1)
    norms = np.array([squares[layer.units == unit].sum() for unit in range(-1, 5)]) / squares.sum()
    mask = np.array([True, False, True, False, False])
    assert error.error(mask) == pytest.approx(1.0 - norms[0] - norms[1:][mask].sum())
    ranked = [2, 0, 4]
    assert error.kept(ranked) == pytest.approx(norms[0] + np.cumsum(norms[1:][ranked]))


def test_a_layer_that_gives_nothing_decides_nothing() -> None:
    sizes = ((1, 2, 2), (1, 2, 1), (1, 1))
    zero = Moments(*(torch.zeros(size, dtype=torch.float64) for size in sizes))
    units = torch.tensor([[0, 1]])
    error = quadratic(zero, torch.zeros(1, 1, 2).double(), units, 2)
    assert not error.pair.any()
    kept = kept_shares(zero, units=units, allowed=units >= 0, ranked=[0, 1])
    assert kept.tolist() == [1.0, 1.0]


@given(st.integers(0, 10**6))
def test_kept_shares_are_those_of_least_squares(seed: int) -> None:
    layer = Layer(seed)
    rng = np.random.default_rng(seed)
    ranked = [int(unit) for unit in rng.permutation(5)[:4]]
    allowed = np.isin(layer.units, [-1, *ranked]) & (rng.random(layer.units.shape) < 0.8)
    found = kept_shares(
        layer.moments, units=torch.from_numpy(layer.units), allowed=torch.from_numpy(allowed), ranked=ranked
    )  # fmt: skip
    assert (np.diff(found) >= -1e-12).all()
    for width in range(1, 5):
        lost = 0.0
        for x, y, units, may in zip(layer.x, layer.y, layer.units, allowed):
            stays = may & np.isin(units, [-1, *ranked[:width]])
            ridge = np.sqrt(RIDGE * np.square(x).sum() / x.shape[1])
            rows = np.vstack([x[:, stays], ridge * np.eye(stays.sum())])
            wanted = np.vstack([y, np.zeros((stays.sum(), y.shape[1]))])
            fitted = (
                np.linalg.lstsq(rows, wanted, rcond=None)[0] if stays.any() else np.zeros((0, 3))
            )
            lost += np.square(wanted - rows @ fitted).sum()
        assert found[width - 1] == pytest.approx(1.0 - lost / np.square(layer.y).sum(), abs=1e-9)


@given(st.lists(st.floats(0.0, 10.0), min_size=1, max_size=12))
def test_worths_are_slopes_of_the_convex_minorant(values: List[float]) -> None:
    curve = np.sort(np.array(values))[::-1]
    slopes = worths(curve)
    assert np.isinf(slopes[0])
    assert (np.diff(slopes[1:]) <= 1e-9).all()
    assert (slopes >= 0.0).all()
    below = curve[0] - np.concatenate([[0.0], np.cumsum(slopes[1:])])
    assert (below <= curve + 1e-9).all()
    assert below[-1] == pytest.approx(curve[-1], abs=1e-9)
    for place in range(
        len(curve)
    ):  # the greatest one touches the line between two points of the curve
        chords = [
            curve[a] + (curve[b] - curve[a]) * (place - a) / max(1, b - a)
            for a in range(place + 1)
            for b in range(place, len(curve))
        ]
        assert below[place] == pytest.approx(min(chords), abs=1e-9)


def test_noise_adds_up_over_layers() -> None:
    assert noise([np.array([0.5, 1.0]), np.array([0.25, 1.0])], 2).tolist() == [4.0, 0.0]
    assert noise([np.array([0.0])], 1).tolist() == [999.0]
    assert noise([], 2).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("share", [0.7, 0.3])
def test_widths_hold_the_limits_and_favour_what_is_worth_most(share: float) -> None:
    spec = traced("residual")[1]
    problem = problem_of(spec, share, share)
    most = spec.vector(spec.dense_widths())
    for favourite in range(len(most)):
        worth = [
            worths(np.arange(int(width), 0, -1.0) * (1e6 if group == favourite else 1.0))
            for group, width in enumerate(most)
        ]
        widths = allotted(problem, most, worth, 1.0)
        assert problem.fits(widths)
        assert widths[favourite] == most[favourite] or (np.delete(widths, favourite) == 1.0).all()
        for group in np.flatnonzero(widths < most):
            assert not problem.fits(widths + (np.arange(len(most)) == group))
        half = np.sqrt(problem.load(most))
        between = allotted(problem, most, worth, half)
        assert problem.load(between) <= half
        assert (between >= widths).all() or between.sum() >= widths.sum()


@pytest.mark.parametrize(
    "name",
    ["residual", "inverted_residual", "dense_concat", "resnext", "flatten", "deconv_decoder"],
)
def test_readers_tell_the_unit_of_each_input(name: str) -> None:
    """Masking a unit zeroes just the inputs that are said to be its own."""
    model, spec = traced(name)
    for place, group in enumerate(spec.prunable):
        found = readers(spec, group)
        assert found
        alive = [np.ones(other.width, dtype=bool) for other in spec.prunable]
        alive[place][[0, group.width - 1]] = False
        gone = UnitTable(spec).masks(alive)
        assert {reader.parameter for reader in found} == set(gone)
        for reader in found:
            units = reader.units(model)
            expected = (units != 0) & (units != group.width - 1)
            assert torch.equal(reader.allowed(model, gone), expected)
            weight = reader.matrix(
                model, model.get_parameter(reader.parameter) * gone[reader.parameter]
            )
            assert not weight.mT[~expected].any()
            assert weight.mT[expected].abs().sum(1).all()


@pytest.mark.parametrize(
    "name", ["residual", "inverted_residual", "concat_twice", "grouped", "shared"]
)
@pytest.mark.parametrize("share", [0.8, 0.25])
def test_the_budget_holds_and_no_room_is_left(name: str, share: float) -> None:
    problem = problem_of(traced(name)[1], share)
    model, solution = net(name, share)
    widths = problem.spec.vector(check_solution(model, problem, solution))
    most = problem.spec.vector(problem.spec.dense_widths())
    for group in np.flatnonzero(widths < most):
        assert not problem.fits(widths + (np.arange(len(most)) == group))


@pytest.mark.parametrize("sweeps", [1, 3])
def test_two_limits_hold_at_once(sweeps: int) -> None:
    problem = problem_of(traced("residual")[1], 0.5, 0.35)
    solver = EapChannelsSolver(EapChannelsConfig(images=24, sweeps=sweeps))
    model, solution = solved(solver, "residual", problem, 6, held_out=0)
    check_solution(model, problem, solution)


def outputs(model: torch.nn.Module, layer: str, pixels: torch.Tensor) -> torch.Tensor:
    """Return what a layer gives."""
    given: List[torch.Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda m, i, y: given.append(y.detach())
    )
    with torch.no_grad():
        model.eval()(pixels)
    handle.remove()
    return given[0]


def test_a_fit_brings_outputs_nearer_to_those_of_the_dense_network() -> None:
    model, reference, spec = dense("plain"), dense("plain"), traced("plain")[1]
    pixels = images(5).images[:24]
    problem = problem_of(spec, 0.5)
    sweeper = Sweeper(problem, reference, Sample(pixels, 0), 0.3)
    alive = [np.ones(group.width, dtype=bool) for group in spec.prunable]
    kept = sweeper.sweep_(model, alive, 1.0)
    unfitted = dense("plain")
    with torch.no_grad():
        for name, mask in UnitTable(spec).masks(kept).items():
            unfitted.get_parameter(name).mul_(mask)
    wanted = outputs(reference, "fc", pixels)
    far, near = ((outputs(m, "fc", pixels) - wanted).square().sum() for m in (unfitted, model))
    assert near < 0.7 * far


def test_groups_are_visited_by_the_load_they_carry() -> None:
    spec = traced("residual")[1]
    problem = problem_of(spec, 0.5)
    most = spec.vector(spec.dense_widths())
    carried = [
        problem.load(most) - problem.load(np.where(np.arange(len(most)) == group, 1.0, most))
        for group in by_load(problem)
    ]
    assert carried == sorted(carried, reverse=True)
    assert sorted(by_load(problem)) == list(range(len(most)))


def test_sweeps_are_spread_over_the_steps_and_the_first_step_moves_no_weight() -> None:
    costs = [
        step.cost for step in net(steps=9, config=EapChannelsConfig(images=24, sweeps=3))[1].history
    ]
    assert [costs.index(cost) for cost in sorted(set(costs), reverse=True)] == [0, 3, 6]
    untrained = net(steps=0)
    assert untrained[1].status == "cut_without_training"
    one = net(steps=1)
    assert {k: v.tolist() for k, v in one[1].keep.items()} == {
        k: v.tolist() for k, v in untrained[1].keep.items()
    }
    few = net(steps=2, config=EapChannelsConfig(images=24, sweeps=5))
    assert [solution.left for _, solution in (untrained, one, few, net(steps=9))] == [0, 0, 0, 8]
    check_solution(few[0], problem_of(traced("residual")[1], 0.5), few[1])


def test_the_same_seed_gives_the_same_run() -> None:
    check_same(net(), net())


@pytest.mark.parametrize("at", [1, 3])
def test_a_killed_run_resumes_exactly(tmp_path: Path, at: int) -> None:
    config = EapChannelsConfig(images=24, sweeps=2)
    saving = Checkpointing(tmp_path / "phase", 1e-9, tmp_path / "search")
    steps: List[int] = []

    def die(phase: str, step: Step) -> None:
        steps.append(step.step)
        if len(steps) == at + 1:
            raise Killed

    with pytest.raises(Killed):
        net(steps=8, config=config, checkpointing=saving, on_step=die)
    resumed = net(steps=8, config=config, checkpointing=saving, on_step=die)
    assert steps[at + 1] == at + 1
    check_same(resumed, net(steps=8, config=config))


def test_layers_whose_product_is_not_known_are_pruned_and_not_fitted() -> None:
    class Odd(torch.nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).mul(2.0)

    model, spec = dense("plain"), traced("plain")[1]
    odd = Odd(model.c2.in_channels, model.c2.out_channels, model.c2.kernel_size, padding=1)
    odd.load_state_dict(model.c2.state_dict())
    model.c2 = odd
    before = odd.weight.detach().clone()
    sweeper = Sweeper(problem_of(spec, 0.1), dense("plain"), Sample(images(5).images[:24], 0), 0.3)
    kept = sweeper.sweep_(model, [np.ones(g.width, dtype=bool) for g in spec.prunable], 1.0)
    assert problem_of(spec, 0.1).fits(np.array([living.sum() for living in kept], dtype=float))
    assert torch.equal(odd.weight.detach(), before * UnitTable(spec).masks(kept)["c2.weight"])
    norms = before.square().sum((0, 2, 3)).numpy()
    assert norms[kept[0]].min() >= norms[~kept[0]].max()


def test_an_infeasible_budget_is_refused_before_anything_is_sampled() -> None:
    class Never:
        model = traced("residual")[0]

    with pytest.raises(BudgetInfeasibleError):
        EapChannelsSolver(SMALL).solve(problem_of(traced("residual")[1], 1e-6), Never(), 10)


def test_a_budget_of_dense_changes_nothing() -> None:
    model, solution = net(share=1.0)
    assert solution.status == "already_within"
    before = traced("residual")[0].state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before))


@pytest.mark.parametrize("wrong", [{"images": 0}, {"sweeps": 0}, {"beyond": 1.0}])
def test_settings_are_checked(wrong: Dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        EapChannelsConfig(**wrong)
