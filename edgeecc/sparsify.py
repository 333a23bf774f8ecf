"""Remove single weights of a trained network to an analytic energy budget, and keep everything in a run folder.

No channel goes: the network keeps its shape and gains zeros. What they save is energy on hardware that skips
them, as `cost.systolic` models it; a GPU or a CPU runs the network as before.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Dict, Mapping, Optional

import numpy as np

from edgeecc.array_pricing import ArrayPricing, dense_cost, maskable
from edgeecc.config import TrainConfig
from edgeecc.cost.hardware import hardware
from edgeecc.cost.systolic import shapes_of
from edgeecc.data.sources import DataBundle, digest_of
from edgeecc.errors import ConfigError
from edgeecc.graph.input_mask import attach
from edgeecc.graph.spec import NetworkSpec
from edgeecc.pattern import parse as parse_pattern
from edgeecc.progress import OnProgress, Progress, silent
from edgeecc.rounds import read_rounds
from edgeecc.run_folder import RunFolder
from edgeecc.run_request import (
    DATA_DIGEST,
    PruneRequest,
    claimed,
    make_trainer,
    scores_in,
    settled,
    step_counts,
    task_of,
    thinned,
    weights_digest,
    write_result,
)
from edgeecc.solvers.sparse import FixedWeights, SparseProblem
from edgeecc.sources import NetworkSource, load_images, open_network, trace_source
from edgeecc.telling import LOADING, OPENING, SCORING, TRACING, Teller, Telling
from edgeecc.training.allocator import freed_memory_kept
from edgeecc.training.compute import Compute, compute_of
from edgeecc.training.parallel import ALONE, World
from edgeecc.units import Metric
from edgeecc.weight_methods import remove_weights

DEFAULT_DEVICE = "systolic:eyeriss"


@dataclass(frozen=True)
class Prepared:
    """A request after everything that can be refused before training has been checked."""

    source: NetworkSource
    spec: NetworkSpec
    data: DataBundle
    pricing: ArrayPricing
    training: TrainConfig
    steps: int
    finetune_steps: int
    compute: Compute


def sparsify(
    request: PruneRequest, on_progress: OnProgress = silent, world: World = ALONE
) -> Dict[str, object]:
    """Project, fine-tune and write the run folder; resume an interrupted run of the same request.

    Args:
        request, on_progress, world: see `edgeecc.prune.prune`.
    Returns: what `edgeecc prune --json` prints; also in result.json.
    Raises: BudgetInfeasibleError before the first batch when no weights fit the budget; any EdgeeccError of
        the steps on the way.
    """
    ready = prepare(request, on_progress)
    pricing = ready.pricing
    telling = Telling(Metric.ACCESSES, pricing.bound, pricing.bound, pricing.array.meter)
    teller = Teller(on_progress, [telling])
    with claimed(
        request,
        _identity(request, ready),
        model=ready.pricing.model,
        source=ready.source,
        spec=ready.spec,
        world=world,
    ) as folder, freed_memory_kept(ready.compute.device):
        return _run(folder, request, ready, teller=teller, world=world)


def prepare(request: PruneRequest, on_progress: OnProgress = silent) -> Prepared:
    """Open and trace the network, price its weights, and check the budget against what is feasible."""
    on_progress(Progress(OPENING))
    device = request.devices[0] if request.devices else DEFAULT_DEVICE
    kind, _, name = device.partition(":")
    _check_options(request, kind)
    array = hardware(name)
    model, source = open_network(
        request.network, request.input_shape, request.weights, normalisation=request.normalisation
    )
    on_progress(Progress(LOADING, note=request.data))
    data = load_images(source, request.data, request.training.seed)
    on_progress(Progress(TRACING, note=source.reference))
    spec = trace_source(model, source).spec
    data.check_fits(model, source.example(), task_of(data))
    shapes = shapes_of(spec)
    computed = {f"{shape.name}.weight" for shape in shapes} - set(dict(model.named_parameters()))
    if computed:
        raise ConfigError(
            f"{min(computed)} is computed, not stored; store computed weights before pruning them"
        )
    pattern = None if request.pruning.pattern is None else parse_pattern(request.pruning.pattern)
    bound = request.budgets[0].resolve(dense_cost(shapes, array))
    pricing = ArrayPricing(model, shapes, array, bound, request.training.seed, pattern)
    _check_feasible(request, pricing)
    training = settled(request.training, source.input_shape, data.task)
    steps, finetune_steps = step_counts(request.pruning, training, len(data.train))
    compute = compute_of(request.compute)
    return Prepared(source, spec, data, pricing, training, steps, finetune_steps, compute)


def _check_options(request: PruneRequest, device_kind: str) -> None:
    method = request.pruning.method
    if request.paper_groups:
        raise ConfigError(
            f"--paper-groups is about channels, {method} removes single weights; leave it out"
        )
    if device_kind != "systolic":
        raise ConfigError(
            f"{method} needs the price of single weights, which {request.devices[0]} does not tell; "
            f"use --device {DEFAULT_DEVICE} or systolic:FILE.toml"
        )
    if len(request.budgets) > 1 or len(request.devices) > 1:
        raise ConfigError(f"{method} takes one budget and one device; leave the others out")
    if not request.budgets[0].relative or request.budgets[0].metric is not Metric.ENERGY:
        raise ConfigError(
            f"a budget of {method} is a share of the dense network's energy; give --budget 20%"
        )
    off = (request.pruning.margin, request.pruning.confidence)
    if request.profiles or off != (None, None):
        raise ConfigError(
            f"single weights are counted, not fitted; {method} takes no --profile, --margin or --confidence"
        )


def _check_feasible(request: PruneRequest, pricing: ArrayPricing) -> None:
    """Refuse what cannot be had: a pattern or masks that no layer can have, a budget below the cheapest network."""
    problem = pricing.problem()
    pattern = pricing.pattern
    if pattern is not None and not any(layer.pattern for layer in problem.layers):
        raise ConfigError(
            f"no layer can have the pattern {pattern.text}: it takes convolutions of one group and linear layers whose "
            f"inputs are a multiple of {pattern.of}; leave out --pattern"
        )
    if request.pruning.input_mask and not maskable(pricing.shapes):
        raise ConfigError(
            "no layer can have an input mask: it takes convolutions that run once; leave out --input-mask"
        )
    joint = request.pruning.input_mask and request.wsp.mask_schedule == "joint"
    cheapest = pricing.without_inputs() if joint else problem
    cheapest.check_feasible(pricing.dense_cost)


def _run(
    folder: RunFolder, request: PruneRequest, ready: Prepared, *, teller: Teller, world: World
) -> Dict[str, object]:  # fmt: skip
    started = perf_counter()
    pricing, model = ready.pricing, ready.pricing.model
    trainer = make_trainer(
        folder, request, model=model, data=ready.data, training=ready.training, on_step=teller.step,
        compute=ready.compute, world=world,
    )  # fmt: skip
    teller.stage(SCORING, "the dense network")
    dense = trainer.dense_scores()
    teller.scored(dense, "dense")
    if request.pruning.input_mask:
        attach(model, maskable(pricing.shapes))
    status = remove_weights(
        folder, request, pricing=pricing, trainer=trainer, steps=ready.steps,
        training=ready.training,
    )  # fmt: skip
    problem = pricing.problem()
    if status != "already_within":
        steps = trainer.train("finetune", ready.finetune_steps, FixedWeights(problem, model))
        folder.add_history(finetune=thinned(steps))
    teller.stage(SCORING, "the pruned network")
    result = {
        "run": str(folder.path),
        "method": request.pruning.method,
        **_priced(request, pricing, problem.cost_of(model)),
        "dense": {"accuracy": next(iter(dense.values())), "cost": pricing.dense_cost},
        **scores_in(ready.data, dense, trainer.scores()),
        "widths": {},
        "density": _density(problem, pricing),
        "mask_density": {name: float(mask.mean()) for name, mask in pricing.masks().items()},
        "pattern": _pattern_layers(problem, pricing),
        "rounds": read_rounds(folder),
        "steps": ready.steps,
        "finetune_steps": ready.finetune_steps,
        "status": status,
        "hardware": asdict(pricing.array),
        "compute": trainer.computed(),
        "seconds": perf_counter() - started,
    }
    world.barrier()  # all have read what goes when the result is written
    write_result(folder, result, model=model, source=ready.source, spec=ready.spec)
    return result


def _priced(request: PruneRequest, pricing: ArrayPricing, cost: float) -> Dict[str, object]:
    """Return what a result tells of the budget, as `budgets.result_of` does of budgets of channels."""
    budget = {
        "value": pricing.bound,
        "unit": Metric.ACCESSES.unit,
        "metric": Metric.ACCESSES.value,
        "text": request.budgets[0].text,
    }
    told = {"cost": cost, "meter": pricing.array.meter, "device": pricing.array.device}
    listed = {**budget, **told, "dense": pricing.dense_cost, "margin": 0.0}
    return {"budget": budget, **told, "budgets": [listed]}


def _density(problem: SparseProblem, pricing: ArrayPricing) -> Mapping[str, float]:
    return {
        layer.parameter.rpartition(".")[0]: float(np.count_nonzero(values) / values.size)
        for layer, values in zip(problem.layers, problem.weights(pricing.model))
    }


def _pattern_layers(problem: SparseProblem, pricing: ArrayPricing) -> Optional[Dict[str, object]]:
    """Return the pattern and layer name -> whether it applies, None without one."""
    if pricing.pattern is None:
        return None
    layers = {
        layer.parameter.rpartition(".")[0]: layer.pattern is not None for layer in problem.layers
    }
    return {"text": pricing.pattern.text, "layers": layers}


def _identity(request: PruneRequest, ready: Prepared) -> Dict[str, object]:
    return {
        "kind": "weights",
        "weights_sha256": weights_digest(ready.pricing.model),
        "budget": request.budgets[0].text,
        "bound": ready.pricing.bound,
        "data": request.data,
        DATA_DIGEST: digest_of(ready.data),
        "hardware": asdict(ready.pricing.array),
        "steps": ready.steps,
        "finetune_steps": ready.finetune_steps,
        "method": request.pruning.method,
        "wsp": asdict(request.wsp),
        "training": asdict(ready.training),
        "input_mask": request.pruning.input_mask,
        "pattern": request.pruning.pattern,
        "precision": request.compute.precision,
    }
