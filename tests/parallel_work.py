"""What the processes of the tests of parallel training do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch
from torch import nn

from edgeecc.config import EccConfig, TrainConfig
from edgeecc.cost.exact import mac_cost
from edgeecc.data.splits import TensorSplit
from edgeecc.graph.trace import trace
from edgeecc.networks.table import build
from edgeecc.solvers.base import Limit, Problem, Step
from edgeecc.solvers.finetune import FixedPattern
from edgeecc.solvers.table import make_solver
from edgeecc.training.dense import initialise_
from edgeecc.training.loop import Checkpointing, TorchTrainer
from edgeecc.training.parallel import World


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
    labels = torch.randint(0, 10, (130,), generator=generator)
    patterns = torch.randn((10, 1, 8, 8), generator=generator)
    noise = torch.randn((130, 1, 8, 8), generator=generator)
    return TensorSplit((patterns[labels] + 0.5 * noise).double(), labels)


def pruned(
    world: World, folder: Optional[Path] = None, *, kill_at: int = 0, batch: int = 32, method: str = "ecc"
) -> Dict[str, Any]:  # fmt: skip
    """Prune and fine-tune in few steps; return what came out."""
    torch.set_num_threads(1)
    told: List[float] = []

    def hear(phase: str, step: Step) -> None:
        told.append(step.loss)
        if phase == "prune" and step.step == kill_at:
            raise Killed

    model = network()
    spec = trace(network().float(), (torch.zeros(1, 1, 8, 8),), network="digits")
    cost = mac_cost(spec)
    bound = 0.4 * cost.predict(spec.vector(spec.dense_widths()))
    problem = Problem(spec, (Limit(cost, bound),), 0)
    saving = None if folder is None else Checkpointing(folder / "phase", 1e-9, folder / "journal")
    config = TrainConfig(batch_size=batch, lr=2e-3)
    trainer = TorchTrainer(
        model, split(), split(), config=config, checkpointing=saving, held_out=30, on_step=hear,
        world=world,
    )  # fmt: skip
    settings = replace(EccConfig(), warmup=3) if method == "ecc" else None
    solution = make_solver(method, settings).solve(problem, trainer, 20)
    history = trainer.train("finetune", 8, FixedPattern(problem, solution.keep))
    return {
        "widths": {name: len(units) for name, units in solution.keep.items()},
        "keep": {name: units.tolist() for name, units in solution.keep.items()},
        "weights": {name: value.numpy() for name, value in model.state_dict().items()},
        "losses": told,
        "last": history[-1].loss,
        "scores": trainer.scores(),
        "held_out": trainer.held_out(),
        "dense": trainer.dense_scores(),
    }
