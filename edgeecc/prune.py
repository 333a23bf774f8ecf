"""Prune a trained network to a budget: trace, price, solve, fine-tune, keep everything in a run folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import Dict, List, Mapping, Tuple

from torch import nn

from edgeecc.artifacts import read_json
from edgeecc.budgets import (
    PricedBudget,
    identity_of,
    price_budgets,
    problem_of,
    profiles_of,
    result_of,
)
from edgeecc.config import TrainConfig
from edgeecc.data.sources import DataBundle, digest_of
from edgeecc.errors import ArtifactError
from edgeecc.graph.spec import FloatArray, IntArray, NetworkSpec
from edgeecc.graph.surgery import mask_, slim, widen_
from edgeecc.progress import OnProgress, Progress, silent
from edgeecc.run_folder import HISTORY_SCHEMA, RunFolder
from edgeecc.run_request import (
    DATA_DIGEST,
    PruneRequest,
    claimed,
    held_out_images,
    make_trainer,
    restore_,
    scores_in,
    settled,
    step_counts,
    task_of,
    tensors_of,
    thinned,
    weights_digest,
    write_result,
)
from edgeecc.solvers.base import ALREADY_WITHIN, Problem, Solution, Solver, Step
from edgeecc.solvers.feasibility import check_feasible
from edgeecc.solvers.finetune import slim_hooks
from edgeecc.solvers.table import make_solver, method
from edgeecc.sources import NetworkSource, load_images, open_network, trace_source
from edgeecc.telling import LOADING, OPENING, PRICING, SCORING, TRACING, Teller, Telling
from edgeecc.training.allocator import freed_memory_kept
from edgeecc.training.compute import Compute, compute_of
from edgeecc.training.loop import TorchTrainer
from edgeecc.training.parallel import ALONE, World


@dataclass(frozen=True)
class Prepared:
    """A request after everything that can be refused before training has been checked."""

    model: nn.Module
    source: NetworkSource
    spec: NetworkSpec
    data: DataBundle
    budgets: Tuple[PricedBudget, ...]
    training: TrainConfig
    steps: int
    finetune_steps: int
    held_out: int
    compute: Compute

    def problem(self) -> Problem:
        """Return what the solver is to solve."""
        return problem_of(self.spec, self.budgets, self.training.seed)


def prune(
    request: PruneRequest, on_progress: OnProgress = silent, world: World = ALONE
) -> Dict[str, object]:
    """Prune, fine-tune and write the run folder; resume an interrupted run of the same request.

    Args:
        request: the same in every process.
        on_progress: told in every process.
        world: the processes of the job, see `training.parallel.job`; the first one writes.
    Returns: what `edgeecc prune --json` prints; also in result.json.
    Raises: BudgetInfeasibleError before the first batch when no widths fit the budget; any EdgeeccError of
        the steps on the way.
    """
    ready = prepare(request, on_progress)
    teller = Teller(on_progress, [Telling.of(each) for each in ready.budgets])
    with claimed(
        request,
        _identity(request, ready),
        model=ready.model,
        source=ready.source,
        spec=ready.spec,
        profiles=profiles_of(ready.budgets),
        world=world,
    ) as folder, freed_memory_kept(ready.compute.device):
        return _run(folder, request, ready, teller=teller, world=world)


def prepare(request: PruneRequest, on_progress: OnProgress = silent) -> Prepared:
    """Open, trace and price the network, and check the budget against what is feasible."""
    on_progress(Progress(OPENING))
    model, source = open_network(
        request.network,
        request.input_shape,
        request.weights,
        paper_groups=request.paper_groups,
        normalisation=request.normalisation,
    )
    on_progress(Progress(LOADING, note=request.data))
    data = load_images(source, request.data, request.training.seed)
    on_progress(Progress(TRACING, note=source.reference))
    traced = trace_source(model, source)
    spec = traced.spec
    data.check_fits(model, source.example(), task_of(data))
    on_progress(Progress(PRICING))
    budgets = price_budgets(request, traced, source)
    training = settled(request.training, source.input_shape, data.task)
    steps, finetune_steps = step_counts(request.pruning, training, len(data.train))
    ready = Prepared(
        model=model,
        source=source,
        spec=spec,
        data=data,
        budgets=budgets,
        training=training,
        steps=steps,
        finetune_steps=finetune_steps,
        held_out=held_out_images(request.pruning, len(data.train)),
        compute=compute_of(request.compute),
    )
    check_feasible(ready.problem(), [each.price.margin for each in budgets])
    return ready


def _run(
    folder: RunFolder, request: PruneRequest, ready: Prepared, *, teller: Teller, world: World
) -> Dict[str, object]:  # fmt: skip
    started = perf_counter()
    trainer = make_trainer(
        folder, request, model=ready.model, data=ready.data, training=ready.training, held_out=ready.held_out,
        on_step=teller.step, compute=ready.compute, world=world,
        slimmed=lambda model, keep: slim(model, ready.spec, keep),
    )  # fmt: skip
    teller.stage(SCORING, "the dense network")
    dense = trainer.dense_scores()
    teller.scored(dense, "dense")
    problem = ready.problem()
    solution = _solved(folder, request, ready, problem, trainer)
    pruned_accuracy = _before_finetuning(folder, trainer)
    teller.scored({next(iter(dense)): pruned_accuracy}, "pruned")
    if _is_trained(solution):
        folder.add_history(finetune=thinned(_finetune(ready, trainer, solution)))
    result = _result(request, ready, folder, solution)
    teller.stage(SCORING, "the pruned network")
    result.update(
        scores_in(ready.data, dense, trainer.scores()),
        dense={"accuracy": next(iter(dense.values())), "cost": ready.budgets[0].dense_cost},
        pruned_accuracy=pruned_accuracy,
        judged_score=trainer.judged(),
        status=solution.status,
        compute=trainer.computed(),
        seconds=perf_counter() - started,
    )
    write_result(folder, result, model=ready.model, source=ready.source, spec=ready.spec)
    return result


def _solved(
    folder: RunFolder, request: PruneRequest, ready: Prepared, problem: Problem, trainer: TorchTrainer
) -> Solution:  # fmt: skip
    """Solve, or take the solution that an interrupted run left; it is on disk before fine-tuning begins."""
    if folder.has("keep.json") and folder.has("pruned.safetensors"):
        metadata = restore_(ready.model, folder.file("pruned.safetensors"))
        keep = folder.read_keep(ready.spec)
        return Solution(keep, metadata.get("status", ""), (), _left_in(metadata, folder))
    solver: Solver = make_solver(request.pruning.method, request.method_settings())
    solution = solver.solve(problem, trainer, ready.steps)
    keep = ready.spec.checked_keep(solution.keep)
    mask_(ready.model, ready.spec, keep)
    folder.write_tensors(
        "pruned.safetensors",
        tensors_of(ready.model),
        {"status": solution.status, "left": str(solution.left)},
    )
    history = [asdict(step) for step in solution.history]
    document: Dict[str, object] = {"prune": history, "pruned_accuracy": trainer.evaluate()}
    if solution.course:
        document["course"] = solution.course
    folder.write_json("history.json", HISTORY_SCHEMA, document)
    folder.write_keep(keep)
    return replace(solution, keep=keep)


def _is_trained(solution: Solution) -> bool:
    """Return whether there is anything to fine-tune."""
    return solution.status != ALREADY_WITHIN


def _finetune(ready: Prepared, trainer: TorchTrainer, solution: Solution) -> List[Step]:
    """Train what stays as a physically smaller network, which computes the same in less time, and write it back.

    Batches go on where pruning stopped, and steps that it did not need are trained here.

    Returns: its history.
    """
    small = slim(ready.model, ready.spec, solution.keep)
    history = trainer.on(small).train(
        "finetune",
        ready.finetune_steps + solution.left,
        slim_hooks(ready.problem(), solution.keep),
        first_batch=ready.steps - solution.left,
    )
    widen_(ready.model, small, ready.spec, solution.keep)
    return history


def _before_finetuning(folder: RunFolder, trainer: TorchTrainer) -> float:
    """Return the score of the masked network as the solver left it, kept through interruptions of fine-tuning."""
    trainer.world.barrier()  # the first process writes it
    known = read_json(folder.file("history.json"), HISTORY_SCHEMA).get("pruned_accuracy")
    # The history of an earlier version lacks it; the network still is as the solver left it here.
    return float(known) if isinstance(known, float) else trainer.evaluate()


def _left_in(metadata: Mapping[str, str], folder: RunFolder) -> int:
    """Return the steps that an interrupted run's solver left to fine-tuning."""
    text = metadata.get("left", "")
    if not text.isdecimal():
        raise ArtifactError(
            f"{folder.file('pruned.safetensors')} does not tell how many steps are left; remove it to prune again"
        )
    return int(text)


def _result(
    request: PruneRequest, ready: Prepared, folder: RunFolder, solution: Solution
) -> Dict[str, object]:  # fmt: skip
    keep = solution.keep
    return {
        "run": str(folder.path),
        "method": request.pruning.method,
        **result_of(ready.budgets, _vector(ready.spec, keep)),
        "dense": {},
        "accuracy": 0.0,
        "widths": {
            group.name: [len(keep[group.name]), group.width] for group in ready.spec.prunable
        },
        "steps": ready.steps - solution.left,
        "finetune_steps": ready.finetune_steps + solution.left if _is_trained(solution) else 0,
        "status": "",
        "seconds": 0.0,
    }


def _settings(request: PruneRequest) -> Dict[str, object]:
    settings = request.method_settings() or method(request.pruning.method).settings()
    return asdict(settings)  # type: ignore[call-overload,no-any-return]  # a dataclass, as the table says


def _identity(request: PruneRequest, ready: Prepared) -> Dict[str, object]:
    return {
        "kind": "channels",
        "weights_sha256": weights_digest(ready.model),
        **identity_of(ready.budgets),
        "data": request.data,
        DATA_DIGEST: digest_of(ready.data),
        "steps": ready.steps,
        "finetune_steps": ready.finetune_steps,
        "method": request.pruning.method,
        "paper_groups": request.paper_groups,
        "settings": _settings(request),
        "held_out": ready.held_out,
        "judged": request.pruning.judged,
        # Left out where there are none, as in runs of earlier versions.
        **({"val_apart": request.pruning.val_apart} if request.pruning.val_apart else {}),
        "training": asdict(ready.training),
        "precision": request.compute.precision,
    }


def _vector(spec: NetworkSpec, keep: Mapping[str, IntArray]) -> FloatArray:
    return spec.vector({name: len(units) for name, units in keep.items()})
