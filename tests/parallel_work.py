"""What the processes of the tests of parallel training do."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import torch
import torch.distributed as dist
from torch import nn

from edgeecc.config import EccConfig, Precision, TrainConfig
from edgeecc.data.sources import load
from edgeecc.data.splits import TensorSplit
from edgeecc.errors import ConfigError
from edgeecc.graph.trace import trace
from edgeecc.networks.table import build
from edgeecc.run_folder import RunFolder
from edgeecc.solvers.base import Problem, Step
from edgeecc.solvers.finetune import FixedMasks, FixedPattern
from edgeecc.solvers.table import make_solver
from edgeecc.training import evaluate as evaluation
from edgeecc.training import parallel
from edgeecc.training.classification import Classification
from edgeecc.training.compute import PLAIN, Compute
from edgeecc.training.dense import initialise_
from edgeecc.training.evaluate import evaluate
from edgeecc.training.loop import Checkpointing, TorchTrainer, zeros_digest
from edgeecc.training.parallel import ALONE, World
from edgeecc.training.segmentation import Segmentation
from edgeecc.training.step import Stepper
from edgeecc.training.sync_norm import global_batch_norm, statistics
from tests.peers import problem_of

#: Of pruning.
STEPS = 10


class Killed(BaseException):
    """Stands for kill -9: nothing may catch it."""


def network() -> nn.Module:
    """Return a small MobileNet in double precision, in which rounding does not grow to anything."""
    model = build("digits_mobilenet", width=0.05)
    initialise_(model, 0)
    return model.double()


def split() -> TensorSplit:
    """Return images of which each class has a pattern."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 10, (96,), generator=generator)
    patterns = torch.randn((10, 1, 8, 8), generator=generator)
    noise = torch.randn((96, 1, 8, 8), generator=generator)
    return TensorSplit((patterns[labels] + 0.5 * noise).double(), labels)


def place(device: str, world: World) -> torch.device:
    """Return the device of a process: the CPU of all, or a GPU of its own."""
    return torch.device("cuda", world.rank) if device == "cuda" else torch.device("cpu")


def macs_of_digits(model: nn.Module, share: float) -> Problem:
    """Return the problem of a network of digits in float32 that may keep a share of its MACs."""
    return problem_of(
        trace(copy.deepcopy(model), (torch.zeros(1, 1, 8, 8),), network="digits"), share
    )


def pruned(
    world: World, folder: Optional[Path] = None, batch: int = 32, kill_at: int = 0, device: str = "cpu"
) -> Dict[str, Any]:  # fmt: skip
    """Prune and fine-tune in few steps; return what came out."""
    torch.set_num_threads(1)
    told: List[float] = []

    def hear(phase: str, step: Step) -> None:
        told.append(step.loss)
        if phase == "prune" and step.step == kill_at:
            raise Killed

    model, problem = network(), macs_of_digits(network().float(), 0.4)
    saving = None if folder is None else Checkpointing(folder / "phase", 1e-9, folder / "journal")
    config = TrainConfig(batch_size=batch, lr=2e-3)
    trainer = TorchTrainer(
        model, split(), split(), config=config, checkpointing=saving, held_out=20, on_step=hear,
        compute=Compute(place(device, world)), world=world,
    )  # fmt: skip
    solution = make_solver("ecc", EccConfig(ramp=1.0)).solve(problem, trainer, STEPS)
    history = trainer.train("finetune", 3, FixedPattern(problem, solution.keep))
    return {
        "widths": {name: len(units) for name, units in solution.keep.items()},
        "keep": {name: units.tolist() for name, units in solution.keep.items()},
        "weights": arrays_of(model),
        "losses": told,
        "last": history[-1].loss,
        "scores": trainer.scores(),
        "held_out": trainer.held_out(),
        "dense": trainer.dense_scores(),
    }


def arrays_of(model: nn.Module) -> Dict[str, Any]:
    return {name: value.cpu().numpy() for name, value in model.state_dict().items()}


def plain_network() -> nn.Module:
    """Return three convolutions with batch norm and a linear layer, which learn the digits in two hundred steps."""
    body: List[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 32), (32, 64)):
        body += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]  # fmt: skip
        body += [nn.MaxPool2d(2)] if outputs > 16 else []
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(256, 10))


def trained_pruned(
    world: World, weights: Path, seeds: Sequence[int], precision: Precision = "fp32", device: str = "cpu"
) -> List[Dict[str, Any]]:  # fmt: skip
    """Prune the plain network with such weights to half its MACs, once for each seed; return what came out of each."""
    torch.set_num_threads(1)
    digits = load("digits", input_shape=(1, 8, 8))
    found = []
    for seed in seeds:
        model = plain_network()
        model.load_state_dict(torch.load(weights, weights_only=True))
        problem = macs_of_digits(model, 0.5)
        trainer = TorchTrainer(
            model, digits.train, digits.val, config=TrainConfig(batch_size=32, lr=2e-3, seed=seed),
            compute=Compute(place(device, world), precision), world=world,
        )  # fmt: skip
        solution = make_solver("ecc", EccConfig(ramp=1.0)).solve(problem, trainer, 2 * STEPS)
        history = trainer.train("finetune", STEPS, FixedPattern(problem, solution.keep))
        widths = {name: len(units) for name, units in solution.keep.items()}
        found.append(
            {
                "widths": widths,
                "keep": {name: units.tolist() for name, units in solution.keep.items()},
                "fits": problem.fits(problem.spec.vector(widths)),
                "weights": arrays_of(model),
                "losses": [step.loss for step in (*solution.history, *history)],
                "score": trainer.evaluate(),
                "dense": next(iter(trainer.dense_scores().values())),
            }
        )
    return found


class Rough(nn.BatchNorm2d):
    """A batch norm with a forward of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)


def normalised(
    norm: nn.Module, x: torch.Tensor, pull: torch.Tensor, world: World = ALONE
) -> Dict[str, Any]:  # fmt: skip
    """Return what a batch norm gives, with the gradients of sum(y * pull); x is all processes' batch."""
    own = world.slice_of(len(x))
    x = x[own].clone().requires_grad_()
    with global_batch_norm(norm, world):
        y = norm(x)
    (y * pull[own]).sum().backward()
    gradients = [world.all_reduce(p.grad) for p in norm.parameters()]
    found = [y.detach(), x.grad, *gradients, *norm.buffers()]
    return {"values": [value.numpy() for value in found], "kind": str(y.dtype)}


def all_norms(world: World) -> List[Dict[str, Any]]:
    return [normalised(*case, world) for case in norm_cases()]


def norm_cases() -> List[Any]:
    """Return batch norms of all kinds with inputs whose parts differ, 5 images for 2 processes."""
    generator = torch.Generator().manual_seed(0)

    def case(norm: nn.Module, *shape: int) -> Any:
        x = torch.randn(shape, generator=generator, dtype=torch.float64) + 3.0
        x[: len(x) // 2] *= 4.0
        with torch.no_grad():
            for parameter in norm.parameters():
                parameter.normal_(generator=generator)
        return norm.double(), x, torch.randn(shape, generator=generator, dtype=torch.float64)

    return [
        case(nn.BatchNorm1d(3), 5, 3),
        case(nn.BatchNorm1d(3), 5, 3, 4),
        case(nn.BatchNorm2d(3, momentum=None), 5, 3, 4, 2),
        case(nn.BatchNorm2d(3, affine=False, eps=0.1), 5, 3, 4, 2),
        case(nn.BatchNorm3d(2, track_running_stats=False), 5, 2, 2, 3, 2),
        case(nn.BatchNorm2d(3, momentum=0.7).eval(), 5, 3, 4, 2),
        case(nn.BatchNorm1d(3), 2, 3),
    ]


def odd_norms(world: World) -> List[str]:
    """Return what batch norms say that cannot be global, and whether modules are as before."""
    said = []
    for norm, x in (
        (Rough(2), torch.zeros(4, 2, 1, 1)),
        (nn.BatchNorm2d(2), torch.zeros(0, 2, 1, 1)),
    ):
        try:
            with global_batch_norm(norm, world):
                norm(x)
        except (ConfigError, ValueError) as error:
            said.append(str(error))
    said.append(str("forward" in vars(norm)))
    return said


def float32_norm(world: World) -> List[Any]:
    """Return statistics of large means and small spread in float32, and the type of a half precision result."""
    x = 1000.0 + torch.randn((6, 1, 50), generator=torch.Generator().manual_seed(3))
    _, _, var = statistics(x[world.slice_of(6)], world)
    norm = nn.BatchNorm1d(1)
    with global_batch_norm(norm, world):
        half = norm(x[world.slice_of(6)].bfloat16())
    return [float(var), float(x.double().var(correction=0)), str(half.dtype)]


def segmented(world: World, fed: str = "uneven") -> Dict[str, Any]:
    """Return loss and gradients of a step of segmentation whose labelled pixels and classes lie unevenly."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randn((5, 3, 4, 4), generator=generator).double()
    labels = torch.randint(0, 3, (5, 4, 4), generator=generator)
    labels[0] = 255 if fed == "uneven" else labels[0]
    labels[1, 1:] = 255
    if fed == "void":
        labels[: 5 // 2] = 255
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1)
    )
    initialise_(model, 0)
    teacher = nn.Sequential(nn.Conv2d(3, 3, 1))
    initialise_(teacher, 1)
    model.double(), teacher.double()
    task = Segmentation(shares=(0.7, 0.2, 0.1))
    stepper = Stepper(model, teacher, task, compute=PLAIN, world=world)
    stepper.start(images[:1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    own = world.slice_of(5)
    loss = stepper.gradients_(optimizer, (images[own], labels[own]), 0.3, "step 1")
    stepper.stop()
    return {"loss": loss, "gradients": [p.grad.numpy() for p in model.parameters()]}


def scored(world: World, together: int) -> List[Dict[str, float]]:
    """Return scores of both tasks on splits of 11 images in batches of `together`."""
    evaluation.EVAL_BATCH = together
    generator = torch.Generator().manual_seed(4)
    flat = TensorSplit(torch.randn((11, 7), generator=generator), torch.arange(11) % 7)
    maps = TensorSplit(
        torch.randn((11, 3, 2, 2), generator=generator),
        torch.randint(0, 3, (11, 2, 2), generator=generator),
    )
    return [
        evaluate(nn.Identity(), flat, Classification(), world=world),
        evaluate(nn.Identity(), maps, Segmentation(), world=world),
    ]


def written(world: World, folder: Path) -> List[str]:
    """Return the files that a process wrote into a folder of its own."""
    own = folder / str(world.rank)
    own.mkdir(parents=True)
    kept = Checkpointing(own / "phase", 1e-9, own / "journal")
    trainer = TorchTrainer(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double(), split(), split(),
        config=TrainConfig(batch_size=8), checkpointing=kept, world=world,
    )  # fmt: skip
    trainer.train("a", 2, FixedMasks({}, 1.0))
    trainer.remember("search", {"turn": torch.tensor(1)})
    run = RunFolder(own / "run", writes=world.is_main)
    with run.locked():
        run.write_json("a.json", "a/1", {})
        run.write_tensors("a.safetensors", {}, {})
        run.write_keep({})
        run.drop(["b"])
    return sorted(path.name for path in own.rglob("*") if path.is_file())


def fail(world: World, who: str) -> None:
    """Fail in one process, in all, or by dying."""
    parallel.ECHO_S = 0.5
    if who == "dies" and world.rank:
        os._exit(1)
    if who == "all" or (who == "one" and world.rank):
        raise ConfigError("no such thing")
    if who == "main" and world.is_main:
        raise ConfigError("only here")
    if who == "disk" and world.rank:
        raise OSError(28, "No space left on device")
    if who == "apart":
        model = nn.Linear(2, 2)
        nn.init.constant_(model.weight, float(world.rank))
        world.check_alike(zeros_digest(model), "weights that are zero")
    if who == "small":
        TorchTrainer(network(), split(), split(), config=TrainConfig(batch_size=1), world=world)
    world.barrier()


def shared(world: World, device: str = "cpu") -> Dict[str, Any]:
    """Return what collectives give, and gradients where a parameter has no part in the result."""

    class Headed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.aside = nn.Linear(64, 10), nn.Linear(64, 2)

        def forward(self, x: torch.Tensor) -> Any:
            x = x.flatten(1)
            return self.body(x), self.aside(x)

    here = place(device, world)
    own = torch.tensor([float(world.rank), 1.0], device=here)
    model = Headed().double().to(here)
    stepper = Stepper(
        model, copy.deepcopy(model), Classification(), compute=Compute(here), world=world
    )
    data = split()
    stepper.start(data.images[:1])
    for _ in range(2):
        stepper.gradients_(
            torch.optim.SGD(model.parameters(), lr=0.1), data.take([world.rank]), 0.5, ""
        )
    return {
        "sum": world.all_reduce(own).tolist(),
        "max": world.all_reduce(own, "max").tolist(),
        "first": world.broadcast(own).tolist(),
        "mask": world.broadcast(own > 0.0).tolist(),
        "unused": model.aside.weight.grad is None,
        "gradient": model.body.weight.grad.cpu().numpy(),
        "backends": dist.get_backend_config(),
    }


def alone_in_a_job(world: World, device: str = "cpu") -> Dict[str, Any]:
    """Return what a job of one sends to itself and gets back, with what it makes of a batch without sending.

    A process that is alone leaves collectives out. Here it takes itself for the first of two, whom nobody answers.
    """
    assert world == ALONE
    talking, here = World(0, 2), place(device, world)
    own = torch.tensor([3.0, -1.0], device=here)
    model = network().to(here)
    with torch.no_grad():
        model.get_parameter("stem.conv.weight")[0] = 0.0
    talking.check_alike(zeros_digest(model), "weights that are zero")
    talking.barrier()
    plain = copy.deepcopy(model)
    images = split().images.to(here)
    plain(images).square().mean().backward()
    sharing = talking.sharing(model, unused=False)
    with global_batch_norm(model, talking):
        loss = sharing(images).square().mean()
    with parallel.reducing():
        loss.backward()
    return {
        "sum": talking.all_reduce(own).tolist(),
        "max": talking.all_reduce(own, "max").tolist(),
        "first": talking.broadcast(own).tolist(),
        "mask": talking.broadcast(own > 0.0).tolist(),
        "backends": dist.get_backend_config(),
        "model": {**arrays_of(model), **gradients_of(model)},
        "plain": {**arrays_of(plain), **gradients_of(plain)},
    }


def gradients_of(model: nn.Module) -> Dict[str, Any]:
    return {f"{name}.grad": value.grad.cpu().numpy() for name, value in model.named_parameters()}
