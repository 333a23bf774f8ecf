"""Reading and writing artefacts: atomic, versioned, bounded, never pickled.

A writer fills a temporary file beside the target, syncs it and renames it, so a reader sees the old file or
the new one, never half of one. JSON artefacts carry a schema name and version; a reader that meets another
schema says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import platform
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional

import numpy as np
import numpy.typing as npt

from edgeecc import __version__
from edgeecc.errors import ArtifactError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Largest JSON artefact that is read; a spec of ResNet-50 takes about 200 kB.
MAX_JSON_BYTES = 64 * 2**20
#: Longest whole number in a JSON artefact, digits: reading one takes time with the square of its length.
MAX_DIGITS = 40
#: Largest TOML file that is read: people write these by hand.
MAX_TOML_BYTES = 2**20

#: Packages whose versions an artefact names where they are loaded.
_COMPUTES = ("torch", "onnxruntime")

#: Ending of files that are being written.
_SUFFIX = ".tmp"
#: Metadata of tensors in which their checksum is kept.
_CHECKSUM = "sha256"
#: Where Linux tells who holds which lock.
_LOCKS = Path("/proc/locks")

Tensors = Dict[str, npt.NDArray[np.generic]]


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success sync it and rename it to `target`.

    Raises: ArtifactError when the folder cannot be written or the disk is full; the old file stays.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{target.name}.", suffix=_SUFFIX, dir=target.parent
        )
        os.close(handle)
    except OSError as error:
        raise _unwritable(target, error) from error
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
        _sync(target.parent)
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_bytes(target: Path, data: bytes) -> None:
    """Write `data` to `target` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_json(target: Path, schema: str, body: Mapping[str, object]) -> None:
    """Write a JSON artefact: the schema, who made it, then `body`.

    Args:
        target: file to write.
        schema: name and version, as `edgeecc/profile/1`.
        body: JSON-ready values; NaN and infinities are refused, they are not JSON.
    Raises: ArtifactError when the target cannot be written.
    """
    document = {"schema": schema, "made_by": provenance(), **body}
    text = json.dumps(document, indent=1, allow_nan=False, sort_keys=False)
    write_bytes(target, text.encode() + b"\n")


def read_json(source: Path, schema: str) -> Dict[str, object]:
    """Read a JSON artefact of the given schema.

    Raises: ArtifactError when it is missing, too large, no JSON object, or of another schema.
    """
    document = load_json(source)
    found = document.get("schema")
    if found != schema:
        raise ArtifactError(
            f"{source} has schema {found!r}, expected {schema!r}; make it again with this version"
        )
    return document


def load_json(source: Path) -> Dict[str, object]:
    """Read any JSON object, bounded in size and free of NaN.

    Raises: ArtifactError when it is missing, too large, or no JSON object.
    """
    try:
        if source.stat().st_size > MAX_JSON_BYTES:
            raise ArtifactError(
                f"{source} is larger than {MAX_JSON_BYTES} bytes; this is no artefact of edgeecc"
            )
        document = parse_json(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(f"cannot read {source}: {error.strerror}; check the path") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{source} is damaged: {error}; make it again or restore a copy"
        ) from error
    if not isinstance(document, dict):
        raise ArtifactError(f"{source} holds no JSON object; is it the right file?")
    return document


def parse_json(text: str) -> object:
    """Return what JSON says; its numbers are finite and its whole numbers no longer than `MAX_DIGITS`.

    Raises: ValueError for anything else, RecursionError where it is nested too deeply.
    """
    return json.loads(text, parse_constant=_no_constant, parse_int=_whole, parse_float=_finite)


def read_toml(source: Path) -> Dict[str, Any]:
    """Read a TOML file that a person wrote, bounded in size.

    Raises: ArtifactError when it is missing, too large, or no TOML.
    """
    try:
        if source.stat().st_size > MAX_TOML_BYTES:
            raise ArtifactError(
                f"{source} is larger than {MAX_TOML_BYTES} bytes; is it the right file?"
            )
        document: Dict[str, Any] = tomllib.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(f"cannot read {source}: {error.strerror}; check the path") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"cannot read {source}: {error}; mend it or move it away") from error
    return document


def write_tensors(
    target: Path, tensors: Mapping[str, npt.NDArray[np.generic]], metadata: Mapping[str, str]
) -> None:
    """Write named arrays as safetensors with a checksum, atomically."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    contiguous = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    kept = {**metadata, _CHECKSUM: _checksum(contiguous, metadata)}
    with atomic_path(target) as temporary:
        try:
            save_file(contiguous, temporary, kept)
        except SafetensorError as error:
            raise OSError(None, f"{error}") from error  # a full disk, in safetensors' own words


def read_tensors(source: Path) -> tuple[Tensors, Dict[str, str]]:
    """Read what `write_tensors` wrote: its arrays and its metadata, which must be what their checksum says.

    Raises: ArtifactError when it is missing or damaged, or has no checksum: then its name may be what was damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not source.is_file():
        raise ArtifactError(f"cannot read {source}: no such file; check the path")
    try:
        with safe_open(str(source), framework="np") as handle:
            tensors = {name: handle.get_tensor(name) for name in list(handle.keys())}  # no mapping
            metadata = dict(handle.metadata() or {})
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise ArtifactError(
            f"{source} is damaged: {error}; make it again or restore a copy"
        ) from error
    wanted = metadata.pop(_CHECKSUM, None)
    if wanted != _checksum(tensors, metadata):
        seen = "it has no checksum" if wanted is None else "it is not what its checksum says"
        raise ArtifactError(f"{source} is damaged: {seen}; make it again or restore a copy")
    return tensors, metadata


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as hex digits.

    Raises: ArtifactError when it cannot be read.
    """
    found = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            for block in iter(lambda: stream.read(2**20), b""):
                found.update(block)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}; check the path") from error
    return found.hexdigest()


@contextlib.contextmanager
def exclusive(folder: Path, hint: str) -> Iterator[None]:
    """Hold `folder` for this process; the lock ends with the process, however that ends.

    Args:
        folder: made if it is not there.
        hint: what the user can do when another process holds it.
    Raises: ArtifactError when another process holds it or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A link would have the file made wherever it points.
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise ArtifactError(
            f"cannot write folder {folder}: {error.strerror}; choose another"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(handle)
            raise ArtifactError(f"{folder} is in use by another process{holder}; {hint}") from error
        for leftover in folder.glob(f".*{_SUFFIX}"):
            with contextlib.suppress(OSError):
                leftover.unlink()  # of a writer that was killed: nobody else writes here now
        yield
    finally:
        os.close(handle)


def provenance() -> Dict[str, str]:
    """Return who made an artefact: versions, platform and date, no host names and no paths.

    Versions of what computes are those of packages that are loaded.
    """
    loaded = {name: getattr(sys.modules.get(name), "__version__", "") for name in _COMPUTES}
    return {
        "edgeecc": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        **{name: str(version) for name, version in loaded.items() if version},
        "platform": f"{sys.platform}-{platform.machine()}",
        "made_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def number(value: object, what: str, source: object) -> float:
    """Return `value` as a finite float.

    Raises: ArtifactError naming `what` in `source`.
    """
    found = figure(value)
    if found is None:
        raise ArtifactError(
            f"{what} in {source} must be a finite number, found {value!r}; the file is damaged"
        )
    return found


def figure(value: object) -> Optional[float]:
    """Return a finite number as a float; None for anything else, and for an integer that no float reaches."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if -sys.float_info.max <= value <= sys.float_info.max else None


def _checksum(tensors: Mapping[str, npt.NDArray[np.generic]], metadata: Mapping[str, str]) -> str:
    """Return the sha256 of arrays, with their names, types and shapes, and of metadata, as hex digits."""
    found = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype.str} {value.shape}".encode())
        found.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _holder(handle: int) -> str:
    """Return " (number N)" of the process that holds the lock of an open file; empty where nothing tells it."""
    status = os.fstat(handle)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with contextlib.suppress(OSError):
        for line in _LOCKS.read_text().splitlines():
            fields = line.split()
            if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == place and fields[4] != "0":
                return f" (number {fields[4]})"
    return ""


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"{text[:MAX_DIGITS]}... is a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:MAX_DIGITS]} is larger than any number here")
    return value


def _unwritable(target: Path, error: OSError) -> ArtifactError:
    return ArtifactError(
        f"cannot write {target}: {error.strerror or error}; free space or choose another folder"
    )


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
