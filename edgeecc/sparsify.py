"""Remove single weights of a trained network to an analytic energy budget, and keep everything in a run folder.

No channel goes: the network keeps its shape and gains zeros. What they save is energy on hardware that skips
them, as `cost.systolic` models it; a GPU or a CPU runs the network as before.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Dict, List, Mapping, Optional, Tuple

import numpy as np
from torch import nn

from edgeecc.artifacts import write_json, write_tensors
from edgeecc.config import TrainConfig
from edgeecc.cost.hardware import Hardware, hardware
from edgeecc.cost.systolic import (
    BoolArray,
    LayerEnergy,
    Shape,
    network_energy,
    shapes_of,
    weight_cost,
)
from edgeecc.data.sources import DataBundle
from edgeecc.data.sources import load as load_data
from edgeecc.errors import ConfigError
from edgeecc.graph.input_mask import attach, input_masks
from edgeecc.graph.spec import NetworkSpec
from edgeecc.pattern import Pattern
from edgeecc.pattern import parse as parse_pattern
from edgeecc.rounds import alternate, read_rounds
from edgeecc.run_folder import HISTORY_SCHEMA, RunFolder
from edgeecc.run_request import (
    OnPhaseStep,
    PruneRequest,
    claimed,
    make_trainer,
    restore_,
    step_counts,
    tensors_of,
    weights_digest,
    with_rate,
    write_result,
)
from edgeecc.solvers.projection import LayerCost
from edgeecc.solvers.sparse import FixedWeights, SparseLayer, SparseProblem
from edgeecc.solvers.wsp import WspHooks
from edgeecc.sources import NetworkSource, open_network, trace_source
from edgeecc.training.loop import TorchTrainer
from edgeecc.units import Metric

#: Methods that remove single weights.
METHODS = ("wsp",)
DEFAULT_DEVICE = "systolic:eyeriss"


@dataclass(frozen=True)
class Prepared:
    """A request after everything that can be refused before training has been checked."""

    model: nn.Module
    source: NetworkSource
    spec: NetworkSpec
    data: DataBundle
    array: Hardware
    shapes: Tuple[Shape, ...]
    problem: SparseProblem  # without masks
    dense_cost: float
    training: TrainConfig
    steps: int
    finetune_steps: int
    pattern: Optional[Pattern] = None


def sparsify(
    request: PruneRequest, on_step: OnPhaseStep = lambda phase, step: None
) -> Dict[str, object]:
    """Project, fine-tune and write the run folder; resume an interrupted run of the same request.

    Returns: what `edgeecc prune --json` prints; also in result.json.
    Raises: BudgetInfeasibleError before the first batch when no weights fit the budget; any EdgeeccError of
        the steps on the way.
    """
    ready = prepare(request)
    with claimed(
        request,
        _identity(request, ready),
        model=ready.model,
        source=ready.source,
        spec=ready.spec,
    ) as folder:
        return _run(folder, request, ready, on_step)


def prepare(request: PruneRequest) -> Prepared:
    """Open and trace the network, price its weights, and check the budget against what is feasible."""
    kind, _, name = (request.device or DEFAULT_DEVICE).partition(":")
    if kind != "systolic":
        raise ConfigError(
            f"{request.pruning.method} needs the price of single weights, which {request.device} does not tell; "
            f"use --device {DEFAULT_DEVICE} or systolic:FILE.toml"
        )
    if not request.budget.relative or request.budget.metric is not Metric.ENERGY:
        raise ConfigError(
            f"a budget of {request.pruning.method} is a share of the dense network's energy; give --budget 20%"
        )
    if request.profile is not None or request.pruning.margin is not None:
        raise ConfigError(
            f"the energy of single weights is counted, not fitted; {request.pruning.method} takes no --profile and no "
            "--margin"
        )
    array = hardware(name)
    model, source = open_network(request.network, request.input_shape, request.weights)
    data = load_data(request.data, input_shape=source.input_shape, seed=request.training.seed)
    spec = trace_source(model, source).spec
    data.check_fits(model, source.example())
    shapes = shapes_of(spec)
    computed = {f"{shape.name}.weight" for shape in shapes} - set(dict(model.named_parameters()))
    if computed:
        raise ConfigError(
            f"{min(computed)} is computed, not stored; store computed weights before pruning them"
        )
    dense_cost = sum(energy.total for energy in network_energy(shapes, array, exact=False))
    bound = request.budget.resolve(dense_cost)
    pattern = None if request.pruning.pattern is None else parse_pattern(request.pruning.pattern)
    problem = problem_of(
        model, shapes, array, bound=bound, seed=request.training.seed, pattern=pattern
    )  # fmt: skip
    if pattern is not None and not any(layer.pattern for layer in problem.layers):
        raise ConfigError(
            f"no layer can have the pattern {pattern.text}: it takes convolutions of one group and linear layers whose "
            f"inputs are a multiple of {pattern.of}; leave out --pattern"
        )
    problem.check_feasible(dense_cost)
    steps, finetune_steps = step_counts(request, len(data.train))
    return Prepared(
        model=model,
        source=source,
        spec=spec,
        data=data,
        array=array,
        shapes=shapes,
        problem=problem,
        dense_cost=dense_cost,
        training=with_rate(request.training, source.input_shape),
        steps=steps,
        finetune_steps=finetune_steps,
        pattern=pattern,
    )


def problem_of(  # keyword-only after the network
    model: nn.Module, shapes: Tuple[Shape, ...], array: Hardware, *, bound: float, seed: int,
    pattern: Optional[Pattern] = None,
) -> SparseProblem:  # fmt: skip
    """Return the problem for a network with the input masks that it has."""
    layers = tuple(
        SparseLayer(
            f"{shape.name}.weight",
            LayerCost(*weight_cost(shape, array), array.weight_words),
            pattern if pattern is not None and shape.can_have(pattern) else None,
        )
        for shape in shapes
    )
    energies = network_energy(shapes, array, masks=_mask_patterns(model), exact=False)
    return SparseProblem(layers, sum(energy.inputs for energy in energies), bound, seed)


def _run(
    folder: RunFolder, request: PruneRequest, ready: Prepared, on_step: OnPhaseStep
) -> Dict[str, object]:  # fmt: skip
    started = perf_counter()
    trainer = make_trainer(
        folder, request, model=ready.model, data=ready.data, training=ready.training, on_step=on_step
    )  # fmt: skip
    dense_accuracy = trainer.dense_accuracy()
    if request.pruning.input_mask:
        attach(ready.model, maskable(ready.shapes))
    status = _projected(folder, request, ready, trainer)
    if status != "already_within":
        pattern = FixedWeights(_problem_now(ready), ready.model)
        trainer.train("finetune", ready.finetune_steps, pattern)
    energies = energies_of(ready.model, ready.shapes, ready.array)
    result = {
        "run": str(folder.path),
        "method": request.pruning.method,
        "budget": {
            "value": ready.problem.bound,
            "unit": Metric.ACCESSES.unit,
            "metric": Metric.ACCESSES.value,
            "text": request.budget.text,
        },
        "dense": {"accuracy": dense_accuracy, "cost": ready.dense_cost},
        "accuracy": trainer.evaluate(),
        "cost": sum(energy.total for energy in energies),
        "widths": {},
        "density": _density(ready),
        "mask_density": {
            name: float(pattern.mean()) for name, pattern in _mask_patterns(ready.model).items()
        },
        "pattern": _pattern_layers(ready),
        "rounds": read_rounds(folder),
        "steps": ready.steps,
        "finetune_steps": ready.finetune_steps,
        "status": status,
        "meter": ready.array.meter,
        "device": ready.array.device,
        "hardware": asdict(ready.array),
        "seconds": perf_counter() - started,
    }
    write_result(folder, result, model=ready.model, source=ready.source, spec=ready.spec)
    return result


def _projected(
    folder: RunFolder, request: PruneRequest, ready: Prepared, trainer: TorchTrainer
) -> str:  # fmt: skip
    """Train under projection, or take the weights that an interrupted run left; return how it ended."""
    if folder.has("pruned.safetensors"):
        return restore_(ready.model, folder.file("pruned.safetensors")).get("status", "")
    if ready.problem.is_met_by(ready.model):
        return "already_within"
    if request.pruning.input_mask:
        history = alternate(
            folder, trainer, problem_now=lambda: _problem_now(ready), steps=ready.steps, training=ready.training
        )  # fmt: skip
    else:
        history = trainer.train(request.pruning.method, ready.steps, WspHooks(ready.problem))
    if not ready.steps:
        ready.problem.project_(ready.model)
    status = "converged" if ready.steps else "cut_without_training"
    document = {"prune": [asdict(step) for step in history]}
    write_json(folder.file("history.json"), HISTORY_SCHEMA, document)
    write_tensors(folder.file("pruned.safetensors"), tensors_of(ready.model), {"status": status})
    return status


def energies_of(model: nn.Module, shapes: Tuple[Shape, ...], array: Hardware) -> List[LayerEnergy]:
    """Return the exact energy of every layer with the zeros that its weights have."""
    parameters = dict(model.named_parameters())
    weights = {
        shape.name: parameters[f"{shape.name}.weight"].detach().cpu().numpy() != 0
        for shape in shapes
    }
    return network_energy(shapes, array, weights=weights, masks=_mask_patterns(model))


def maskable(shapes: Tuple[Shape, ...]) -> Dict[str, Tuple[int, ...]]:
    """Return layer name -> size of its input, for every convolution that runs once."""
    return {
        shape.name: (shape.channels[0], *shape.in_size)
        for shape in shapes
        if not shape.matrix and shape.calls == 1
    }


def _mask_patterns(model: nn.Module) -> Dict[str, BoolArray]:
    masks = input_masks(model)
    return {name: mask.detach().cpu().numpy() != 0 for name, mask in masks.items()}


def _problem_now(ready: Prepared) -> SparseProblem:
    problem = ready.problem
    return problem_of(
        ready.model, ready.shapes, ready.array, bound=problem.bound, seed=problem.seed, pattern=ready.pattern
    )  # fmt: skip


def _density(ready: Prepared) -> Mapping[str, float]:
    return {
        layer.parameter.rpartition(".")[0]: float(np.count_nonzero(values) / values.size)
        for layer, values in zip(ready.problem.layers, ready.problem.weights(ready.model))
    }


def _pattern_layers(ready: Prepared) -> Optional[Dict[str, object]]:
    """Return the pattern and layer name -> whether it applies, None without one."""
    if ready.pattern is None:
        return None
    layers = {
        layer.parameter.rpartition(".")[0]: layer.pattern is not None
        for layer in ready.problem.layers
    }
    return {"text": ready.pattern.text, "layers": layers}


def _identity(request: PruneRequest, ready: Prepared) -> Dict[str, object]:
    return {
        "kind": "weights",
        "weights_sha256": weights_digest(ready.model),
        "budget": request.budget.text,
        "bound": ready.problem.bound,
        "data": request.data,
        "hardware": asdict(ready.array),
        "steps": ready.steps,
        "finetune_steps": ready.finetune_steps,
        "method": request.pruning.method,
        "training": asdict(ready.training),
        "input_mask": request.pruning.input_mask,
        "pattern": request.pruning.pattern,
    }
