"""What a pruning run is asked to do, and how a run folder becomes its own: shared by channels and weights."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from torch import nn

from edgeecc.artifacts import Tensors, read_tensors
from edgeecc.check_set import scored
from edgeecc.config import (
    BATCH_SIZES,
    ComputeConfig,
    EccConfig,
    PruneConfig,
    TaskName,
    TrainConfig,
    WspConfig,
)
from edgeecc.cost.profile import Profile
from edgeecc.data.sources import DataBundle
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.graph.spec import NetworkSpec
from edgeecc.networks.weights import load_into
from edgeecc.normalisation import Normalisation
from edgeecc.own_code import seal
from edgeecc.run_folder import FILES, RESULT_SCHEMA, UNFINISHED, RunFolder, differing, profile_name
from edgeecc.solvers.base import Step
from edgeecc.solvers.table import method
from edgeecc.sources import NetworkSource
from edgeecc.training.compute import Compute
from edgeecc.training.loop import Checkpointing, Slimmed, TorchTrainer
from edgeecc.training.parallel import ALONE, World
from edgeecc.training.task import Task
from edgeecc.training.tasks import make_task
from edgeecc.units import Budget, check_distinct

#: What a request calls the digest of its images.
DATA_DIGEST = "data_sha256"
#: Called with the phase ("prune", "finetune") and each step.
OnPhaseStep = Callable[[str, Step], None]
#: Losses of fine-tuning that are kept at most: charts show no more (ours).
FINETUNE_ROWS = 500


@dataclass(frozen=True)
class PruneRequest:
    """What the user asked for.

    Args:
        weights: trained weights.
        budget: bound on one metric, or bounds on several that are to hold together.
        data: data set, as `--data` names it.
        network, input_shape: see `open_network`.
        paper_groups: keep residual streams whole.
        normalisation: of images; None takes the network's, or else the data set's.
        device, profile: see `PriceQuery`; where several metrics have one each, all of them, in any order.
        workspace: folder that holds calibration/ and runs/.
        run: run folder; None names one after the network and the budgets.
        force: start over where a run of another kind or a finished one is.
        pruning, ecc, wsp, training: settings; `ecc` of channels, `wsp` of single weights.
        settings: of the method, where it is neither of those; None takes its defaults.
        compute: what trains, and in which precision.
    """

    weights: Path
    budget: Union[Budget, Tuple[Budget, ...]]
    data: str
    network: Optional[str] = None
    input_shape: Optional[Tuple[int, ...]] = None
    paper_groups: bool = False
    normalisation: Optional[Normalisation] = None
    device: Union[str, Tuple[str, ...], None] = None
    profile: Union[Path, Tuple[Path, ...], None] = None
    workspace: Path = Path()
    run: Optional[Path] = None
    force: bool = False
    pruning: PruneConfig = field(default_factory=PruneConfig)
    ecc: EccConfig = field(default_factory=EccConfig)
    wsp: WspConfig = field(default_factory=WspConfig)
    training: TrainConfig = field(default_factory=TrainConfig)
    settings: Optional[object] = None
    compute: ComputeConfig = field(default_factory=ComputeConfig)

    def __post_init__(self) -> None:
        if not self.budgets:
            raise ConfigError("a run needs a budget; give --budget")
        check_distinct(self.budgets)
        needs_adam = self.pruning.method == "ecc" and self.ecc.metric == "adam"
        if needs_adam and self.training.optimizer != "adam":
            raise ConfigError(
                f"metric adam of ecc reads Adam's moments, which {self.training.optimizer} does not keep; leave out "
                "--optimizer"
            )
        if self.training.finetune and self.pruning.finetune_steps is not None:
            raise ConfigError("both --finetune and --finetune-steps are given; leave one out")

    @property
    def budgets(self) -> Tuple[Budget, ...]:
        """The budgets; the first is the one whose cost progress and `result.json` tell before the others."""
        return self.budget if isinstance(self.budget, tuple) else (self.budget,)

    @property
    def devices(self) -> Tuple[str, ...]:
        """The devices that were named."""
        named = () if self.device is None else self.device
        return named if isinstance(named, tuple) else (named,)

    @property
    def profiles(self) -> Tuple[Path, ...]:
        """The profile files that were named."""
        named = () if self.profile is None else self.profile
        return named if isinstance(named, tuple) else (named,)

    def method_settings(self) -> Optional[object]:
        """Return the settings of the method, None for its defaults."""
        return self.ecc if self.pruning.method == "ecc" else self.settings


@contextlib.contextmanager
def claimed(  # noqa: PLR0913  # keyword-only, what a fresh folder holds, and who claims it
    request: PruneRequest, identity: Mapping[str, object], *, model: nn.Module, source: NetworkSource,
    spec: NetworkSpec, profiles: Sequence[Profile] = (), world: World = ALONE,
) -> Iterator[RunFolder]:  # fmt: skip
    """Hold the request's run folder: a fresh one, or the same request's to resume.

    The first process of a job makes it, then the others see that it is theirs.

    Raises: ArtifactError when it holds another run or a finished one, another process holds it, or a process of the
        job cannot see it.
    """
    folder = RunFolder(request.run or default_run(request, source), writes=world.is_main)
    with folder.locked():
        if world.is_main and _is_fresh(folder, source, identity, force=request.force):
            folder.drop(("run.json", *FILES))  # the request first: a kill leaves a folder of nobody
            folder.write_tensors(
                "dense.safetensors", tensors_of(model), {"network": source.reference}
            )
            folder.write_spec(spec)
            source.keep_in(folder.path)
            for profile in profiles:
                profile.save(folder.file(profile_name(profile.metric)))
            body: Dict[str, object] = {"source": source.to_json(), "request": dict(identity)}
            sealed = seal(body["source"], body["request"])
            body.update({} if sealed is None else {"own_code": sealed})
            folder.write_run(body)  # from here on it is this request's
        world.barrier()
        if not world.is_main:
            _check_joined(folder, source, identity)
        yield folder


def _check_joined(folder: RunFolder, source: NetworkSource, identity: Mapping[str, object]) -> None:
    """Check that a further process of a job has the folder and the request of the first."""
    if not folder.has("run.json"):
        raise ArtifactError(
            f"{folder.path} is not where the first process made it; take a folder that all machines share"
        )
    told = _otherwise(folder, source, identity)
    if told:
        raise ConfigError(
            f"the first process was asked for something else, with {told}; give all processes the same files and "
            "options"
        )


def _is_fresh(
    folder: RunFolder, source: NetworkSource, identity: Mapping[str, object], *, force: bool
) -> bool:
    if force or not folder.has("run.json"):
        return True
    told = _otherwise(folder, source, identity)
    if told:
        raise ArtifactError(
            f"{folder.path} holds another run, with {told}; choose another with --run, or --force to replace it"
        )
    if folder.has("result.json"):
        folder.tidy()
        raise ArtifactError(f"{folder.path} is finished; export it, or --force to prune again")
    return False


def _otherwise(folder: RunFolder, source: NetworkSource, identity: Mapping[str, object]) -> str:
    """Return in words what the folder's run was asked otherwise, empty where it was asked the same."""
    asked = json.loads(json.dumps({"request": dict(identity), "source": source.to_json()}))
    return differing(_request_of(folder.read_run(), asked), asked)


def _request_of(
    run: Mapping[str, object], asked: Mapping[str, Mapping[str, object]]
) -> Dict[str, object]:
    """Return what a run was asked for; runs of 0.1.0 do not tell which images they saw, which are taken on trust."""
    request = run.get("request")
    known = dict(request) if isinstance(request, dict) else {}
    images = {DATA_DIGEST: asked["request"].get(DATA_DIGEST)} if DATA_DIGEST not in known else {}
    return {"request": {**known, **images}, "source": run.get("source")}


def task_of(data: DataBundle) -> Task:
    """Return what the labels of a data set ask for."""
    return make_task(data.task, data.classes)


def trained_task(data: DataBundle, training: TrainConfig) -> Task:
    """Return the task of a data set as it is trained, its classes weighed where that is asked for."""
    task = task_of(data)
    return task.fitted(data.train) if training.class_weights else task


def make_trainer(  # noqa: PLR0913  # keyword-only, one each
    folder: RunFolder, request: PruneRequest, *, model: nn.Module, data: DataBundle, training: TrainConfig,
    held_out: int = 0, on_step: OnPhaseStep, compute: Compute, world: World, slimmed: Optional[Slimmed] = None,
) -> TorchTrainer:  # fmt: skip
    """Return the trainer of a run; its checkpoints are in the run folder."""
    checkpointing = Checkpointing(
        folder.file("checkpoint.safetensors"),
        request.pruning.checkpoint_s,
        folder.file("search.safetensors"),
    )
    return TorchTrainer(
        model,
        data.train,
        data.val,
        config=training,
        task=trained_task(data, training),
        checkpointing=checkpointing,
        held_out=held_out,
        judged=request.pruning.judged,
        val_apart=request.pruning.val_apart,
        on_step=on_step,
        compute=compute,
        world=world,
        slimmed=slimmed,
    )


def scores_in(
    data: DataBundle, dense: Mapping[str, float], pruned: Mapping[str, float]
) -> Dict[str, object]:
    """Return how the dense and the pruned network did, as results say it; the pruned one's is the accuracy."""
    return {**scored(data.task, pruned), "scores": {"dense": dict(dense), "pruned": dict(pruned)}}


def weights_digest(model: nn.Module) -> str:
    """Return the hex digest of the state dict."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors_of(model).items()):
        digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def tensors_of(model: nn.Module) -> Tensors:
    """Return the state dict as numpy arrays."""
    return {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}


def restore_(model: nn.Module, path: Path) -> Mapping[str, str]:
    """Take back in place what `tensors_of` gave and a file keeps; return the file's metadata."""
    arrays, metadata = read_tensors(path)
    load_into(model, {name: torch.from_numpy(value.copy()) for name, value in arrays.items()})
    return metadata


def write_result(
    folder: RunFolder, result: Mapping[str, object], *, model: nn.Module, source: NetworkSource, spec: NetworkSpec
) -> None:  # fmt: skip
    """Write the pruned network and, last, result.json: from here on the run is finished."""
    metadata = {"network": source.reference, "fingerprint": spec.fingerprint()}
    folder.write_tensors("masked.safetensors", tensors_of(model), metadata)
    folder.write_json("result.json", RESULT_SCHEMA, result)
    folder.drop(UNFINISHED)


def default_run(request: PruneRequest, source: NetworkSource) -> Path:
    """Return the run folder that is named after the network, the method with its options, and the budgets."""
    budgets = [budget.text.replace("%", "pct").replace(" ", "") for budget in request.budgets]
    pruning = request.pruning
    pattern = [] if pruning.pattern is None else [pruning.pattern.replace(":", "of")]
    masks = ["masked"] if pruning.input_mask else []
    name = "-".join([source.folder, pruning.method, *pattern, *masks, *budgets])
    return request.workspace / "runs" / name


def thinned(history: Sequence[Step]) -> Dict[str, List[float]]:
    """Return steps and losses of a phase as history.json keeps them: evenly FINETUNE_ROWS at most, and the last."""
    every = -(-len(history) // FINETUNE_ROWS) or 1
    kept = [*history[: len(history) - 1 : every], *history[-1:]]
    return {"step": [step.step for step in kept], "loss": [step.loss for step in kept]}


def step_counts(pruning: PruneConfig, training: TrainConfig, images: int) -> Tuple[int, int]:
    """Return pruning and fine-tuning steps: as asked, or scaled to the data set.

    Two passes over the data each, but at least 300 steps, in which a small set is seen often enough, and at
    most 30,000, the paper's count for its smaller data set (ECC section 4.2).
    """
    two_passes = min(30_000, max(300, 2 * images // training.images_per_batch))
    steps, finetune = pruning.steps, pruning.finetune_steps
    if training.finetune:
        finetune = sum(stage.steps for stage in training.finetune)
    return two_passes if steps is None else steps, two_passes if finetune is None else finetune


def held_out_images(pruning: PruneConfig, images: int) -> int:
    """Return how many training images are held out: as asked, or the usual number where the method chooses."""
    if pruning.held_out is not None:
        return pruning.held_out
    return usual_held_out(images) if method(pruning.method).chooses else 0


def usual_held_out(images: int) -> int:
    """Return how many of the training images a choice needs: a tenth, at most 2,000.

    Two thousand tell accuracies a point apart; AMC's code takes 3,000 of ImageNet (ours).
    """
    return min(2000, images // 10)


def settled(training: TrainConfig, input_shape: Tuple[int, ...], task: TaskName) -> TrainConfig:
    """Fill in what was left open: the batch size by task, and the learning rate by the size of the images.

    Large images mean large pretrained networks, which want smaller steps.
    """
    small = len(input_shape) == 3 and input_shape[1] * input_shape[2] <= 64 * 64
    rate = 1e-3 if small else 1e-4
    return replace(
        training,
        lr=rate if training.lr is None else training.lr,
        batch_size=BATCH_SIZES[task] if training.batch_size is None else training.batch_size,
    )
