"""Weights from a file that may come from anywhere: tensors only, never a pickled module."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Dict, Mapping

import torch
from torch import nn

from edgeecc.errors import ArtifactError

State = Dict[str, torch.Tensor]
#: What torch.save wrote before version 1.6 begins with this.
_OLD_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
#: Bytes of tensors for a byte of their file: weights that layers share are told once for each.
_VIEWS = 4
_WRAPPERS = ("state_dict", "model", "model_state_dict")


def load_state(path: Path) -> State:
    """Read a state dict from .safetensors, or from a file of `torch.save(model.state_dict())`.

    A dict wrapped as {"state_dict": ...} is unwrapped and the `module.` of DataParallel dropped.
    Raises: ArtifactError when the file is missing, damaged, pickles more than tensors, or holds NaN.
    """
    if not path.is_file():
        raise ArtifactError(f"cannot read {path}: no such file; check the path")
    if path.suffix == ".safetensors":
        content: object = _load_safetensors(path)
    else:
        content = _load_torch(path)
    state = _tensors(content, path)
    _check_sizes(state, path)
    check_finite(state, path)
    return state


def check_finite(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Check that every weight is a number.

    Raises: ArtifactError naming the first tensor that holds NaN or infinity.
    """
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(
                f"{name} in {path} holds NaN or infinity; the training diverged, take an earlier one"
            )


def load_into(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Copy a state dict into a model; names and shapes must agree.

    Raises: ArtifactError naming the first tensors that do not fit.
    """
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in state.items()}
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    missing = sorted(set(own) - set(given) - counters)
    surplus = sorted(set(given) - set(own))
    wrong = sorted(name for name in set(own) & set(given) if own[name] != given[name])
    if wrong:
        name = wrong[0]
        raise ArtifactError(
            f"the weights have {name} {given[name]}, the network {own[name]}; is it the right network?"
        )
    if missing or surplus:
        what = (
            f"lack {missing[0]!r}" if missing else f"have {surplus[0]!r}, which the network lacks"
        )
        count = len(missing) + len(surplus)
        raise ArtifactError(
            f"the weights {what} ({count} names differ in all); is it the right network?"
        )
    model.load_state_dict(dict(state), strict=False)


def _load_safetensors(path: Path) -> State:
    """Read safetensors as torch tensors: numpy knows no bfloat16."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as handle:
            names = list(handle.keys())
            return {name: handle.get_tensor(name) for name in names}  # the handle is no mapping
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged: {error}; copy or save it again") from error


def _check_sizes(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Check that weights are plain, and that views do not make more of a file than it holds.

    Raises: ArtifactError naming the first tensor that is not.
    """
    size, total = path.stat().st_size, 0
    for name, tensor in state.items():
        plain = (
            tensor.layout is torch.strided
            and tensor.device.type == "cpu"
            and not tensor.is_quantized
        )
        if not plain:
            raise ArtifactError(
                f"{name} in {path} is sparse, quantised or without values; save plain weights"
            )
        total += tensor.numel() * tensor.element_size()
    if total > _VIEWS * size:
        raise ArtifactError(
            f"the tensors of {path} have {total} bytes, the file {size}; save each of them whole"
        )


def _load_torch(path: Path) -> object:
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}; check the path") from error
    except Exception as error:
        if zipfile.is_zipfile(path) or _is_old_pickle(path, error):
            way_out = (
                "save it again with torch.save(model.state_dict(), PATH) and give its --network"
            )
            raise ArtifactError(
                f"{path} pickles more than tensors and is refused; {way_out}"
            ) from error
        raise ArtifactError(
            f"{path} is damaged or no weights file; copy or save it again"
        ) from error


def _check_archive(path: Path) -> None:
    """Check that a zip holds what its entries say: torch stores tensors as they are, and unpacks what is packed.

    Raises: ArtifactError when it holds more.
    """
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            entries = sum(entry.file_size for entry in archive.infolist())
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise ArtifactError(
            f"{path} is damaged or no weights file; copy or save it again"
        ) from error
    if entries > path.stat().st_size:
        raise ArtifactError(
            f"{path} packs its entries, {entries} bytes; save it with torch.save, which does not"
        )


def _is_old_pickle(path: Path, error: Exception) -> bool:
    """Tell a whole file of torch before 1.6, refused for what it pickles, from a damaged one."""
    with path.open("rb") as stream:
        return stream.read(len(_OLD_MAGIC)) == _OLD_MAGIC and "Weights only" in str(error)


def _tensors(content: object, path: Path) -> State:
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise ArtifactError(
            f"{path} holds no state dict; save it with torch.save(model.state_dict(), PATH)"
        )
    state: State = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ArtifactError(
                f"{path} holds {str(name)[:80] if isinstance(name, str) else type(name).__name__!r}, which is no "
                "tensor; save model.state_dict() alone"
            )
        state[name[len("module.") :] if name.startswith("module.") else name] = value
    return state
