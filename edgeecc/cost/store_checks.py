"""What a database from elsewhere may hold: plain tables, and cells that are what they should be."""

from __future__ import annotations

import re
import sqlite3
from typing import Collection, Dict, Tuple

from edgeecc.artifacts import figure, parse_json

#: Most memory that SQLite may take, bytes, in the whole process.
HEAP_BYTES = 256 * 2**20
_PLAIN_TABLE = re.compile(r"\s*CREATE\s+TABLE\s", re.IGNORECASE)


def wrong_layout(db: sqlite3.Connection, tables: Collection[str]) -> str:
    """Return what a database holds beside plain columns of these tables, empty when nothing.

    SQLite would run what else there is, on reading or on writing: views, triggers, computed columns, expressions of
    indices. Its heap is bounded from here on.
    """
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute(f"PRAGMA hard_heap_limit = {HEAP_BYTES}")
    for kind, name, statement in db.execute("SELECT type, name, sql FROM sqlite_master"):
        if kind == "index" and statement is None:
            continue  # of a primary key
        if kind != "table" or name not in tables or not _PLAIN_TABLE.match(str(statement)):
            return f"it holds {kind} {name!r}, which no calibration makes"
        if any(column[-1] for column in db.execute(f"PRAGMA table_xinfo({name})")):
            return f"table {name} has computed columns"
    return ""


def as_counts(text: object) -> Tuple[int, ...]:
    """Return a JSON list of whole numbers.

    Raises: ValueError when it is none.
    """
    widths = parse_json(str(text))
    if not isinstance(widths, list) or not all(type(width) is int for width in widths):
        raise ValueError("widths are no list of whole numbers")
    return tuple(widths)


def as_figure(value: object, what: str) -> float:
    """Return a finite number.

    Raises: ValueError naming `what` when it is none.
    """
    found = figure(value)
    if found is None:
        raise ValueError(f"{what} {str(value)[:40]!r} is no number")
    return found


def as_object(text: object) -> Dict[str, object]:
    """Return a JSON object.

    Raises: ValueError or TypeError when it is none.
    """
    found = parse_json(str(text))
    if not isinstance(found, dict):
        raise TypeError("what was told of the device is no object")
    return found
