"""Read the file that `torch.export.save` wrote, without running anything that it says.

`torch.export.load` (torch 2.13) cannot be given a file from elsewhere: it unpickles every weight or constant that
the archive marks as pickled and every custom object, loads the example inputs with `weights_only=False` when the
safe way fails, and hands the text of symbolic sizes to sympy, which evaluates it. So the archive is read here: a zip
of JSON and of raw tensors. Pickled entries are refused, the example inputs are not looked at, and a symbolic size is
only known to be free. Operators stay names; `edgeecc.networks.exported.aten` says which of them may run.
"""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any, Dict, Mapping

import torch
from torch import nn

from edgeecc.artifacts import MAX_JSON_BYTES
from edgeecc.errors import ArtifactError, GraphError
from edgeecc.networks.exported.program import (
    DTYPES,
    Program,
    is_name,
    read_operation,
    read_signature,
    size,
)

#: Major version of the schema that is read; minor versions are compatible.
SCHEMA = 8
_MAX_RANK = 8


def read_program(path: Path) -> Program:
    """Read a .pt2 file.

    Raises: ArtifactError when it is missing, damaged, of another layout, holds pickles, or what edgeecc cannot prune.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _program(_Archive(path, archive))
    except ArtifactError:
        raise
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from error
    except zipfile.BadZipFile as error:
        raise ArtifactError(f"{path} is no .pt2 file; save it with torch.export.save") from error
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}; check the path") from error
    except Exception as error:  # the file may hold anything, in any nesting
        detail = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise ArtifactError(
            f"{path} is damaged ({detail}); save it again with torch.export.save"
        ) from error


class _Archive:
    """The entries of a .pt2 file: stored as they are, all of them together no larger than the file."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        entries = archive.infolist()
        self._left = path.stat().st_size
        if sum(entry.file_size for entry in entries) > self._left:
            raise self.fault("its entries are larger than the file")
        self._entries = {entry.filename.partition("/")[2]: entry for entry in entries}

    def has(self, name: str) -> bool:
        return name in self._entries

    def bytes(self, name: str) -> bytearray:
        if name not in self._entries:
            raise self.fault(f"it has no {name}")
        return bytearray(self._archive.read(self._entries[name]))

    def json(self, name: str) -> Dict[str, Any]:
        if self.has(name) and self._entries[name].file_size > MAX_JSON_BYTES:
            raise self.fault(f"{name} is larger than {MAX_JSON_BYTES} bytes")
        document = json.loads(self.bytes(name).decode())
        if not isinstance(document, dict):
            raise self.fault(f"{name} is no JSON object")
        return document

    def count(self, tensor: torch.Tensor) -> None:
        """Count a tensor's bytes: many views of one entry must not outgrow the file."""
        self._left -= tensor.numel() * tensor.element_size()
        if self._left < 0:
            raise self.fault("its tensors are larger than the file")

    def fault(self, what: str) -> ArtifactError:
        return ArtifactError(
            f"{self.path} cannot be used: {what}; save it again with torch.export.save of torch "
            f"{torch.__version__.partition('+')[0]}"
        )


def _program(archive: _Archive) -> Program:
    if not archive.has("models/model.json"):
        raise archive.fault("it holds no models/model.json, as older versions of torch wrote it")
    if archive.has("byteorder") and bytes(archive.bytes("byteorder")) != b"little":
        raise archive.fault("its numbers are big-endian")
    document = archive.json("models/model.json")
    if document["schema_version"]["major"] != SCHEMA:
        raise archive.fault(f"its schema is {document['schema_version']['major']}, not {SCHEMA}")
    graph, signature = document["graph_module"]["graph"], document["graph_module"]["signature"]
    ends = read_signature(graph, signature)
    tensors = {**_tensors(archive, "weights"), **_tensors(archive, "constants")}
    missing = set(ends.state.values()) - set(tensors)
    if missing:
        raise archive.fault(f"it holds no {sorted(missing)[0]}")
    return Program(
        ends.inputs,
        ends.outputs,
        tuple(read_operation(node) for node in graph["nodes"]),
        ends.state,
        tensors,
        frozenset(set(tensors) - ends.transient),
        {name: len(meta["sizes"]) for name, meta in graph["tensor_values"].items()},
    )


def _tensors(archive: _Archive, folder: str) -> Dict[str, torch.Tensor]:
    """Return the tensors of one folder; names of one stored tensor share one object."""
    config = archive.json(f"data/{folder}/model_{folder}_config.json")["config"]
    known: Dict[str, torch.Tensor] = {}
    tensors = {}
    for name, entry in config.items():
        place = entry["path_name"]
        if entry["use_pickle"] or entry["tensor_meta"] is None:
            raise ArtifactError(
                f"{archive.path} pickles {name}, which is no plain tensor, and is refused; leave it out of the network"
            )
        if not (is_name(name) and is_name(place)):
            raise archive.fault(f"{name!r} is no tensor's name")
        key = json.dumps([place, entry["is_param"], entry["tensor_meta"]])
        if key not in known:
            tensor = _tensor(archive, name, f"data/{folder}/{place}", entry["tensor_meta"])
            archive.count(tensor)
            if entry["is_param"]:  # frozen or not, it is to be trained
                tensor = nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
            known[key] = tensor
        tensors[name] = known[key]
    return tensors


def _tensor(archive: _Archive, name: str, place: str, meta: Mapping[str, Any]) -> torch.Tensor:
    """Return one tensor; every size is checked against the bytes that are there before anything is allocated."""
    dtype = DTYPES[meta["dtype"]]
    sizes = tuple(size(item) for item in meta["sizes"])
    strides = tuple(size(item) for item in meta["strides"])
    offset = size(meta["storage_offset"])
    data = archive.bytes(place)
    count = len(data) // dtype.itemsize
    last = offset + sum((length - 1) * stride for length, stride in zip(sizes, strides))
    fits = len(sizes) == len(strides) <= _MAX_RANK and math.prod(sizes) <= count and last < count
    if 0 in sizes:
        return torch.empty(sizes, dtype=dtype) if len(sizes) <= _MAX_RANK else torch.empty(0)
    if not fits:
        raise archive.fault(f"{name} lies outside its {len(data)} bytes")
    flat = torch.frombuffer(data, dtype=dtype, count=count)
    return flat.as_strided(sizes, strides, offset).clone(memory_format=torch.contiguous_format)
