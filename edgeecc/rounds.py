"""Rounds of weighted sparse projection and input masking, as long as accuracy rises.

A round trains the weights under projection, then masks onto a smaller share of all places: 0.9 after the first
round, 0.8 after the second, and so on. Fewer inputs cost less, so the next round has more of the budget for
weights. The first round whose accuracy does not rise ends it, and the best is taken. Source: layer input
masking (ICLR 2019). Like its code, the stop looks at the validation accuracy.

After every phase the network and where the rounds stand are one file, so an interrupted run goes on.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Callable, Dict, List, Mapping, Set

from torch import nn

from edgeecc.artifacts import read_tensors
from edgeecc.config import TrainConfig, WspConfig
from edgeecc.errors import ArtifactError
from edgeecc.graph.input_mask import input_masks
from edgeecc.run_folder import RunFolder
from edgeecc.run_request import restore_, tensors_of
from edgeecc.solvers.base import Step
from edgeecc.solvers.masking import MaskHooks
from edgeecc.solvers.sparse import SparseProblem
from edgeecc.solvers.wsp import WspHooks
from edgeecc.training.loop import TorchTrainer

#: Share of places that a round takes away.
SHARE_STEP = 0.1
#: Distance that a mask could move in a phase at Adam's rate, so that any place may go (ours: the source's rate of 1e-4
#: is meant for 300,000 steps).
MASK_TRAVEL = 1.0


@dataclass
class _Standing:
    """Phases done, the best accuracy, and what each round reached."""

    done: int = 0
    best: float = -1.0
    stopped: bool = False
    rounds: List[Dict[str, float]] = field(default_factory=list)


def alternate(  # keyword-only, one each
    folder: RunFolder, trainer: TorchTrainer, *, problem_now: Callable[[], SparseProblem], steps: int,
    training: TrainConfig, config: WspConfig,
) -> List[Step]:  # fmt: skip
    """Run rounds on the trainer's network, which has masks, and leave the best one in it.

    Args:
        folder: keeps where the rounds stand.
        trainer: trains weights and masks.
        problem_now: the problem with the masks of the moment.
        steps: of each phase.
        training: rates of the weights; masks have their own.
        config: of the projection, and the most rounds.
    Returns: the steps of the last phase of weights.
    """
    model = trainer.model
    masks = {id(mask) for mask in input_masks(model).values()}
    weights = {id(p) for p in model.parameters() if p.requires_grad and id(p) not in masks}
    standing = _resume(folder, model)
    history: List[Step] = []
    while not standing.stopped:
        number, masking = divmod(standing.done, 2)
        _only_train(model, masks if masking else weights)
        if masking:
            _train_masks(trainer, number, problem_now(), steps=steps, training=training)
        else:
            hooks = WspHooks(problem_now, config)
            history = trainer.train(f"wsp-{number + 1}", steps, hooks)
            accuracy = trainer.evaluate()
            share = _share(model)
            standing.rounds.append(
                {"accuracy": accuracy, "share": share, "cost": problem_now().cost_of(model)}
            )
            standing.stopped = accuracy <= standing.best or number + 1 >= config.rounds
            if accuracy > standing.best:
                standing.best = accuracy
                _save(folder, "best.safetensors", model, standing)
        standing.done += 1
        _save(folder, "phase.safetensors", model, standing)
    trainer.world.barrier()  # until the first process has written the best
    restore_(model, folder.file("best.safetensors"))
    _only_train(model, weights)
    return history


def read_rounds(folder: RunFolder) -> List[Dict[str, float]]:
    """Return what each round reached, empty without rounds."""
    if not folder.has("phase.safetensors"):
        return []
    return _standing(folder, read_tensors(folder.file("phase.safetensors"))[1]).rounds


def _train_masks(
    trainer: TorchTrainer, number: int, problem: SparseProblem, *, steps: int, training: TrainConfig
) -> None:  # fmt: skip
    model = trainer.model
    hooks = MaskHooks(
        input_masks(model), 1.0 - SHARE_STEP * (number + 1), cost=problem.cost_of(model)
    )
    config = replace(training, lr=MASK_TRAVEL / steps, weight_decay=1e-5, optimizer="adam")
    trainer.train(f"mask-{number + 1}", steps, hooks, config=config)


def _only_train(model: nn.Module, wanted: Set[int]) -> None:
    """Let only these parameters, by id, be trained."""
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in wanted)


def _share(model: nn.Module) -> float:
    masks = list(input_masks(model).values())
    places = sum(mask.numel() for mask in masks)
    return sum(int(mask.count_nonzero()) for mask in masks) / max(1, places)


def _save(folder: RunFolder, name: str, model: nn.Module, standing: _Standing) -> None:
    folder.write_tensors(name, tensors_of(model), {"standing": json.dumps(asdict(standing))})


def _resume(folder: RunFolder, model: nn.Module) -> _Standing:
    if not folder.has("phase.safetensors"):
        return _Standing()
    return _standing(folder, restore_(model, folder.file("phase.safetensors")))


def _standing(folder: RunFolder, metadata: Mapping[str, str]) -> _Standing:
    try:
        return _Standing(**json.loads(metadata["standing"]))
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{folder.file('phase.safetensors')} is damaged: {error}; remove it to prune again"
        ) from error
