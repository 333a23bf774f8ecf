"""What a reader sees of a workspace: every file that is not hidden must load by its reader, at any moment.

Hidden files are writers' temporaries, and the lock. Beside a database stand SQLite's own files, which belong to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import onnx

from edgeecc.artifacts import load_json, read_json, read_tensors
from edgeecc.cost.profile import SCHEMA as PROFILE_SCHEMA
from edgeecc.run_folder import (
    FIT_SCHEMA,
    HISTORY_SCHEMA,
    KEEP_SCHEMA,
    REPORT_SCHEMA,
    RESULT_SCHEMA,
    RUN_SCHEMA,
    SPEC_SCHEMA,
    VERIFY_SCHEMA,
)

#: JSON artefacts by name; any other one holds a profile.
SCHEMAS = {
    "run.json": RUN_SCHEMA,
    "spec.json": SPEC_SCHEMA,
    "keep.json": KEEP_SCHEMA,
    "result.json": RESULT_SCHEMA,
    "verify.json": VERIFY_SCHEMA,
    "report.json": REPORT_SCHEMA,
    "history.json": HISTORY_SCHEMA,
    "fit.json": FIT_SCHEMA,
}
#: What SQLite keeps beside a database.
_BESIDE = ("-wal", "-shm", "-journal")
#: What differs from run to run: who wrote, when, and what this machine's clock measured.
VOLATILE = ("made_by", "seconds", "latency_s", "latency_iqr_s", "latency_se_s")
#: What tells one state of a file from another.
Stamp = Tuple[int, int, int]


class Scanner:
    """Reads what is new or changed in a folder at each look, and keeps what was found wrong."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen: Dict[Path, Stamp] = {}
        self.read = 0
        self.faults: List[str] = []

    def look(self) -> None:
        """Read every visible file that changed since the last look."""
        for path in visible(self._root):
            with contextlib.suppress(FileNotFoundError):  # it was dropped since
                stamp = _stamp(path)
                if self._seen.get(path) != stamp:
                    self._seen[path] = stamp
                    self._check(path)

    def _check(self, path: Path) -> None:
        self.read += 1
        try:
            check(path)
        except Exception as error:
            if path.exists():
                self.faults.append(f"{path.relative_to(self._root)}: {error}")


def visible(root: Path) -> Iterator[Path]:
    """Yield every file below a folder that is not hidden."""
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and not name.endswith(_BESIDE):
                yield Path(folder) / name


def hidden(root: Path) -> List[str]:
    """Return the temporaries below a folder; a lock is none."""
    return [str(path.relative_to(root)) for path in root.rglob(".*") if path.name != ".lock"]


def check(path: Path) -> None:
    """Load a file as its reader does.

    Raises: any error of the reader, ValueError for a file that nothing here reads.
    """
    _READERS[path.suffix](path)


def content(path: Path) -> object:
    """Return what a file holds, but for what differs from run to run; equal files give equal values."""
    if path.suffix == ".json":
        return _settled(load_json(path))
    if path.suffix == ".safetensors":
        tensors, metadata = read_tensors(path)
        digests = {
            name: (str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest())
            for name, value in tensors.items()
        }
        return digests, metadata
    if path.suffix == ".db":
        return rows(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rows(path: Path) -> Dict[str, List[Tuple[Any, ...]]]:
    """Return every row of every table of a database."""
    with contextlib.closing(_opened(path)) as db:
        names = [
            name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        return {
            name: sorted(db.execute(f"SELECT * FROM {name}"), key=repr)  # noqa: S608  # its own tables
            for name in sorted(names)
        }


def _settled(value: object) -> object:
    if isinstance(value, dict):
        return {key: _settled(one) for key, one in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [_settled(one) for one in value]
    return value


def _stamp(path: Path) -> Stamp:
    """Return what changes with a file; of a database its log too."""
    found = path.stat()
    log = path.with_name(f"{path.name}-wal")
    size = log.stat().st_size if path.suffix == ".db" and log.exists() else 0
    return found.st_ino, found.st_mtime_ns + size, found.st_size


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=20.0)


def _check_json(path: Path) -> None:
    read_json(path, SCHEMAS.get(path.name, PROFILE_SCHEMA))


def _check_onnx(path: Path) -> None:
    onnx.checker.check_model(onnx.load(str(path)), full_check=True)


def _check_database(path: Path) -> None:
    with contextlib.closing(_opened(path)) as db:
        (found,) = db.execute("PRAGMA integrity_check").fetchone()
        if found != "ok":
            raise ValueError(found)
        if db.execute("SELECT 1 FROM sqlite_master WHERE name='samples'").fetchone():
            for number, widths, value in db.execute("SELECT number, widths, value FROM samples"):
                if not json.loads(widths) or not value > 0.0:
                    raise ValueError(f"row {number} holds {widths} and {value}")


def _check_text(path: Path) -> None:
    if not path.read_text(encoding="utf-8").endswith("\n"):
        raise ValueError("it ends in the middle of a line")


_READERS: Dict[str, Callable[[Path], object]] = {
    ".json": _check_json,
    ".safetensors": read_tensors,
    ".onnx": _check_onnx,
    ".db": _check_database,
    ".md": _check_text,
}
