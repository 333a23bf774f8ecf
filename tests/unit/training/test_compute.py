"""Devices, precisions and layouts: the same network comes out, gradients are true ones, and what cannot be is said."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, List

import numpy as np
import pytest
import torch
from torch import nn

from edgeecc.config import ComputeConfig, EccConfig, TrainConfig
from edgeecc.cost.exact import mac_cost
from edgeecc.data.splits import TensorSplit
from edgeecc.errors import ConfigError, RuntimeUnavailableError
from edgeecc.export_parts import outputs
from edgeecc.graph.input_mask import attach, input_masks
from edgeecc.graph.surgery import mask_, slim
from edgeecc.graph.trace import trace
from edgeecc.networks.table import build
from edgeecc.run_request import tensors_of, weights_digest
from edgeecc.solvers.base import Limit, Problem, Step
from edgeecc.solvers.finetune import FixedMasks, FixedPattern
from edgeecc.solvers.sensitivity import Sensitivity
from edgeecc.solvers.table import make_solver
from edgeecc.training.classification import CLASSIFICATION
from edgeecc.training.compute import PLAIN, Compute, compute_of
from edgeecc.training.dense import initialise_, train_dense_
from edgeecc.training.evaluate import top1
from edgeecc.training.loop import Checkpointing, TorchTrainer
from tests.gpus import GPU

CPU = torch.device("cpu")


def small() -> nn.Module:
    model = build("digits_mobilenet", width=0.05)
    initialise_(model, 0)
    return model


def shallow() -> nn.Module:
    """Return a network so shallow that half precision stays near."""
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)
    )
    initialise_(model, 0)
    return model


def split(count: int = 48) -> TensorSplit:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn((count, 1, 8, 8), generator=generator)
    return TensorSplit(images, torch.randint(0, 10, (count,), generator=generator))


class Watcher(FixedMasks):
    """Hooks that write down gradients."""

    def __init__(self) -> None:
        super().__init__({}, 1.0)
        self.seen: List[Any] = []

    def after_backward(self, model: nn.Module) -> None:
        self.seen.append([p.grad.cpu().clone() for p in model.parameters()])


def gradients(compute: Compute, steps: int = 1, **more: object) -> List[Any]:
    trainer = TorchTrainer(
        shallow(), split(), split(), config=TrainConfig(batch_size=16), compute=compute, **more
    )
    watcher = Watcher()
    trainer.train("a", steps, watcher)
    return watcher.seen


def far(found: List[Any], true: List[Any]) -> float:
    """Return the distance of gradients as a share of the true ones' length."""
    apart = sum(float((a - b).square().sum()) for a, b in zip(found, true))
    return (apart / sum(float(b.square().sum()) for b in true)) ** 0.5


@pytest.mark.parametrize(
    ("precision", "layout", "most"),
    [("fp32", True, 1e-4), ("fp32", None, 1e-4), ("bf16", False, 0.1), ("fp16", True, 0.02)],
)
@pytest.mark.parametrize("device", ["cpu", GPU])
def test_gradients_are_true_ones(device: str, precision: Any, layout: Any, most: float) -> None:
    """float16 is for GPUs; torch can do it on a CPU too, so its scaling is tested everywhere."""
    compute = Compute(torch.device(device, *([0] if device == "cuda" else [])), precision, layout)
    (found,), (true,) = gradients(compute), gradients(PLAIN)
    assert all(gradient.dtype == torch.float32 for gradient in found)
    assert far(found, true) < (0.02 if device == "cuda" and precision == "fp32" else most)


def test_a_step_that_overflows_is_done_again_and_the_scale_is_kept(tmp_path: Path) -> None:
    """From 2^16 the scale falls until gradients are finite; a resumed phase goes on from there."""
    compute = Compute(CPU, "fp16", False)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        model[1].weight.fill_(2.0)
    images = 400.0 * split().images
    data = TensorSplit(images, split().labels)
    kept = Checkpointing(tmp_path / "phase", 1e-9)
    config = TrainConfig(batch_size=16, distill=0.0, lr=1e-4)
    watcher = Watcher()
    trainer = TorchTrainer(model, data, data, config=config, compute=compute, checkpointing=kept)
    assert len(trainer.train("a", 3, watcher)) == 3
    assert len(watcher.seen) == 3
    assert all(bool(torch.isfinite(g).all()) for seen in watcher.seen for g in seen)
    other = TorchTrainer(model, data, data, config=config, compute=compute, checkpointing=kept)
    found = other._restored("a", 3, torch.optim.Adam(model.parameters()), watcher)
    assert found.done == 3
    assert found.scale is not None
    assert found.scale[0] < 2.0**16
    assert found.scale[1] >= 1
    other._stepper.start(images[:1], found.scale)
    assert other._stepper.scale() == found.scale


class Steep(torch.autograd.Function):
    """A gradient that no scale makes finite."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float("inf")


class Endless(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Steep.apply(super().forward(x))


def test_gradients_that_overflow_at_any_scale_are_said() -> None:
    model = Endless(nn.Flatten(), nn.Linear(64, 10))
    trainer = TorchTrainer(
        model, split(), split(), config=TrainConfig(batch_size=8), compute=Compute(CPU, "fp16")
    )
    with pytest.raises(ConfigError, match="gradients overflow float16 at step 1 of a; .*bf16"):
        trainer.train("a", 1, Watcher())


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("metric", ["taylor", "adam"])
def test_pruning_runs_and_resumes_on_the_device(device: str, metric: Any, tmp_path: Path) -> None:
    config = ComputeConfig(accelerator=device, channels_last=True)
    model = small()
    spec = trace(small(), (torch.zeros(1, 1, 8, 8),), network="digits")
    cost = mac_cost(spec)
    bound = 0.5 * cost.predict(spec.vector(spec.dense_widths()))
    problem = Problem(spec, (Limit(cost, bound),), 0)

    def die(phase: str, step: Step) -> None:
        if step.step == 4:
            raise KeyboardInterrupt

    def trainer(model: nn.Module, **more: Any) -> TorchTrainer:
        kept = Checkpointing(tmp_path / "phase", 1e-9)
        return TorchTrainer(
            model, split(), split(), config=TrainConfig(batch_size=16), checkpointing=kept,
            compute=compute_of(config), **more,
        )  # fmt: skip

    solver = make_solver("ecc", EccConfig(metric=metric))
    with pytest.raises(KeyboardInterrupt):
        solver.solve(problem, trainer(small(), on_step=die), 8)
    loop = trainer(model)
    solution = solver.solve(problem, loop, 8)
    loop.train("finetune", 2, FixedPattern(problem, solution.keep))
    mask_(model, spec, solution.keep)
    assert problem.fits(spec.vector({name: len(kept) for name, kept in solution.keep.items()}))
    assert loop.computed() == {
        "accelerator": device,
        "precision": "fp32",
        "channels_last": True,
        "processes": 1,
    }
    images = split().images.numpy()
    whole, cut = (
        outputs(net.eval(), images, CLASSIFICATION)
        for net in (model, slim(model, spec, solution.keep))
    )
    np.testing.assert_allclose(whole, cut, atol=1e-4)
    assert top1(model, split()) == pytest.approx(loop.evaluate(), abs=0.03)
    assert weights_digest(model) == weights_digest(copy.deepcopy(model).cpu())
    assert all(isinstance(value, np.ndarray) for value in tensors_of(model).values())


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_masks_and_means_follow_the_weights(device: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3)).to(device)
    attach(model, {"0": (1, 4, 4)})
    assert input_masks(model)["0"].device.type == device
    model(torch.ones(1, 1, 4, 4, device=device)).sum().backward()
    sensitivity = Sensitivity(("0.weight",))
    sensitivity.load_state({"sensitivity.0.weight": torch.zeros(2, 1, 3, 3)})
    sensitivity.observe(model)
    assert sensitivity.state()["sensitivity.0.weight"].device.type == device


class Viewing(nn.Sequential):
    """A network that takes a view of what channels last does not keep in one piece."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self[1](self[0](x).view(len(x), -1))


class Striding(nn.Sequential):
    """A network that looks at memory, not at what it means."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self[1](torch.as_strided(self[0](x), (len(x), 72), (72, 1)))


@pytest.mark.parametrize(
    ("kind", "why"), [(Viewing, "view size is not compatible"), (Striding, "its outputs change by")]
)
def test_a_layout_that_the_network_does_not_take_is_left_or_refused(kind: Any, why: str) -> None:
    model = kind(nn.Conv2d(1, 2, 3), nn.Linear(72, 10))
    config = TrainConfig(batch_size=8)
    free, asked = (Compute(CPU, "fp32", wish) for wish in (None, True))
    left = TorchTrainer(model, split(), split(), config=config, compute=free)
    assert left.computed()["channels_last"] is False
    left.train("a", 1, Watcher())
    with pytest.raises(ConfigError, match=f"{why}.*leave out --channels-last"):
        TorchTrainer(model, split(), split(), config=config, compute=asked)


def test_flat_inputs_have_one_layout() -> None:
    flat = TensorSplit(torch.randn(8, 4), torch.arange(8) % 2)
    loop = TorchTrainer(
        nn.Linear(4, 2), flat, flat, config=TrainConfig(), compute=Compute(CPU, "fp32", None)
    )
    assert loop.computed()["channels_last"] is False


def test_what_this_machine_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert compute_of(ComputeConfig()).device == CPU
    with pytest.raises(RuntimeUnavailableError, match=r"finds 0 GPUs; .*--accelerator cpu"):
        compute_of(ComputeConfig(accelerator="cuda"))
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        compute_of(ComputeConfig(precision="fp16"))
    for wrong in ({"accelerator": "tpu"}, {"precision": "fp8"}):
        with pytest.raises(ConfigError, match="is none of"):
            ComputeConfig(**wrong)


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_dropout_is_the_same_each_time_and_leaves_the_caller_his_state(device: str) -> None:
    models = [nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.5)) for _ in range(2)]

    def losses(model: nn.Module) -> List[float]:
        initialise_(model, 0)
        compute = compute_of(ComputeConfig(accelerator=device))
        loop = TorchTrainer(
            model, split(), split(), config=TrainConfig(batch_size=8), compute=compute
        )
        return [step.loss for step in loop.train("a", 3, Watcher())]

    before = torch.get_rng_state()
    assert losses(models[0]) == losses(models[1])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "compute",
    [
        pytest.param(Compute(CPU, "bf16"), id="bf16"),
        pytest.param(Compute(CPU, "fp32", channels_last=None), id="channels last"),
    ],
)
def test_dense_training_computes_as_it_is_told(compute: Compute) -> None:
    trained = [shallow(), shallow()]
    for model, how in zip(trained, (PLAIN, compute)):
        train_dense_(model, split(), steps=20, batch_size=16, lr=1e-2, seed=0, compute=how)
    images = split().take(range(48))[0]
    with torch.no_grad():
        fresh, plain, other = (model.eval()(images) for model in (shallow(), *trained))
    assert not torch.equal(plain, other)
    assert (plain - other).abs().max() < 0.1 * (plain - fresh).abs().max()


def test_dense_training_does_not_take_fp16() -> None:
    with pytest.raises(ConfigError, match="take bf16 or fp32"):
        train_dense_(
            shallow(),
            split(),
            steps=1,
            batch_size=16,
            lr=1e-2,
            seed=0,
            compute=Compute(CPU, "fp16"),
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_dense_training_runs_on_a_gpu() -> None:
    model, steps = shallow(), 40
    train_dense_(
        model, split(), steps=steps, batch_size=16, lr=1e-2, seed=0,
        compute=compute_of(ComputeConfig("cuda", "bf16")),
    )  # fmt: skip
    assert next(model.parameters()).is_cuda
    assert top1(model.cpu(), split()) > 0.5
