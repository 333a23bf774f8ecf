"""Built engines on disk, by what they were built of, where, and how.

An engine runs on the kind of GPU and with the release that built it, and TensorRT runs what it holds: the folder is
made for its user alone, and a file that is another user's is no engine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import List, Mapping, Optional, Tuple

from edgeecc import __version__
from edgeecc.artifacts import read_json, write_bytes, write_json
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.runtimes.build_options import BuildOptions
from edgeecc.runtimes.cuda_memory import Cuda
from edgeecc.runtimes.engine import BuildReport, Engine
from edgeecc.runtimes.trt_api import TensorRT

MANIFEST = "edgeecc/engine/1"
#: Files of the cache: nothing else in its folder is touched.
_ENGINE = re.compile(r"[0-9a-f]{64}\.engine")


def origin(trt: TensorRT, cuda: Cuda, graph: bytes, options: BuildOptions) -> Mapping[str, object]:
    """Return all that decides an engine, JSON-ready."""
    return {
        "graph_sha256": hashlib.sha256(graph).hexdigest(),
        "device": cuda.device,
        "tensorrt": trt.name,
        "cuda": cuda.version,
        "options": options.to_json(),
    }


class EngineCache:
    """Engines in a folder, the least recently used dropped when they take too much.

    Args:
        folder: made when the first engine is saved.
        most_bytes: of all engines together.
        board: where they run, beyond what their origin says: board and release of its system.
    Raises: ConfigError when `most_bytes` is below 1.
    """

    def __init__(self, folder: Path, most_bytes: int, board: str = "") -> None:
        if most_bytes < 1:
            raise ConfigError(
                f"an engine cache of {most_bytes} bytes holds nothing; give at least 1"
            )
        self._folder, self._most_bytes, self._board = folder, most_bytes, board

    def load(self, made_of: Mapping[str, object]) -> Optional[Engine]:
        """Return the engine of that origin; None when there is none, or a damaged one, which is removed."""
        path, manifest = self._paths(made_of)
        if not _is_own(path):
            return None
        try:
            return _read(path, manifest)
        except (ArtifactError, OSError):
            self.drop(made_of)
            return None

    def save(self, made_of: Mapping[str, object], engine: Engine) -> Path:
        """Keep an engine and its manifest; drop the least recently used ones beyond the bound. Return its path.

        Raises: ArtifactError when the folder cannot be written.
        """
        path, manifest = self._paths(made_of)
        body = {
            **self._origin(made_of),
            "engine_sha256": hashlib.sha256(engine.data).hexdigest(),
            "report": engine.report.to_json(),
        }
        with contextlib.suppress(OSError):  # told when the engine is written
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_bytes(path, engine.data)
        write_json(manifest, MANIFEST, body)
        self._shrink(path)
        return path

    def drop(self, made_of: Mapping[str, object]) -> None:
        """Remove the engine of that origin and its manifest, if they are there."""
        _remove(self._paths(made_of)[0])

    def _origin(self, made_of: Mapping[str, object]) -> Mapping[str, object]:
        return {"edgeecc": __version__, "board": self._board, **made_of}

    def _paths(self, made_of: Mapping[str, object]) -> Tuple[Path, Path]:
        text = json.dumps(self._origin(made_of), sort_keys=True, allow_nan=False)
        engine = self._folder / f"{hashlib.sha256(text.encode()).hexdigest()}.engine"
        return engine, engine.with_suffix(".json")

    def _shrink(self, newest: Path) -> None:
        """Remove engines from the least recently used on, never `newest`, until the rest fits."""
        kept: List[Tuple[float, int, Path]] = []
        for path in self._folder.iterdir():
            if _ENGINE.fullmatch(path.name) and path != newest and not path.is_symlink():
                with contextlib.suppress(OSError):  # another process was faster
                    status = path.stat()
                    kept.append((status.st_mtime, status.st_size, path))
        total = newest.stat().st_size + sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept):
            if total <= self._most_bytes:
                return
            _remove(path)
            total -= size


def _read(path: Path, manifest: Path) -> Engine:
    """Return an engine as it was saved.

    Raises: ArtifactError or OSError when it is not whole.
    """
    if not _is_own(manifest):
        raise ArtifactError(f"{manifest} is not this user's; build the engine again")
    document = read_json(manifest, MANIFEST)
    report = BuildReport.from_json(document.get("report"), manifest)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != document.get("engine_sha256"):
        raise ArtifactError(f"{path} is not what was built; build it again")
    os.utime(path)
    return Engine(data, report, cached=True)


def _is_own(path: Path) -> bool:
    """Return whether this is a file of this user, and no link."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def _remove(engine: Path) -> None:
    for path in (engine, engine.with_suffix(".json")):
        with contextlib.suppress(OSError):
            path.unlink()
