"""The store of calibration samples: SQLite, one row per sample, safe against kill -9.

What sample i measures is a pure function of the seed and i (`cost.design`), so a resumed calibration goes on with the
same variants, and a row is either there whole or not there. Write-ahead logging with synchronous=NORMAL keeps every
committed row when the process dies; a power cut may cost the last commit, never the file.

Where several boards measure, a row names its board. What boards measure beside, to be compared with each other and
with themselves, are repeats, kept apart; a board's samples that a check condemns are set aside, not lost. Values
are stored as they were measured.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from edgeecc.cost.store_checks import HEAP_BYTES, as_counts, as_figure, as_object, wrong_layout
from edgeecc.errors import ArtifactError, brief

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
    converged INTEGER NOT NULL,
    board TEXT,
    checked INTEGER
);
CREATE TABLE IF NOT EXISTS repeats (
    number INTEGER NOT NULL,
    widths TEXT NOT NULL,
    value REAL NOT NULL,
    standard_error REAL,
    spread REAL,
    latency_s REAL,
    windows INTEGER NOT NULL,
    runs INTEGER NOT NULL,
    converged INTEGER NOT NULL,
    board TEXT
);
CREATE TABLE IF NOT EXISTS set_aside AS SELECT * FROM repeats WHERE 0;
CREATE TABLE IF NOT EXISTS conditions (
    number INTEGER NOT NULL,
    board TEXT,
    dropped INTEGER NOT NULL,
    told TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS about (told TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS failures (number INTEGER PRIMARY KEY, why TEXT NOT NULL);
"""
#: What a store consists of.
_TABLES = ("identity", "samples", "repeats", "set_aside", "conditions", "about", "failures")
#: Columns that stores written before boards had names lack.
_LATER = {"board": "TEXT", "checked": "INTEGER"}
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
        board: name of the board that measured it; empty where there was no fleet.
        repeat: whether it was measured only to compare boards; it is no sample then.
        dropped: windows that did not count.
        conditions: what the device was like, JSON-ready; empty where nothing told. The store keeps these two apart, and
            its rows come without them.
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
    board: str = ""
    repeat: bool = False
    dropped: int = 0
    conditions: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """Whether a board, checked again, still measures as it did at its start: it vouches for its samples until now.

    Args:
        board: its name.
        fine: whether it does; where not, its samples since the last check are set aside.
    """

    board: str
    fine: bool


@dataclass(frozen=True)
class Failure:
    """A variant that could not be built, and is passed over from then on.

    Args:
        number: sample number.
        why: in one line.
    """

    number: int
    why: str


class SampleStore:
    """Rows of one calibration; open it as a context manager.

    Args:
        path: the database file; its folder must be held by the caller.
        identity: what the samples are of (network fingerprint, device, protocol, seed); a store of anything
            else is refused.
        read_only: leaves the file as it is; it must be there, and need not be held.
    Raises: ArtifactError when the file is damaged, of another calibration, or cannot be written.
    """

    def __init__(
        self, path: Path, identity: Mapping[str, object], *, read_only: bool = False
    ) -> None:
        if path.is_symlink() and not read_only:
            raise ArtifactError(
                f"{path} is a link, and samples are written only where they are asked for; put the file there"
            )
        self.path = path
        self._doing = "read" if read_only else "write"
        wanted = {key: json.dumps(value, sort_keys=True) for key, value in identity.items()}
        try:
            mode = "ro" if read_only else "rwc"
            address = f"{path.resolve().as_uri()}?mode={mode}"
            self._db = sqlite3.connect(address, timeout=5.0, isolation_level=None, uri=True)
        except sqlite3.Error as error:
            raise self._fault(error) from error
        try:
            self._check_layout()
            if not read_only:
                self._prepare()
            found = dict(self._db.execute("SELECT key, value FROM identity").fetchall())
            if not found and not read_only:
                self._db.executemany("INSERT INTO identity VALUES (?, ?)", wanted.items())
        except (sqlite3.Error, ArtifactError, MemoryError, ValueError) as error:
            self._db.close()
            raise error if isinstance(error, ArtifactError) else self._fault(error) from error
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

    def failures(self) -> List[Failure]:
        """Return the variants that could not be built, by number."""
        found = self._query("SELECT number, why FROM failures ORDER BY number")
        return [Failure(int(number), str(why)) for number, why in found]

    def fail(self, failure: Failure) -> None:
        """Write down that a variant could not be built.

        Raises: ArtifactError when the disk is full.
        """
        with self._all_or_none():
            self._db.execute(
                "INSERT OR REPLACE INTO failures VALUES (?,?)", (failure.number, failure.why)
            )

    def about(self) -> Dict[str, object]:
        """Return what was last told of the device; nothing where nothing was.

        Raises: ArtifactError when it is damaged.
        """
        try:
            return {
                key: value
                for (told,) in self._query("SELECT told FROM about")
                for key, value in as_object(told).items()
            }
        except (ValueError, TypeError, RecursionError) as error:
            raise self._damaged(brief(error)) from error

    def tell(self, about: Mapping[str, object]) -> None:
        """Keep what is to be told of the device, JSON-ready, in place of what was.

        Raises: ArtifactError when the disk is full.
        """
        with self._all_or_none():
            self._db.execute("DELETE FROM about")
            self._db.execute("INSERT INTO about VALUES (?)", (json.dumps(dict(about)),))

    def add(self, rows: Sequence[Row]) -> None:
        """Commit rows, all or none.

        Raises: ArtifactError when the disk is full or a number is there already.
        """
        repeats = [_values(row) for row in rows if row.repeat]
        samples = [
            (*_values(row), 0 if row.board else None)  # None: nobody will check it
            for row in rows
            if not row.repeat
        ]
        with self._all_or_none():
            self._db.executemany("INSERT INTO samples VALUES (?,?,?,?,?,?,?,?,?,?,?)", samples)
            self._db.executemany("INSERT INTO repeats VALUES (?,?,?,?,?,?,?,?,?,?)", repeats)
            self._db.executemany("INSERT INTO conditions VALUES (?,?,?,?)", _conditions(rows))

    def judge(self, check: Check) -> int:
        """Take down what a check of a board says about its samples since the last one.

        Returns: how many samples were set aside, the anchors not counted.
        Raises: ArtifactError when the disk is full.
        """
        mine = (check.board,)
        with self._all_or_none():
            if check.fine:
                self._db.execute("UPDATE samples SET checked = 1 WHERE board = ?", mine)
                return 0
            doubted = self._query(
                "SELECT number FROM samples WHERE board = ? AND checked = 0 AND number >= 0", *mine
            )
            self._db.execute(
                "INSERT INTO set_aside SELECT number, widths, value, standard_error, spread, latency_s, windows, runs,"
                " converged, board FROM samples WHERE board = ? AND checked = 0",
                mine,
            )
            self._db.execute("DELETE FROM samples WHERE board = ? AND checked = 0", mine)
        return len(doubted)

    def rows(self) -> List[Row]:
        """Return every sample, by number.

        Raises: ArtifactError when a row is damaged.
        """
        statement = (
            "SELECT number, widths, value, standard_error, spread, latency_s, windows, runs, converged, board"
            " FROM samples ORDER BY number"
        )
        if "board" not in self._columns():
            statement = statement.replace("board", "NULL")
        found = self._query(statement)
        return self._rows(found, repeat=False)

    def repeats(self) -> List[Row]:
        """Return what boards measured to be compared, in the order in which it came.

        Raises: ArtifactError when a row is damaged.
        """
        return self._rows(self._query("SELECT * FROM repeats ORDER BY rowid"), repeat=True)

    def _rows(self, found: Sequence[Tuple[Any, ...]], *, repeat: bool) -> List[Row]:
        try:
            return [_row(values, repeat=repeat) for values in found]
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise self._damaged(brief(error)) from error

    def _check_layout(self) -> None:
        what = wrong_layout(self._db, _TABLES)
        if what:
            raise self._damaged(what)

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        self._add_later_columns()

    def _columns(self) -> Set[str]:
        return {str(name) for _, name, *_ in self._query("PRAGMA table_info(samples)")}

    def _add_later_columns(self) -> None:
        present = self._columns()
        for name, kind in _LATER.items():
            if name not in present:
                self._db.execute(f"ALTER TABLE samples ADD COLUMN {name} {kind}")

    @contextlib.contextmanager
    def _all_or_none(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:  # a full disk rolls back by itself
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def _query(self, statement: str, *values: object) -> List[Tuple[Any, ...]]:
        try:
            return self._db.execute(statement, values).fetchall()
        except (sqlite3.Error, MemoryError, UnicodeDecodeError) as error:
            raise self._fault(error) from error

    def _fault(self, error: Exception) -> ArtifactError:
        # A store of another layout is an OperationalError too, but no disk space mends it.
        if isinstance(error, MemoryError):
            return self._damaged(f"SQLite needs more than {HEAP_BYTES} bytes for it")
        layout = any(word in str(error) for word in ("column", "no such table"))
        if isinstance(error, sqlite3.OperationalError) and not layout:
            return ArtifactError(
                f"cannot {self._doing} {self.path}: {error}; free space or choose another --workspace"
            )
        return self._damaged(brief(error))

    def _damaged(self, what: str) -> ArtifactError:
        return ArtifactError(f"{self.path} is damaged: {what}; move it away and calibrate again")


def _values(row: Row) -> Tuple[object, ...]:
    widths = json.dumps([int(width) for width in row.widths])
    return (row.number, widths, row.value, row.standard_error, row.spread, row.latency_s,
            row.windows, row.runs, int(row.converged), row.board or None)  # fmt: skip


def _conditions(rows: Sequence[Row]) -> List[Tuple[object, ...]]:
    return [
        (row.number, row.board or None, row.dropped, json.dumps(dict(row.conditions)))
        for row in rows
        if row.conditions or row.dropped
    ]


def _row(values: Tuple[Any, ...], *, repeat: bool) -> Row:
    number, widths, value, error, spread, latency, windows, runs, converged, board = values
    return Row(
        int(as_figure(number, "number")),
        as_counts(widths),
        as_figure(value, "value"),
        None if error is None else as_figure(error, "standard error"),
        None if spread is None else as_figure(spread, "spread"),
        None if latency is None else as_figure(latency, "latency"),
        int(as_figure(windows, "windows")),
        int(as_figure(runs, "runs")),
        bool(converged),
        board="" if board is None else str(board),
        repeat=repeat,
    )
