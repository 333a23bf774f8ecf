"""The methods that remove single weights, by name, and how each runs in a run folder."""

from __future__ import annotations

import copy
from dataclasses import asdict, replace
from typing import List

from edgeecc.array_pricing import ArrayPricing
from edgeecc.config import TrainConfig
from edgeecc.graph.input_mask import input_masks
from edgeecc.rounds import alternate
from edgeecc.run_folder import HISTORY_SCHEMA, RunFolder
from edgeecc.run_request import PruneRequest, restore_, tensors_of
from edgeecc.solvers.base import Hooks, Step
from edgeecc.solvers.eap import EapHooks, Teacher, sweep_
from edgeecc.solvers.sample import Sample
from edgeecc.solvers.sparse import Ranking
from edgeecc.solvers.wsp import WspHooks
from edgeecc.training.loop import TorchTrainer

#: Training images that energy-aware pruning fits layers to at most.
CALIBRATION_IMAGES = 1000


def remove_weights(  # keyword-only, one each
    folder: RunFolder, request: PruneRequest, *, pricing: ArrayPricing, trainer: TorchTrainer, steps: int,
    training: TrainConfig,
) -> str:  # fmt: skip
    """Remove weights of the trainer's network until the budget holds, or take what an interrupted run left.

    Args:
        folder: keeps history.json and pruned.safetensors.
        request: method and its settings.
        pricing: of the trainer's network.
        trainer: trains it.
        steps: training steps.
        training: rates of the weights.
    Returns: how it ended.
    """
    model = pricing.model
    if folder.has("pruned.safetensors"):
        return restore_(model, folder.file("pruned.safetensors")).get("status", "")
    if pricing.problem().is_met_by(model):
        return "already_within"
    if not steps:
        history: List[Step] = []
        cut_(request, pricing, trainer)
    elif request.pruning.input_mask and request.wsp.mask_schedule == "rounds":
        history = alternate(
            folder, trainer, problem_now=pricing.problem, steps=steps, training=training, config=request.wsp
        )  # fmt: skip
    else:
        hooks = hooks_of(request, pricing, trainer)
        history = _train(trainer, request.pruning.method, steps, hooks)
    status = "converged" if steps else "cut_without_training"
    document = {"prune": [asdict(step) for step in history]}
    folder.write_json("history.json", HISTORY_SCHEMA, document)
    folder.write_tensors("pruned.safetensors", tensors_of(model), {"status": status})
    return status


def hooks_of(request: PruneRequest, pricing: ArrayPricing, trainer: TorchTrainer) -> Hooks:
    """Return what a method does inside training steps; `alternate` makes its own."""
    if request.pruning.method == "eap":
        return EapHooks(
            pricing.problem(),
            copy.deepcopy(pricing.model),
            trainer.sample(CALIBRATION_IMAGES),
            order=pricing.by_energy(),
            sweeps=request.wsp.sweeps,
        )
    if request.pruning.method == "magnitude":
        return WspHooks(pricing.problem, replace(request.wsp, metric="magnitude"), by_cost=False)
    places = pricing.places() if request.pruning.input_mask else None
    return WspHooks(pricing.problem, request.wsp, places=places)


def cut_(request: PruneRequest, pricing: ArrayPricing, trainer: TorchTrainer) -> None:
    """Remove weights at once, without training: by magnitude, as no gradient is known."""
    if request.pruning.method == "eap":
        sample = Sample(trainer.sample(CALIBRATION_IMAGES), pricing.seed)
        teacher = Teacher(copy.deepcopy(pricing.model), sample, pricing.by_energy())
        sweep_(pricing.problem(), pricing.model, teacher, pricing.bound)
    else:
        by_cost = request.pruning.method == "wsp"
        pricing.problem().project_(pricing.model, Ranking(by_cost=by_cost))


def _train(trainer: TorchTrainer, phase: str, steps: int, hooks: Hooks) -> List[Step]:
    """Train while input masks, where there are some, get gradients; they stand still afterwards."""
    masks = list(input_masks(trainer.model).values())
    for mask in masks:
        mask.requires_grad_(True)
    history = trainer.train(phase, steps, hooks)
    for mask in masks:
        mask.requires_grad_(False)
        mask.grad = None
    return history
