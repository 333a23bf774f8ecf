"""The store of samples where boards measured: older files, repeats, checks."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from edgeecc.cost.profile import Profile
from edgeecc.cost.samples import Check, Row, SampleStore
from edgeecc.errors import ArtifactError
from tests.unit.test_calibrate import run, small_network

pytestmark = pytest.mark.device
OLD = """
CREATE TABLE identity (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE samples (
    number INTEGER PRIMARY KEY, widths TEXT NOT NULL, value REAL NOT NULL, standard_error REAL, spread REAL,
    latency_s REAL, windows INTEGER NOT NULL, runs INTEGER NOT NULL, converged INTEGER NOT NULL
);
INSERT INTO identity VALUES ('seed', '0');
INSERT INTO samples VALUES (3, '[1, 2]', 0.5, NULL, NULL, NULL, 3, 1, 1);
"""


def sample(number: int, board: str = "", *, repeat: bool = False) -> Row:
    return Row(number, (1, 2), 0.5, None, None, 0.1, 3, 1, True, board, repeat)


def test_a_store_of_before_boards_is_read_and_goes_on(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.executescript(OLD)
    with SampleStore(tmp_path / "s.db", {"seed": 0}) as store:
        assert store.rows() == [replace(sample(3), latency_s=None)]
        store.add([sample(4, "a"), sample(5), sample(3, "a", repeat=True)])
    with SampleStore(
        tmp_path / "s.db", {"seed": 0}
    ) as store:  # opened again, now of the new layout
        assert [(row.number, row.board) for row in store.rows()] == [(3, ""), (4, "a"), (5, "")]
        assert store.repeats() == [sample(3, "a", repeat=True)]


def test_repeats_are_no_samples(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "s.db", {}) as store:
        store.add([sample(1, "a"), sample(1, "a", repeat=True), sample(1, "b", repeat=True)])
        assert store.numbers() == {1}
        assert [row.board for row in store.repeats()] == ["a", "b"]


def test_a_bad_check_sets_aside_what_came_since_the_last_good_one(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "s.db", {}) as store:
        store.add([sample(0, "a"), sample(1, "b"), sample(2)])
        assert store.judge(Check("a", fine=True)) == 0
        store.add([sample(-1, "a"), sample(3, "a"), sample(4, "a"), sample(5, "b")])
        assert store.judge(Check("a", fine=False)) == 2  # the anchor is not counted
        assert store.numbers() == {0, 1, 2, 5}
        assert store.judge(Check("a", fine=False)) == 0
        store.add([sample(3, "b")])
    with sqlite3.connect(tmp_path / "s.db") as db:
        found = db.execute("SELECT number, board, value FROM set_aside ORDER BY number").fetchall()
    assert found == [(-1, "a", 0.5), (3, "a", 0.5), (4, "a", 0.5)]


def test_a_damaged_board_is_one_line(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "s.db", {}) as store:
        store.add([sample(0, "a", repeat=True)])
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.execute("UPDATE repeats SET widths = '7'")
    with SampleStore(tmp_path / "s.db", {}) as store, pytest.raises(ArtifactError, match="damaged"):
        store.repeats()


def test_a_profile_keeps_its_boards_and_refuses_odd_ones(tmp_path: Path) -> None:
    run(small_network(), tmp_path)
    profile = Profile.load(tmp_path / "profile.json")
    assert profile.boards == {}
    boards = {"a": {"samples": 40, "offset": 1.02, "standard_error": 0.004}}
    replace(profile, boards=boards).save(tmp_path / "b.json")
    loaded = Profile.load(tmp_path / "b.json")
    assert loaded.boards == boards
    assert loaded.board_lines() == ["- Board a: 40 samples, offset 1.0200 +- 0.0040, divided out."]
    for odd in ([], {"a": 3}, {"a": {"samples": 1, "offset": "x", "standard_error": 0}}):
        replace(profile, boards=odd).save(tmp_path / "c.json")
        with pytest.raises(ArtifactError, match="damaged"):
            Profile.load(tmp_path / "c.json")
