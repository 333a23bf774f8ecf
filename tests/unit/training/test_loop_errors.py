"""What stops a phase of training, each in one line before or at the step where it shows."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
import torch
from torch import nn

from edgeecc.artifacts import read_tensors, write_tensors
from edgeecc.config import CalibrateConfig, EccConfig, TrainConfig
from edgeecc.cost.exact import mac_cost
from edgeecc.data.splits import TensorSplit
from edgeecc.errors import ArtifactError, ConfigError, DataError
from edgeecc.graph.spec import NetworkSpec
from edgeecc.graph.trace import trace
from edgeecc.networks.table import build
from edgeecc.solvers.base import Limit, Problem, Solution, Step
from edgeecc.solvers.finetune import FixedPattern
from edgeecc.solvers.table import make_solver
from edgeecc.training.classification import CLASSIFICATION
from edgeecc.training.compute import PLAIN
from edgeecc.training.dense import initialise_
from edgeecc.training.evaluate import top1
from edgeecc.training.loop import Checkpointing, TorchTrainer
from edgeecc.training.parallel import ALONE
from edgeecc.training.step import Stepper


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    model = build("digits_mobilenet", width=0.05)
    initialise_(model, 0)
    return model


def split(labels: int = 10) -> TensorSplit:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn((48, 1, 8, 8), generator=generator)
    return TensorSplit(images, torch.randint(0, labels, (48,), generator=generator))


def spec_of(model: nn.Module) -> NetworkSpec:
    return trace(model, (torch.zeros(1, 1, 8, 8),), network="digits")


def problem_of(model: nn.Module, share: float = 0.5) -> Problem:
    spec = spec_of(model)
    cost = mac_cost(spec)
    return Problem(spec, (Limit(cost, share * cost.predict(spec.vector(spec.dense_widths()))),), 0)


def solve(
    model: nn.Module, *, metric: str = "taylor", steps: int = 4, batch: int = 16, method: str = "ecc"
) -> Solution:  # fmt: skip
    trainer = TorchTrainer(model, split(), split(), config=TrainConfig(batch_size=batch, lr=1e-3))
    solver = make_solver(method, EccConfig(metric=metric) if method == "ecc" else None)
    return solver.solve(problem_of(model), trainer, steps)


@pytest.mark.parametrize("metric", ["taylor", "adam"])
def test_a_frozen_reader_of_channels_is_named(dense: nn.Module, metric: str) -> None:
    model = copy.deepcopy(dense)
    model.pw[2].requires_grad_(False)
    with pytest.raises(ConfigError, match=r"pw.2.conv.weight gets no gradient.*--method uniform"):
        solve(model, metric=metric)
    assert solve(model, metric=metric, method="uniform").status == "converged"


def test_a_network_frozen_whole_is_refused(dense: nn.Module) -> None:
    model = copy.deepcopy(dense).requires_grad_(False)
    with pytest.raises(ConfigError, match="every weight of the network is frozen"):
        solve(model)


def test_batch_norm_on_one_value_is_one_line(dense: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"on a batch of 1: Expected more.*--batch-size"):
        solve(copy.deepcopy(dense), batch=1)


def test_labels_beyond_the_network_are_told(dense: nn.Module) -> None:
    model = copy.deepcopy(dense)
    trainer = TorchTrainer(model, split(99), split(99), config=TrainConfig(batch_size=16))
    pattern = FixedPattern(problem_of(model), spec_of(model).keep_all())
    with pytest.raises(DataError, match=r"label \d+, the network tells 0..9"):
        trainer.train("finetune", 1, pattern)
    with pytest.raises(DataError, match=r"label \d+, the network tells 0..9"):
        top1(model, split(99))


@pytest.mark.parametrize("metric", ["taylor", "adam"])
def test_without_steps_the_largest_norms_stay(dense: nn.Module, metric: str) -> None:
    """No step, no importance: norms must not leave the first groups at one channel in turn."""
    model = copy.deepcopy(dense)
    solution = solve(model, metric=metric, steps=0)
    assert solution.status.startswith("cut_")
    widths = [len(solution.keep[group.name]) for group in spec_of(model).prunable]
    assert sum(width > 1 for width in widths) >= len(widths) - 2
    if metric == "taylor":
        norms = model.pw[4].conv.weight.detach().pow(2).sum((0, 2, 3))
        kept = solution.keep[spec_of(model).prunable[4].name]
        lost = [unit for unit in range(len(norms)) if unit not in set(kept.tolist())]
        assert not lost or norms[kept].min() >= norms[lost].max()


@pytest.mark.parametrize(
    "wrong", [{"seed": -1}, {"seed": 2**32}, {"lr": float("nan")}, {"lr": float("inf")}, {"weight_decay": float("nan")}]
)  # fmt: skip
def test_settings_that_no_generator_or_step_takes_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        TrainConfig(**wrong)


@pytest.mark.parametrize("name", ["rho1", "rho2", "epsilon", "beta"])
def test_penalties_must_be_finite(name: str) -> None:
    for value in (float("nan"), float("inf"), 0.0):
        with pytest.raises(ConfigError, match="must be positive"):
            EccConfig(**{name: value})


def test_a_pace_below_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="pace -1 must be at least 0"):
        EccConfig(pace=-1)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_calibration_of_no_seed_is_refused(seed: int) -> None:
    with pytest.raises(ConfigError, match=f"seed {seed} must lie in 0..4294967295"):
        CalibrateConfig(seed=seed)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_ends_ecc_with_one_line(
    dense: nn.Module, wrong: float
) -> None:
    """The loss of that batch is finite, and a round follows before the next one is known."""
    model = copy.deepcopy(dense)
    seen: List[int] = []

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        return gradient * wrong if len(seen) == 3 else gradient

    model.pw[2].conv.weight.register_hook(spoil)
    trainer = TorchTrainer(model, split(), split(), config=TrainConfig(batch_size=16, lr=1e-3))
    with pytest.raises(ConfigError, match=r"gradients are not finite .* of the way .*; lower --lr"):
        make_solver("ecc", EccConfig()).solve(problem_of(model), trainer, 6)


def test_a_layer_without_a_part_in_a_step_of_several_processes_is_told(
    dense: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = copy.deepcopy(dense)
    stepper = Stepper(model, copy.deepcopy(dense), CLASSIFICATION, compute=PLAIN, world=ALONE)

    def shared(images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("Expected to have finished reduction in the prior iteration before")

    monkeypatch.setattr(stepper, "_shared", shared)
    with pytest.raises(ConfigError, match="took no part in the last step.*in one process"):
        stepper.gradients_(
            torch.optim.Adam(model.parameters()), split().take([0, 1]), 0.5, "step 2"
        )


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metadata.done": "-3"}, "-3 of 6 steps are done"),
        ({"metadata.done": "1000"}, "1000 of 6 steps are done"),
        ({"metadata.done": "x"}, "invalid literal"),
        ({"hooks.alive.0": np.ones(99, dtype=bool)}, "of other groups"),
        ({"hooks.alive.0": None}, "alive.0"),
        ({"hooks.alive.0": 0}, "no living unit"),
        ({"hooks.z": np.zeros(3)}, "of another problem"),
        ({"hooks.s": np.zeros(1)}, "of another problem"),
        ({"optimizer.exp_avg.stem.conv.weight": np.zeros(3, dtype=np.float32)}, "a moment of"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_told(
    dense: nn.Module, tmp_path: Path, change: Dict[str, Any], said: str
) -> None:
    """Its checksum holds: whoever wrote it can make that, too."""
    path = tmp_path / "phase.safetensors"
    problem = problem_of(dense)

    def solve_until(last: int) -> None:
        def stop(phase: str, step: Step) -> None:
            if step.step == last:
                raise Killed

        trainer = TorchTrainer(
            copy.deepcopy(dense), split(), split(), config=TrainConfig(batch_size=16, lr=1e-3),
            checkpointing=Checkpointing(path, 0.0), on_step=stop,
        )  # fmt: skip
        make_solver("ecc", EccConfig(pace=0, ramp=1.0)).solve(problem, trainer, 6)

    with pytest.raises(Killed):
        solve_until(3)
    tensors, metadata = read_tensors(path)
    for name, value in change.items():
        where, _, key = name.partition(".")
        if where == "metadata":
            metadata[key] = value
        elif value is None:
            del tensors[name]
        else:
            assert name in tensors
            tensors[name] = np.zeros_like(tensors[name]) if isinstance(value, int) else value
    write_tensors(path, tensors, metadata)
    with pytest.raises(ArtifactError, match=f"{said}.*; remove it to begin this phase"):
        solve_until(7)
