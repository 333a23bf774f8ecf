"""What a pruning run is asked to do, and how a run folder becomes its own: shared by channels and weights."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable, Iterator, Mapping, Optional, Tuple

import numpy as np
import torch
from torch import nn

from edgeecc.artifacts import Tensors, read_tensors, write_json, write_tensors
from edgeecc.config import EccConfig, PruneConfig, TrainConfig, WspConfig
from edgeecc.cost.profile import Profile
from edgeecc.data.sources import DataBundle
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.graph.spec import NetworkSpec
from edgeecc.networks.weights import load_into
from edgeecc.run_folder import FILES, RESULT_SCHEMA, RUN_SCHEMA, UNFINISHED, RunFolder
from edgeecc.solvers.base import Step
from edgeecc.sources import NetworkSource
from edgeecc.training.loop import Checkpointing, TorchTrainer
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
        pruning, ecc, wsp, training: settings; `ecc` of channels, `wsp` of single weights.
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
    wsp: WspConfig = field(default_factory=WspConfig)
    training: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        needs_adam = self.pruning.method == "ecc" and self.ecc.metric == "adam"
        if needs_adam and self.training.optimizer != "adam":
            raise ConfigError(
                f"metric adam of ecc reads Adam's moments, which {self.training.optimizer} does not keep; leave out "
                "--optimizer"
            )


@contextlib.contextmanager
def claimed(  # keyword-only, what a fresh folder holds
    request: PruneRequest, identity: Mapping[str, object], *, model: nn.Module, source: NetworkSource,
    spec: NetworkSpec, profile: Optional[Profile] = None,
) -> Iterator[RunFolder]:  # fmt: skip
    """Hold the request's run folder: a fresh one, or the same request's to resume.

    Raises: ArtifactError when it holds another run or a finished one, or another process holds it.
    """
    folder = RunFolder(request.run or default_run(request, source))
    with folder.locked():
        if _is_fresh(folder, source, identity, force=request.force):
            for name in FILES:
                folder.file(name).unlink(missing_ok=True)
            write_tensors(
                folder.file("dense.safetensors"), tensors_of(model), {"network": source.reference}
            )
            folder.write_spec(spec)
            source.keep_in(folder.path)
            if profile is not None:
                profile.save(folder.file("profile.json"))
            body = {"source": source.to_json(), "request": dict(identity)}
            write_json(
                folder.file("run.json"), RUN_SCHEMA, body
            )  # from here on it is this request's
        yield folder


def _is_fresh(
    folder: RunFolder, source: NetworkSource, identity: Mapping[str, object], *, force: bool
) -> bool:
    if force or not folder.has("run.json"):
        return True
    run = folder.read_run()
    if run.get("request") != identity or run.get("source") != source.to_json():
        raise ArtifactError(
            f"{folder.path} holds another run; choose another with --run, or --force to replace it"
        )
    if folder.has("result.json"):
        raise ArtifactError(f"{folder.path} is finished; export it, or --force to prune again")
    return False


def make_trainer(  # keyword-only, one each
    folder: RunFolder, request: PruneRequest, *, model: nn.Module, data: DataBundle, training: TrainConfig,
    on_step: OnPhaseStep,
) -> TorchTrainer:  # fmt: skip
    """Return the trainer of a run; its checkpoints are in the run folder."""
    checkpointing = Checkpointing(
        folder.file("checkpoint.safetensors"), request.pruning.checkpoint_s
    )
    return TorchTrainer(
        model, data.train, data.val, config=training, checkpointing=checkpointing, on_step=on_step
    )


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
    write_tensors(folder.file("masked.safetensors"), tensors_of(model), metadata)
    write_json(folder.file("result.json"), RESULT_SCHEMA, result)
    for name in UNFINISHED:
        folder.file(name).unlink(missing_ok=True)


def default_run(request: PruneRequest, source: NetworkSource) -> Path:
    """Return the run folder that is named after the network, the method with its options, and the budget."""
    budget = request.budget.text.replace("%", "pct").replace(" ", "")
    pruning = request.pruning
    pattern = [] if pruning.pattern is None else [pruning.pattern.replace(":", "of")]
    masks = ["masked"] if pruning.input_mask else []
    name = "-".join([source.folder, pruning.method, *pattern, *masks, budget])
    return request.workspace / "runs" / name


def step_counts(request: PruneRequest, images: int) -> Tuple[int, int]:
    """Return pruning and fine-tuning steps: as asked, or scaled to the data set.

    Two passes over the data each, but at least 300 steps, in which a small set is seen often enough, and at
    most 30,000, the paper's count for its smaller data set (ECC section 4.2).
    """
    two_passes = min(30_000, max(300, 2 * images // request.training.batch_size))
    steps, finetune = request.pruning.steps, request.pruning.finetune_steps
    return two_passes if steps is None else steps, two_passes if finetune is None else finetune


def with_rate(training: TrainConfig, input_shape: Tuple[int, ...]) -> TrainConfig:
    """Fill in the learning rate: large images mean large pretrained networks, which want smaller steps."""
    if training.lr is not None:
        return training
    small = len(input_shape) == 3 and input_shape[1] * input_shape[2] <= 64 * 64
    return replace(training, lr=1e-3 if small else 1e-4)
