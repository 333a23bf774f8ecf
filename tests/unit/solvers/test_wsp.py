"""Weighted sparse projection on a small network: schedule, budget, revival, resume."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from edgeecc.config import TrainConfig, WspConfig
from edgeecc.cost.hardware import EYERISS
from edgeecc.cost.systolic import network_energy, shapes_of, weight_cost
from edgeecc.data.sources import load
from edgeecc.errors import BudgetInfeasibleError, ConfigError
from edgeecc.graph.trace import trace
from edgeecc.pattern import Pattern
from edgeecc.solvers.projection import LayerCost
from edgeecc.solvers.sparse import FixedWeights, SparseLayer, SparseProblem
from edgeecc.solvers.wsp import WspHooks
from edgeecc.training.loop import Checkpointing, TorchTrainer
from tests.trained import on_digits

#: As published.
PLAIN = WspConfig(metric="magnitude", ramp=1.0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.fc = nn.Linear(256, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.c2(torch.relu(self.c1(x)))).flatten(1))


@pytest.fixture(scope="module")
def digits() -> object:
    return load("digits", input_shape=(1, 8, 8))


@pytest.fixture(scope="module")
def dense(digits: object) -> nn.Module:
    return on_digits(Net(), digits)


def problem_of(
    model: nn.Module, share: float, pattern: Pattern | None = None
) -> tuple[SparseProblem, float, tuple]:
    shapes = shapes_of(trace(model, (torch.zeros(1, 1, 8, 8),)))
    energies = network_energy(shapes, EYERISS, exact=False)
    total = sum(energy.total for energy in energies)
    layers = tuple(
        SparseLayer(
            f"{s.name}.weight",
            LayerCost(*weight_cost(s, EYERISS), EYERISS.weight_words),
            pattern if pattern is not None and s.can_have(pattern) else None,
        )
        for s in shapes
    )
    fixed = sum(energy.inputs for energy in energies)

    def exact(keep: Sequence[np.ndarray]) -> float:
        weights = {s.name: stays for s, stays in zip(shapes, keep)}
        return sum(energy.total for energy in network_energy(shapes, EYERISS, weights=weights))

    return SparseProblem(layers, fixed, share * total, 0, exact), total, shapes


def patterns(model: nn.Module, shapes: tuple) -> dict:
    weights = dict(model.named_parameters())
    return {s.name: (weights[f"{s.name}.weight"] != 0).numpy() for s in shapes}


def trainer(
    model: nn.Module,
    data: object,
    folder: Path | None = None,
    lr: float = 1e-3,
    optimizer: str = "adam",
) -> TorchTrainer:
    checkpointing = Checkpointing(folder / "c.safetensors", 0.0) if folder else None
    config = TrainConfig(batch_size=64, lr=lr, optimizer=optimizer)
    return TorchTrainer(model, data.train, data.val, config=config, checkpointing=checkpointing)


@pytest.mark.parametrize("share", [0.7, 0.5])
@pytest.mark.parametrize("config", [PLAIN, WspConfig()])
@pytest.mark.parametrize("by_cost", [True, False])
def test_the_budget_holds_in_the_exact_model(
    dense: nn.Module, digits: object, share: float, config: WspConfig, by_cost: bool
) -> None:
    model = copy.deepcopy(dense)
    problem, total, shapes = problem_of(model, share)
    problem.check_feasible(total)
    work = trainer(model, digits)
    hooks = WspHooks(lambda: problem, config, by_cost=by_cost)
    history = work.train("wsp", 45, hooks)
    weights = patterns(model, shapes)
    relaxed = sum(e.total for e in network_energy(shapes, EYERISS, weights=weights, exact=False))
    exact = sum(e.total for e in network_energy(shapes, EYERISS, weights=weights))
    assert exact <= problem.bound
    assert exact < relaxed  # padding is not paid for
    assert exact == pytest.approx(history[-1].cost)
    assert exact >= 0.99 * problem.bound  # nothing that the budget pays for is thrown away
    assert work.evaluate() > work.dense_scores()["top-1"] - 0.1


@pytest.mark.parametrize("share", [1.0, 0.6, 0.5])
def test_the_budget_and_the_pattern_hold_together(
    dense: nn.Module, digits: object, share: float
) -> None:
    model, pattern = copy.deepcopy(dense), Pattern(2, 4)
    problem, _, shapes = problem_of(model, share, pattern)
    assert [layer.pattern for layer in problem.layers] == [None, pattern, pattern]
    assert not problem.is_met_by(model)
    work = trainer(model, digits)
    history = work.train("wsp", 45, WspHooks(lambda: problem, PLAIN))
    assert problem.is_met_by(model)
    assert history[-1].cost == pytest.approx(problem.cost_of(model))
    weights = patterns(model, shapes)
    assert all(pattern.holds(weights[name]) for name in ("c2", "fc"))
    assert not pattern.holds(np.repeat(weights["c1"], 4, axis=1))  # the first layer is free
    work.train("finetune", 20, FixedWeights(problem, model))
    assert problem.is_met_by(model)
    assert work.evaluate() > work.dense_scores()["top-1"] - 0.05


def test_the_budget_falls_by_one_factor_a_projection(dense: nn.Module, digits: object) -> None:
    model = copy.deepcopy(dense)
    problem, total, _ = problem_of(model, 0.6)
    costs = [
        step.cost
        for step in trainer(model, digits).train("wsp", 40, WspHooks(lambda: problem, PLAIN))
    ]
    dense_cost = problem.cost_of(dense)
    assert dense_cost < total
    assert costs[:9] == [pytest.approx(dense_cost)] * 9
    reached = np.array(costs[9::10])
    expected = dense_cost * (problem.bound / dense_cost) ** (np.arange(1, 5) / 4)
    np.testing.assert_allclose(reached, expected, rtol=5e-3)


def test_a_ramp_leaves_the_rest_to_recover(dense: nn.Module, digits: object) -> None:
    model = copy.deepcopy(dense)
    problem, _, _ = problem_of(model, 0.6)
    hooks = WspHooks(lambda: problem, WspConfig(ramp=0.5))
    costs = [step.cost for step in trainer(model, digits).train("wsp", 40, hooks)]
    assert costs[18] > 1.05 * problem.bound
    assert max(costs[19:]) <= problem.bound


def test_what_goes_depends_less_on_the_scale_of_a_layer(dense: nn.Module, digits: object) -> None:
    """One layer scaled up and the next down compute the same."""
    scaled = copy.deepcopy(dense)
    with torch.no_grad():
        for parameter, factor in (
            (scaled.c1.weight, 30.0), (scaled.c1.bias, 30.0), (scaled.c2.weight, 1.0 / 30.0)
        ):  # fmt: skip
            parameter.mul_(factor)
    kept: dict[str, list[float]] = {"adam": [], "magnitude": []}
    images, labels = digits.train.take(range(512))
    for metric, shares in kept.items():
        for start in (dense, scaled):
            model = copy.deepcopy(start)
            problem, _, _ = problem_of(model, 0.5)
            hooks = WspHooks(lambda problem=problem: problem, WspConfig(metric=metric))
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            hooks.after_backward(model)
            hooks.after_step(model, torch.optim.SGD(model.parameters(), lr=0.1), 1, 1)
            shares.append(float((model.c1.weight != 0).float().mean()))
    change = {metric: abs(scaled_up - plain) for metric, (plain, scaled_up) in kept.items()}
    assert change["adam"] < 0.8 * change["magnitude"]


def test_a_weight_may_return(dense: nn.Module, digits: object) -> None:
    model = copy.deepcopy(dense)
    problem, _, shapes = problem_of(model, 0.5)
    hooks = WspHooks(lambda: problem, WspConfig(metric="magnitude", interval=60))
    trainer(model, digits).train("wsp", 20, hooks)
    first = patterns(model, shapes)
    trainer(model, digits, lr=2e-2).train("more", 60, hooks)
    second = patterns(model, shapes)
    assert any((second[name] & ~first[name]).any() for name in first)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_killed_phase_goes_on_exactly(
    dense: nn.Module, digits: object, tmp_path: Path, optimizer: str
) -> None:
    whole, part = copy.deepcopy(dense), copy.deepcopy(dense)
    problem, _, _ = problem_of(whole, 0.5)
    undisturbed = trainer(whole, digits, optimizer=optimizer)
    undisturbed.train("wsp", 25, WspHooks(lambda: problem, WspConfig()))

    class KillError(Exception):
        pass

    class Dying(WspHooks):
        def after_backward(self, model: nn.Module) -> None:
            super().after_backward(model)
            self.seen = getattr(self, "seen", 0) + 1
            if self.seen == 14:
                raise KillError

    dying = trainer(part, digits, tmp_path, optimizer=optimizer)
    with pytest.raises(KillError):
        dying.train("wsp", 25, Dying(lambda: problem, WspConfig()))
    again = copy.deepcopy(dense)
    work = trainer(again, digits, tmp_path, optimizer=optimizer)
    history = work.train("wsp", 25, WspHooks(lambda: problem, WspConfig()))
    assert len(history) == 25
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values())
    )


def test_a_budget_below_the_inputs_is_refused(dense: nn.Module) -> None:
    problem, total, _ = problem_of(dense, 0.01)
    with pytest.raises(
        BudgetInfeasibleError, match=r"1.0% of dense is below .* lowest that can be met is [\d.]+%"
    ):
        problem.check_feasible(total)
    with pytest.raises(BudgetInfeasibleError) as caught:
        problem.check_feasible(total)
    share = float(str(caught.value).rsplit(" ", 1)[1].rstrip("%")) / 100.0
    feasible, _, _ = problem_of(dense, share)
    feasible.check_feasible(total)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"interval": 0}, "interval 0 must be at least 1"),
        ({"ramp": 0.0}, r"ramp 0.0 must lie in \(0, 1\]"),
        ({"metric": "taylor"}, "unknown metric 'taylor'; known are adam, magnitude"),
        ({"mask_schedule": "once"}, "unknown mask schedule 'once'"),
        ({"rounds": 10}, "rounds 10 must lie in 1..9"),
        ({"sweeps": 0}, "sweeps 0 must be at least 1"),
    ],
)
def test_a_wrong_setting_is_refused(setting: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        WspConfig(**setting)
