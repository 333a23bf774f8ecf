"""Energy-aware pruning on a small network: budgets, zeros, order, local fit, resume."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from edgeecc.config import TrainConfig
from edgeecc.data.sources import load
from edgeecc.errors import ConfigError
from edgeecc.solvers import allocation, eap, moments
from edgeecc.solvers.allocation import targets
from edgeecc.solvers.eap import EapHooks, Teacher, pruned, sweep_
from edgeecc.solvers.moments import mean_squares
from edgeecc.solvers.projection import LayerCost
from edgeecc.solvers.reference import Reference
from edgeecc.solvers.sample import Sample
from edgeecc.solvers.sparse import FixedWeights, SparseLayer, SparseProblem
from edgeecc.solvers.unfold import columns, matrix, outputs
from edgeecc.training.loop import Checkpointing, TorchTrainer
from tests.trained import on_digits

#: Layer -> price of a weight in and out of the cache, by descending energy.
PRICES = {"fc": (210.0, 210.0), "c2": (130.0, 190.0), "dw": (300.0, 300.0), "c1": (500.0, 500.0)}
ORDER = tuple(f"{name}.weight" for name in PRICES)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 8, 3, padding=1)
        self.dw = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.c2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.fc = nn.Linear(256, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.dw(torch.relu(self.c1(x)))))
        return self.fc(torch.relu(self.c2(x)).flatten(1))


@pytest.fixture(scope="module")
def digits() -> object:
    return load("digits", input_shape=(1, 8, 8))


@pytest.fixture(scope="module")
def dense(digits: object) -> nn.Module:
    return on_digits(Net(), digits).eval()


@pytest.fixture(scope="module")
def images(digits: object) -> torch.Tensor:
    return digits.train.images[:200]


def problem_of(model: nn.Module, share: float) -> SparseProblem:
    layers = tuple(
        SparseLayer(f"{name}.weight", LayerCost(*price, 512)) for name, price in PRICES.items()
    )
    whole = SparseProblem(layers, 10_000.0, 1.0, 0).cost_of(model)
    return SparseProblem(layers, 10_000.0, share * whole, 0)


def teacher(dense: nn.Module, images: torch.Tensor) -> Teacher:
    return Teacher(dense, Sample(images, 0), ORDER)


def trainer(model: nn.Module, data: object, folder: Path | None = None) -> TorchTrainer:
    checkpointing = Checkpointing(folder / "c.safetensors", 0.0) if folder else None
    config = TrainConfig(batch_size=64, lr=1e-3)
    return TorchTrainer(model, data.train, data.val, config=config, checkpointing=checkpointing)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def zeros(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: model.get_parameter(name).detach() == 0 for name in ORDER}


@pytest.mark.parametrize("share", [0.7, 0.4, 0.2])
def test_a_sweep_holds_the_budget_and_spends_it(
    dense: nn.Module, images: torch.Tensor, share: float
) -> None:
    model, problem = copy.deepcopy(dense), problem_of(dense, share)
    kept = sweep_(problem, model, teacher(dense, images), problem.bound)
    assert 0.98 * problem.bound <= problem.cost_of(model) <= problem.bound
    for name, gone in zeros(model).items():
        assert torch.equal(kept[name], ~gone)


def test_a_sweep_beats_cutting_by_magnitude(
    dense: nn.Module, images: torch.Tensor, digits: object
) -> None:
    swept, cut, problem = copy.deepcopy(dense), copy.deepcopy(dense), problem_of(dense, 0.2)
    sweep_(problem, swept, teacher(dense, images), problem.bound)
    problem.project_(cut)
    got, plain = (trainer(model, digits).evaluate() for model in (swept, cut))
    assert got > plain + 0.1


def test_budgets_fall_by_one_factor_a_sweep(
    dense: nn.Module, images: torch.Tensor, digits: object
) -> None:
    model, problem = copy.deepcopy(dense), problem_of(dense, 0.4)
    start = problem.cost_of(model)
    hooks = EapHooks(problem, dense, images, order=ORDER, sweeps=3)
    costs = np.array([step.cost for step in trainer(model, digits).train("eap", 9, hooks)])
    budgets = start * 0.4 ** (np.array([1, 1, 1, 2, 2, 2, 3, 3, 3]) / 3)
    assert (costs <= budgets * (1 + 1e-12)).all()
    np.testing.assert_allclose(costs, budgets, rtol=0.02)
    assert problem.cost_of(model) == costs[-1] <= problem.bound


def test_zeros_stay_between_sweeps(dense: nn.Module, images: torch.Tensor, digits: object) -> None:
    model, problem = copy.deepcopy(dense), problem_of(dense, 0.4)
    seen, sweeps = [], []

    class Watching(EapHooks):
        def after_step(self, model, optimizer, step, steps):
            values = super().after_step(model, optimizer, step, steps)
            seen.append(zeros(model))
            if self.sweep_at(step, steps):
                sweeps.append(step)
            return values

    hooks = Watching(problem, dense, images, order=ORDER, sweeps=2)
    trainer(model, digits).train("eap", 12, hooks)
    assert sweeps == [1, 7]
    for name in ORDER:
        assert all(torch.equal(seen[0][name], step[name]) for step in seen[:6])
        assert all(torch.equal(seen[6][name], step[name]) for step in seen[6:])
    trainer(model, digits).train("finetune", 5, FixedWeights(problem, model))
    assert all(torch.equal(seen[-1][name], gone) for name, gone in zeros(model).items())


def test_more_sweeps_than_steps_end_at_the_bound(
    dense: nn.Module, images: torch.Tensor, digits: object
) -> None:
    model, problem = copy.deepcopy(dense), problem_of(dense, 0.5)
    hooks = EapHooks(problem, dense, images[:40], order=ORDER, sweeps=9)
    trainer(model, digits).train("eap", 2, hooks)
    assert problem.cost_of(model) <= problem.bound


def test_layers_go_in_order_and_see_what_went_before(
    dense: nn.Module, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, problem = copy.deepcopy(dense), problem_of(dense, 0.4)
    order, untouched, honest = ORDER[::-1], [], moments.moments

    def spy(model: nn.Module, reference: Reference, layers: Sequence[str]) -> object:
        now = zeros(model)
        (name,) = layers
        untouched.append((f"{name}.weight", [key for key in order if not now[key].any()]))
        return honest(model, reference, layers)

    monkeypatch.setattr(eap, "moments", spy)
    sweep_(problem, model, Teacher(dense, Sample(images, 0), order), problem.bound)
    assert untouched == [(name, list(order[at:])) for at, name in enumerate(order)]


@pytest.mark.parametrize("name", [name.rpartition(".")[0] for name in ORDER])
def test_local_fit_lessens_the_error_of_the_output(
    dense: nn.Module, images: torch.Tensor, name: str
) -> None:
    sample, problem = Sample(images, 0), problem_of(dense, 0.3)
    target = targets(problem, dense, sample, problem.bound)[f"{name}.weight"]
    module = dense.get_submodule(name)
    found = moments.moments(dense, Reference(dense, [name], sample), [name])[name]
    weight = matrix(module, module.weight.detach()).double()
    count = matrix(module, target).sum(2)
    rank = weight.abs().argsort(dim=2, descending=True).argsort(dim=2)
    plain = weight * (rank < count.unsqueeze(2))
    fitted, support = pruned(found, weight, count)
    assert torch.equal(support.sum(2), count)
    assert float(found.errors(fitted).sum()) < float(found.errors(plain).sum())


def test_the_split_makes_lost_over_kept_output_small(
    dense: nn.Module, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, sample = problem_of(dense, 0.2), Sample(images, 0)
    squares = mean_squares(dense, list(PRICES), sample)

    def lost_over_kept(rounds: int) -> float:
        monkeypatch.setattr(allocation, "ROUNDS", rounds)
        total = 0.0
        for name, keep in targets(problem, dense, sample, problem.bound).items():
            module = dense.get_submodule(name.rpartition(".")[0])
            weight = matrix(module, module.weight.detach().double())
            share = weight.square() * squares[name.rpartition(".")[0]]
            total += float(share.sum() / (share * matrix(module, keep)).sum()) - 1.0
        return total

    plain, settled, longer = (lost_over_kept(rounds) for rounds in (0, 8, 60))
    assert settled < 0.99 * plain
    assert settled < 1.01 * longer


def test_a_killed_phase_goes_on_exactly(
    dense: nn.Module, images: torch.Tensor, digits: object, tmp_path: Path
) -> None:
    problem = problem_of(dense, 0.4)

    class KillError(Exception):
        pass

    class Dying(EapHooks):
        def after_backward(self, model: nn.Module) -> None:
            super().after_backward(model)
            self.seen = getattr(self, "seen", 0) + 1
            if self.seen == 5:
                raise KillError

    def go(kind: type, folder: Path | None = None) -> nn.Module:
        model = copy.deepcopy(dense)
        hooks = kind(problem, dense, images[:64], order=ORDER, sweeps=3)
        assert len(trainer(model, digits, folder).train("eap", 9, hooks)) == 9
        return model

    whole = go(EapHooks)
    with pytest.raises(KillError):
        go(Dying, tmp_path)
    assert same(whole, go(EapHooks, tmp_path))


def test_networks_are_left_as_they_were(dense: nn.Module, images: torch.Tensor) -> None:
    model, reference, problem = copy.deepcopy(dense), copy.deepcopy(dense), problem_of(dense, 0.5)
    model.train()
    model.bn.eval()
    sweep_(problem, model, teacher(reference, images[:70]), problem.bound)
    assert same(reference, dense)
    assert torch.equal(model.bn.running_mean, dense.bn.running_mean)
    assert torch.equal(model.c1.bias, dense.c1.bias)
    assert model.training
    assert model.fc.training
    assert not model.bn.training
    assert not any(module._forward_hooks for module in [*model.modules(), *reference.modules()])


def test_hooks_are_gone_after_an_error(dense: nn.Module) -> None:
    model, problem = copy.deepcopy(dense).train(), problem_of(dense, 0.5)
    with pytest.raises(RuntimeError):
        sweep_(problem, model, teacher(dense, torch.zeros(4, 3, 8, 8)), problem.bound)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_moments_are_the_sums_over_all_positions(
    dense: nn.Module, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeecc.solvers.sample.POSITIONS", 64)
    monkeypatch.setattr("edgeecc.solvers.sample.IMAGES", 30)
    model = copy.deepcopy(dense)
    with torch.no_grad():
        model.c1.weight.mul_(0.5)
        model.c2.bias.add_(1.0)
        inside = {}
        for key, net in (("now", model), ("then", dense)):
            x = torch.relu(net.bn(net.dw(torch.relu(net.c1(images)))))
            inside[key] = (x, net.c2(x))
    found = moments.moments(model, Reference(dense, ["c2"], Sample(images, 0)), ["c2"])["c2"]
    x = columns(model.c2, inside["now"][0]).double()
    y = outputs(model.c2, inside["then"][1]).double() - model.c2.bias.detach()
    torch.testing.assert_close(found.gram, x.mT @ x, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(found.cross, x.mT @ y, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(found.energy, y.square().sum(1), rtol=1e-5, atol=1e-3)
    got = mean_squares(model, ["c2"], Sample(images, 0))["c2"]
    torch.testing.assert_close(got, x.square().mean(1, keepdim=True), rtol=1e-5, atol=1e-6)


class Odd(nn.Module):
    """A linear layer of an unknown kind, and one that is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.known, self.unread = nn.Linear(64, 16), nn.Linear(16, 16, bias=False)
        self.unknown = nn.Bilinear(16, 2, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.known(x.flatten(1))) @ self.unread.weight.T
        return self.unknown(x, x[:, :2])


def test_a_layer_without_moments_is_pruned_by_saliency_only(images: torch.Tensor) -> None:
    dense = Odd()
    model = copy.deepcopy(dense)
    names = ("known.weight", "unknown.weight", "unread.weight")
    layers = tuple(SparseLayer(name, LayerCost(1.0, 1.0, 0)) for name in names)
    problem = SparseProblem(layers, 0.0, 700.0, 0)
    sweep_(problem, model, Teacher(dense, Sample(images, 0), names), problem.bound)
    assert 690 <= problem.cost_of(model) <= 700
    for name in names[1:]:
        before, after = dense.get_parameter(name), model.get_parameter(name)
        stays = after != 0
        assert 0 < int(stays.sum()) < stays.numel()
        assert torch.equal(after[stays], before[stays])
        assert before[stays].abs().min() >= before[~stays].abs().max()


def test_what_makes_no_sense_is_refused(dense: nn.Module, images: torch.Tensor) -> None:
    problem = problem_of(dense, 0.5)
    with pytest.raises(ConfigError, match=r"every layer of the problem once; c1.weight is in one"):
        EapHooks(problem, dense, images, order=ORDER[:-1])
    with pytest.raises(ConfigError, match="a layer is named twice"):
        EapHooks(problem, dense, images, order=(*ORDER, ORDER[0]))
    with pytest.raises(ConfigError, match="0 sweeps prune nothing"):
        EapHooks(problem, dense, images, order=ORDER, sweeps=0)
    with pytest.raises(ConfigError, match="needs images"):
        EapHooks(problem, dense, images[:0], order=ORDER)
    other = copy.deepcopy(dense)
    other.c1.stride = (2, 2)
    other.c2.stride = (1, 1)
    with pytest.raises(ConfigError, match=r"c1 gives .* in the dense network; give its copy"):
        moments.moments(dense, Reference(other, ["c1"], Sample(images, 0)), ["c1"])


def test_the_state_says_what_stays(dense: nn.Module, images: torch.Tensor) -> None:
    problem = problem_of(dense, 0.5)
    hooks = EapHooks(problem, dense, images[:20], order=ORDER, sweeps=2)
    fresh = hooks.state()["eap"].tolist()
    assert all(math.isnan(value) for value in fresh)
    model = copy.deepcopy(dense)
    hooks.after_backward(model)
    hooks.after_step(model, torch.optim.Adam(model.parameters()), 1, 4)
    again = EapHooks(problem, dense, images[:20], order=ORDER)
    again.load_state(hooks.state())
    assert {name: value.tolist() for name, value in again.state().items()} == {
        name: value.tolist() for name, value in hooks.state().items()
    }
