"""Checkpoints of a training phase: safetensors, atomic, without pickle."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple

import torch
from torch import nn

from edgeecc.artifacts import Tensors, read_tensors, write_tensors
from edgeecc.errors import ArtifactError, brief, cause_of
from edgeecc.solvers.base import Hooks, Step
from edgeecc.training.moments import moments_of, take_back_

#: Key of the metadata that names what a journal keeps.
NAME = "name"


def write_state(path: Path, name: str, state: Mapping[str, torch.Tensor]) -> None:
    """Write what a search must remember, under its name."""
    write_tensors(
        path, {key: value.detach().cpu().numpy() for key, value in state.items()}, {NAME: name}
    )


def read_state(path: Path, name: str) -> Optional[Dict[str, torch.Tensor]]:
    """Return what `write_state` wrote under this name, or None when there is nothing.

    Raises: ArtifactError when the file is damaged.
    """
    if not path.is_file():
        return None
    arrays, metadata = _read(path, "search")
    if metadata.get(NAME) != name:
        return None
    return {key: torch.from_numpy(value.copy()) for key, value in arrays.items()}


@dataclass
class Progress:
    """Where a phase stands: steps done, what was reported, and the scale of float16's gradients."""

    done: int
    history: List[Step]
    scale: Optional[Tuple[float, int]] = None


def save(
    path: Path, phase: str, *, model: nn.Module, optimizer: torch.optim.Optimizer, hooks: Hooks, progress: Progress
) -> None:  # fmt: skip
    """Write everything that the phase needs to go on exactly."""
    tensors: Dict[str, torch.Tensor] = {
        f"model.{name}": value for name, value in model.state_dict().items()
    }
    moments = moments_of(model, optimizer)
    tensors.update({f"optimizer.{name}": value for name, value in moments.items()})
    tensors.update({f"hooks.{name}": value for name, value in hooks.state().items()})
    history = json.dumps([asdict(step) for step in progress.history])
    metadata = {"phase": phase, "done": str(progress.done), "history": history}
    metadata["scale"] = json.dumps(progress.scale)
    write_tensors(
        path, {name: value.detach().cpu().numpy() for name, value in tensors.items()}, metadata
    )


def restore(  # keyword-only, what is given back
    path: Path, phase: str, steps: int, *, model: nn.Module, optimizer: torch.optim.Optimizer, hooks: Hooks
) -> Optional[Progress]:  # fmt: skip
    """Take a phase of so many steps up where its checkpoint left it, or return None when there is none for this phase.

    Raises: ArtifactError when the checkpoint is damaged, or of another network or version.
    """
    if not path.is_file():
        return None
    arrays, metadata = _read(path, "phase of training")
    if metadata.get("phase") != phase:
        return None
    tensors = {name: torch.from_numpy(value.copy()) for name, value in arrays.items()}
    try:
        done = int(metadata["done"])
        if not 0 <= done <= steps:
            raise ValueError(f"{done} of {steps} steps are done")  # noqa: TRY301  # told as all of these
        model.load_state_dict(_under("model.", tensors))
        take_back_(model, optimizer, _under("optimizer.", tensors))
        hooks.load_state(_under("hooks.", tensors))
        history = [Step(**step) for step in json.loads(metadata["history"])]
        scale = json.loads(metadata.get("scale", "null"))
        return Progress(done, history, scale and (float(scale[0]), int(scale[1])))
    except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path} is damaged, or of another network or version: {brief(error)}; remove it to begin this phase of "
            "training again"
        ) from error


def _read(path: Path, what: str) -> Tuple[Tensors, Dict[str, str]]:
    """Read a file of which nothing but the work at hand depends.

    Raises: ArtifactError when it is damaged.
    """
    try:
        return read_tensors(path)
    except ArtifactError as error:
        raise ArtifactError(f"{cause_of(error)}; remove it to begin this {what} again") from error


def _under(prefix: str, tensors: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
    return {
        name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)
    }
