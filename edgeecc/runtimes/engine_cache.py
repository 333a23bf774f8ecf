"""Built engines on disk, by what they were built of, where, and how.

An engine runs on the kind of GPU and with the release that built it, and TensorRT runs what it holds: the folder
must be one that only its user can write.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from pathlib import Path
from typing import List, Mapping, Optional, Tuple

from edgeecc.artifacts import read_json, write_bytes, write_json
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.runtimes.build_options import BuildOptions
from edgeecc.runtimes.cuda_memory import Cuda
from edgeecc.runtimes.trt_api import TensorRT
from edgeecc.runtimes.trt_build import Engine

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
    Raises: ConfigError when `most_bytes` is below 1.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        if most_bytes < 1:
            raise ConfigError(
                f"an engine cache of {most_bytes} bytes holds nothing; give at least 1"
            )
        self._folder, self._most_bytes = folder, most_bytes

    def load(self, made_of: Mapping[str, object]) -> Optional[bytes]:
        """Return the engine of that origin; None when there is none, or a damaged one, which is removed."""
        engine, manifest = self._paths(made_of)
        if not engine.is_file() or engine.is_symlink():
            return None
        try:
            expected = read_json(manifest, MANIFEST).get("engine_sha256")
            data = engine.read_bytes()
            os.utime(engine)
        except (ArtifactError, OSError):
            expected, data = None, b""
        if hashlib.sha256(data).hexdigest() != expected:
            self.drop(made_of)
            return None
        return data

    def save(self, made_of: Mapping[str, object], engine: Engine) -> Path:
        """Keep an engine and its manifest; drop the least recently used ones beyond the bound. Return its path.

        Raises: ArtifactError when the folder cannot be written.
        """
        path, manifest = self._paths(made_of)
        body = {
            **made_of,
            "engine_sha256": hashlib.sha256(engine.data).hexdigest(),
            "report": engine.report.to_json(),
        }
        write_bytes(path, engine.data)
        write_json(manifest, MANIFEST, body)
        self._shrink(path)
        return path

    def drop(self, made_of: Mapping[str, object]) -> None:
        """Remove the engine of that origin and its manifest, if they are there."""
        _remove(self._paths(made_of)[0])

    def _paths(self, made_of: Mapping[str, object]) -> Tuple[Path, Path]:
        text = json.dumps(made_of, sort_keys=True, allow_nan=False)
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


def _remove(engine: Path) -> None:
    for path in (engine, engine.with_suffix(".json")):
        with contextlib.suppress(OSError):
            path.unlink()
