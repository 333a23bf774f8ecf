"""A sample store from elsewhere: SQLite runs nothing for it, and what it holds is checked."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edgeecc.cost.samples import Row, SampleStore
from edgeecc.errors import ArtifactError

pytestmark = pytest.mark.device

IDENTITY = {"fingerprint": "f"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with SampleStore(tmp_path / "samples.db", IDENTITY) as store:
        store.add([Row(0, (8, 12), 0.1, 0.001, None, 0.01, 5, 50, converged=True)])
        store.tell({"board": "x"})
    return tmp_path / "samples.db"


def alter(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


COUNTING = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, i FROM n"


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize(
    ("statements", "what"),
    [
        (["DROP TABLE identity", f"CREATE VIEW identity AS {COUNTING}"], "view 'identity'"),
        (
            ["CREATE TRIGGER t AFTER INSERT ON samples BEGIN DELETE FROM samples; END"],
            "trigger 't'",
        ),
        (["CREATE TABLE more (a)"], "table 'more'"),
        (["CREATE INDEX i ON samples (hex(widths))"], "index 'i'"),
        (["CREATE VIRTUAL TABLE more USING fts5(a)"], "table 'more'"),
        (["ALTER TABLE samples ADD COLUMN x AS (hex(zeroblob(900000000)))"], "computed columns"),
        (["ALTER TABLE about ADD COLUMN x AS (1)"], "computed columns"),
    ],
)
def test_what_sqlite_would_run_is_refused(
    path: Path, statements: list, what: str, read_only: bool
) -> None:
    try:
        alter(path, *statements)
    except sqlite3.OperationalError as error:
        pytest.skip(f"this SQLite makes none: {error}")
    with pytest.raises(ArtifactError, match=f"is damaged: .*{what}.*; move it away"):
        SampleStore(path, IDENTITY, read_only=read_only)


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE samples SET widths = '[1e999]'", "larger than any number"),
        ("UPDATE samples SET widths = '[1.5, 2]'", "no list of whole numbers"),
        ("UPDATE samples SET widths = '{}'", "no list of whole numbers"),
        ("UPDATE samples SET widths = '" + "[" * 100_000 + "'", "recursion"),
        ("UPDATE samples SET value = 'much'", "value 'much' is no number"),
        ("UPDATE samples SET value = 1e999", "value 'inf' is no number"),
        ("UPDATE samples SET standard_error = x'00'", "is no number"),
        ("UPDATE samples SET windows = 'many'", "windows 'many' is no number"),
    ],
)
def test_a_row_of_anything_is_refused(path: Path, statement: str, what: str) -> None:
    alter(path, statement)
    with SampleStore(path, IDENTITY) as store, pytest.raises(ArtifactError, match=what):
        store.rows()


@pytest.mark.parametrize("told", ["[1]", "[" * 100_000, "nonsense", '{"a": Infinity}'])
def test_what_was_told_of_a_device_is_checked(path: Path, told: str) -> None:
    alter(path, "UPDATE about SET told = '{}'".replace("{}", told))
    with SampleStore(path, IDENTITY) as store, pytest.raises(ArtifactError, match="is damaged"):
        store.about()


def test_nothing_is_written_through_a_link(path: Path, tmp_path: Path) -> None:
    link, absent = tmp_path / "link.db", tmp_path / "absent.db"
    link.symlink_to(absent)
    with pytest.raises(ArtifactError, match=r"link\.db is a link"):
        SampleStore(link, IDENTITY)
    assert not absent.exists()
    link.unlink()
    link.symlink_to(path)
    with SampleStore(link, IDENTITY, read_only=True) as store:
        assert len(store.rows()) == 1


class Exhausted:
    """A connection whose heap is spent: SQLite's own word for it is Python's MemoryError."""

    def execute(self, *_: object) -> None:
        raise MemoryError

    def close(self) -> None:
        pass


def test_a_store_that_takes_too_much_memory_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SampleStore(path, IDENTITY, read_only=True) as store:
        monkeypatch.setattr(store, "_db", Exhausted())
        with pytest.raises(ArtifactError, match="SQLite needs more than 268435456 bytes"):
            store.rows()
        monkeypatch.undo()


@pytest.mark.parametrize("column", ["value", "key"])
def test_text_that_is_no_utf8_is_told(path: Path, column: str) -> None:
    alter(path, "UPDATE identity SET COLUMN = CAST(x'ff90' AS TEXT)".replace("COLUMN", column))
    with pytest.raises(ArtifactError, match=r"samples\.db"):
        SampleStore(path, IDENTITY)
