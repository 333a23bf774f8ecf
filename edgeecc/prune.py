"""Prune a trained network to a budget: trace, price, solve, fine-tune, keep everything in a run folder."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Callable, Dict, Mapping, Optional, Tuple

import numpy as np
from torch import nn

from edgeecc.artifacts import Tensors, write_json, write_tensors
from edgeecc.config import EccConfig, PruneConfig, TrainConfig
from edgeecc.data.sources import DataBundle
from edgeecc.data.sources import load as load_data
from edgeecc.errors import ArtifactError
from edgeecc.graph.spec import IntArray, NetworkSpec
from edgeecc.graph.surgery import mask_, mask_tensors
from edgeecc.pricing import Price, PriceQuery, price
from edgeecc.run_folder import RESULT_SCHEMA, RUN_SCHEMA, RunFolder
from edgeecc.solvers.base import Problem, Solver, Step
from edgeecc.solvers.feasibility import check_feasible
from edgeecc.solvers.table import make_solver
from edgeecc.sources import NetworkSource, open_network, trace_source
from edgeecc.training.finetune import FixedPattern
from edgeecc.training.loop import TorchTrainer
from edgeecc.units import Budget

#: Called with the phase ("prune", "finetune") and each step.
OnPhaseStep = Callable[[str, Step], None]


@dataclass(frozen=True)
class PruneRequest:
    """What the user asked for.

    Args:
        weights: trained weights.
        budget: bound on one metric.
        data: data set, as `--data` names it.
        network, input_shape: see `open_network`.
        device, profile: see `PriceQuery`.
        workspace: folder that holds calibration/ and runs/.
        run: run folder; None names one after the network and the budget.
        force: start over where a run of another kind or a finished one is.
    """

    weights: Path
    budget: Budget
    data: str
    network: Optional[str] = None
    input_shape: Optional[Tuple[int, ...]] = None
    device: Optional[str] = None
    profile: Optional[Path] = None
    workspace: Path = Path()
    run: Optional[Path] = None
    force: bool = False
    pruning: PruneConfig = field(default_factory=PruneConfig)
    ecc: EccConfig = field(default_factory=EccConfig)
    training: TrainConfig = field(default_factory=TrainConfig)


@dataclass(frozen=True)
class Prepared:
    """A request after everything that can be refused before training has been checked."""

    model: nn.Module
    source: NetworkSource
    spec: NetworkSpec
    data: DataBundle
    price: Price
    bound: float
    dense_cost: float
    steps: int
    finetune_steps: int


def prune(
    request: PruneRequest, on_step: OnPhaseStep = lambda phase, step: None
) -> Dict[str, object]:
    """Prune, fine-tune and write the run folder; resume an interrupted run of the same request.

    Returns: what `edgeecc prune --json` prints; also in result.json.
    Raises: BudgetInfeasibleError before the first batch when no widths fit the budget; any EdgeeccError of
        the steps on the way.
    """
    ready = prepare(request)
    folder = RunFolder(request.run or _default_run(request, ready.source))
    with folder.locked():
        _claim(folder, request, ready)
        return _run(folder, request, ready, on_step)


def prepare(request: PruneRequest) -> Prepared:
    """Open, trace and price the network, and check the budget against what is feasible."""
    model, source = open_network(request.network, request.input_shape, request.weights)
    data = load_data(request.data, input_shape=source.input_shape, seed=request.training.seed)
    spec = trace_source(model, source)
    data.check_fits(model, source.example())
    query = PriceQuery(
        request.budget.metric,
        request.device,
        request.profile,
        request.workspace,
        request.pruning.margin,
    )
    priced = price(spec, model, source, query)
    dense_cost = priced.cost.predict(spec.vector(spec.dense_widths()))
    bound = request.budget.resolve(dense_cost)
    problem = Problem(spec, priced.cost, bound / (1.0 + priced.margin), request.training.seed)
    check_feasible(problem)
    steps, finetune_steps = _step_counts(request, len(data.train))
    return Prepared(model, source, spec, data, priced, bound, dense_cost, steps, finetune_steps)


def _run(
    folder: RunFolder, request: PruneRequest, ready: Prepared, on_step: OnPhaseStep
) -> Dict[str, object]:  # fmt: skip
    started = perf_counter()
    trainer = TorchTrainer(
        ready.model,
        ready.data,
        config=request.training,
        checkpoint=folder.file("checkpoint.safetensors"),
        checkpoint_s=request.pruning.checkpoint_s,
        on_step=on_step,
    )
    dense_accuracy = trainer.dense_accuracy()
    problem = Problem(
        ready.spec,
        ready.price.cost,
        ready.bound / (1.0 + ready.price.margin),
        request.training.seed,
    )
    solver: Solver = make_solver(request.pruning.method, request.ecc)
    solution = solver.solve(problem, trainer, ready.steps)
    keep = ready.spec.checked_keep(solution.keep)
    mask_(ready.model, ready.spec, keep)
    spent = ready.steps - len(solution.history) if request.pruning.method == "uniform" else 0
    if solution.status != "already_within":
        cost = ready.price.cost.predict(_vector(ready.spec, keep))
        hooks = FixedPattern(mask_tensors(ready.spec, keep), cost)
        trainer.train("finetune", ready.finetune_steps + spent, hooks)
    accuracy = trainer.evaluate()
    result = _result(request, ready, folder, keep)
    result.update(
        dense={"accuracy": dense_accuracy, "cost": ready.dense_cost},
        accuracy=accuracy,
        status=solution.status,
        seconds=perf_counter() - started,
    )
    _write(folder, ready, keep, result)
    return result


def _result(
    request: PruneRequest, ready: Prepared, folder: RunFolder, keep: Mapping[str, IntArray]
) -> Dict[str, object]:  # fmt: skip
    return {
        "run": str(folder.path),
        "method": request.pruning.method,
        "budget": {
            "value": ready.bound,
            "unit": request.budget.metric.unit,
            "metric": request.budget.metric.value,
            "text": request.budget.text,
        },
        "dense": {},
        "accuracy": 0.0,
        "cost": ready.price.cost.predict(_vector(ready.spec, keep)),
        "widths": {
            group.name: [len(keep[group.name]), group.width] for group in ready.spec.prunable
        },
        "steps": {"prune": ready.steps, "finetune": ready.finetune_steps},
        "status": "",
        "meter": ready.price.cost.meter,
        "device": ready.price.device,
        "margin": ready.price.margin,
        "seconds": 0.0,
    }


def _write(
    folder: RunFolder, ready: Prepared, keep: Mapping[str, IntArray], result: Mapping[str, object]
) -> None:  # fmt: skip
    metadata = {"network": ready.source.reference, "fingerprint": ready.spec.fingerprint()}
    write_tensors(folder.file("masked.safetensors"), tensors_of(ready.model), metadata)
    folder.write_keep(keep)
    write_json(folder.file("result.json"), RESULT_SCHEMA, result)
    folder.file("checkpoint.safetensors").unlink(missing_ok=True)


def tensors_of(model: nn.Module) -> Tensors:
    """Return the state dict as numpy arrays."""
    return {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}


def _claim(folder: RunFolder, request: PruneRequest, ready: Prepared) -> None:
    """Make the folder this request's: fresh, or the same request's to resume."""
    identity = _identity(request, ready)
    if folder.has("run.json") and not request.force:
        if folder.read_run().get("request") != identity:
            raise ArtifactError(
                f"{folder.path} holds another run; choose another with --run, or --force to replace it"
            )
        if folder.has("result.json"):
            raise ArtifactError(f"{folder.path} is finished; export it, or --force to prune again")
        return
    for name in ("result.json", "keep.json", "masked.safetensors", "checkpoint.safetensors"):
        folder.file(name).unlink(missing_ok=True)
    write_tensors(
        folder.file("dense.safetensors"),
        tensors_of(ready.model),
        {"network": ready.source.reference},
    )
    folder.write_spec(ready.spec)
    if ready.price.profile is not None:
        ready.price.profile.save(folder.file("profile.json"))
    write_json(
        folder.file("run.json"), RUN_SCHEMA, {"source": ready.source.to_json(), "request": identity}
    )


def _identity(request: PruneRequest, ready: Prepared) -> Dict[str, object]:
    digest = hashlib.sha256()
    for name, value in sorted(tensors_of(ready.model).items()):
        digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return {
        "weights_sha256": digest.hexdigest(),
        "budget": request.budget.text,
        "metric": request.budget.metric.value,
        "bound": ready.bound,
        "data": request.data,
        "device": ready.price.device,
        "margin": ready.price.margin,
        "steps": ready.steps,
        "finetune_steps": ready.finetune_steps,
        "method": request.pruning.method,
        "ecc": asdict(request.ecc),
        "training": asdict(request.training),
    }


def _default_run(request: PruneRequest, source: NetworkSource) -> Path:
    budget = request.budget.text.replace("%", "pct").replace(" ", "")
    return request.workspace / "runs" / f"{source.folder}-{request.pruning.method}-{budget}"


def _step_counts(request: PruneRequest, images: int) -> Tuple[int, int]:
    """Return pruning and fine-tuning steps: as asked, or scaled to the data set.

    Two passes over the data each, but at least 300 steps, in which a small set is seen often enough, and at
    most 30,000, the paper's count for its smaller data set (ECC section 4.2).
    """
    two_passes = min(30_000, max(300, 2 * images // request.training.batch_size))
    steps, finetune = request.pruning.steps, request.pruning.finetune_steps
    return two_passes if steps is None else steps, two_passes if finetune is None else finetune


def _vector(spec: NetworkSpec, keep: Mapping[str, IntArray]) -> np.typing.NDArray[np.float64]:
    return spec.vector({name: len(units) for name, units in keep.items()})
