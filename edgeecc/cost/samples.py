"""The store of calibration samples: SQLite, one row per sample, safe against kill -9.

What sample i measures is a pure function of the seed and i (`cost.design`), so a resumed calibration goes on with the
same variants, and a row is either there whole or not there. Write-ahead logging with synchronous=NORMAL keeps every
committed row when the process dies; a power cut may cost the last commit, never the file.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, List, Mapping, Optional, Sequence, Set, Tuple

import numpy as np

from edgeecc.errors import ArtifactError
from edgeecc.graph.spec import FloatArray

_SCHEMA = """
CREATE TABLE IF NOT EXISTS identity (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS samples (
    number INTEGER PRIMARY KEY,
    widths TEXT NOT NULL,
    value REAL NOT NULL,
    standard_error REAL,
    spread REAL,
    latency_s REAL,
    windows INTEGER NOT NULL,
    runs INTEGER NOT NULL,
    converged INTEGER NOT NULL
);
"""
#: Numbers of the two anchors, which are measured but never fitted.
DENSE, THINNEST = -1, -2


@dataclass(frozen=True)
class Row:
    """One measured variant.

    Args:
        number: sample number, or DENSE, THINNEST.
        widths: in the order of the width vector.
        value: cost in the metric's unit.
        standard_error, spread: of the value, same unit.
        latency_s: seconds per inference, where the meter told.
        windows, runs, converged: see `Measurement`.
    """

    number: int
    widths: Sequence[int]
    value: float
    standard_error: Optional[float]
    spread: Optional[float]
    latency_s: Optional[float]
    windows: int
    runs: int
    converged: bool


class SampleStore:
    """Rows of one calibration; open it as a context manager.

    Args:
        path: the database file; its folder must be held by the caller.
        identity: what the samples are of (network fingerprint, device, protocol, seed); a store of anything
            else is refused.
    Raises: ArtifactError when the file is damaged, of another calibration, or cannot be written.
    """

    def __init__(self, path: Path, identity: Mapping[str, object]) -> None:
        self._path = path
        wanted = {key: json.dumps(value, sort_keys=True) for key, value in identity.items()}
        try:
            self._db = sqlite3.connect(str(path), timeout=5.0, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
            found = dict(self._db.execute("SELECT key, value FROM identity").fetchall())
            if not found:
                self._db.executemany("INSERT INTO identity VALUES (?, ?)", wanted.items())
        except sqlite3.Error as error:
            raise self._fault(error) from error
        differing = sorted(key for key in wanted if found and found.get(key) != wanted[key])
        if differing:
            self._db.close()
            key = differing[0]
            message = f"{path} holds samples with {key} {found.get(key)}, not {wanted[key]}"
            raise ArtifactError(f"{message}; move it away or choose another --workspace")

    def __enter__(self) -> SampleStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def numbers(self) -> Set[int]:
        """Return the numbers of the samples that are there."""
        return {int(number) for (number,) in self._query("SELECT number FROM samples")}

    def add(self, rows: Sequence[Row]) -> None:
        """Commit rows, all or none.

        Raises: ArtifactError when the disk is full or a number is there already.
        """
        values = [
            (r.number, json.dumps([int(w) for w in r.widths]), r.value, r.standard_error, r.spread, r.latency_s,
             r.windows, r.runs, int(r.converged))
            for r in rows
        ]  # fmt: skip
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(
                    "INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values
                )
            except BaseException:
                if self._db.in_transaction:  # a full disk rolls back by itself
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def rows(self) -> List[Row]:
        """Return every row, by number.

        Raises: ArtifactError when a row is damaged.
        """
        found = self._query(
            "SELECT number, widths, value, standard_error, spread, latency_s, windows, runs, converged"
            " FROM samples ORDER BY number"
        )
        try:
            return [
                Row(
                    n,
                    tuple(int(w) for w in json.loads(widths)),
                    float(value),
                    error,
                    spread,
                    latency,
                    windows,
                    runs,
                    bool(converged),
                )
                for n, widths, value, error, spread, latency, windows, runs, converged in found
            ]
        except (ValueError, TypeError) as error:
            raise ArtifactError(
                f"{self._path} is damaged: {error}; move it away and calibrate again"
            ) from error

    def _query(self, statement: str) -> List[Tuple[Any, ...]]:
        try:
            return self._db.execute(statement).fetchall()
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def _fault(self, error: sqlite3.Error) -> ArtifactError:
        # A store of another layout is an OperationalError too, but no disk space mends it.
        layout = any(word in str(error) for word in ("column", "no such table"))
        if isinstance(error, sqlite3.OperationalError) and not layout:
            return ArtifactError(
                f"cannot write {self._path}: {error}; free space or choose another --workspace"
            )
        return ArtifactError(f"{self._path} is damaged: {error}; move it away and calibrate again")


def check_widths(
    rows: Sequence[Row], groups: Sequence[str], widths: Callable[[int], Mapping[str, int]], *, source: object
) -> None:  # fmt: skip
    """Check that every row is of the variant that its number stands for.

    Args:
        rows: as they were stored.
        groups: names, in the order of the width vector.
        widths: of a sample, by its number.
        source: of the rows, for the message.
    Raises: ArtifactError naming the first sample that is not.
    """
    for row in rows:
        wanted = widths(row.number)
        if list(row.widths) != [wanted[group] for group in groups]:
            raise ArtifactError(
                f"{source} is damaged: sample {row.number} has other widths than its number and the seed give; "
                "move it away and calibrate again"
            )


def as_arrays(rows: Sequence[Row]) -> tuple[FloatArray, FloatArray]:
    """Return widths (N, G) and values (N,) of rows."""
    return np.array([row.widths for row in rows], dtype=np.float64), np.array(
        [row.value for row in rows]
    )
