"""Cells: what they refuse to be mixed with, what they took, and the processes that they run in."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Dict, List, Tuple

import pytest
import torch

from edgeecc.artifacts import load_json, write_bytes, write_json
from edgeecc.comparison import processes
from edgeecc.comparison.cells import (
    CELL_FILE,
    CELL_SCHEMA,
    Cell,
    Spent,
    check_same,
    read_spent,
    row_of,
    write_spent,
)
from edgeecc.comparison.processes import (
    Clock,
    Job,
    carry_out,
    cuda_peak_memory,
    peak_memory,
    run_cells,
    threads_each,
)
from edgeecc.comparison.voice import Voice
from edgeecc.config import ComputeConfig
from edgeecc.errors import ArtifactError, ConfigError, RuntimeUnavailableError
from edgeecc.progress import Load, Progress, Score
from edgeecc.run_folder import RESULT_SCHEMA, RUN_SCHEMA
from edgeecc.run_request import PruneRequest
from edgeecc.units import Metric, parse_budget

ASKED = {"method": "ecc", "pruning": {"steps": 24, "margin": None}, "training": {"lr": 0.001}}


def cell(folder: Path, **asked: object) -> Cell:
    request = PruneRequest(Path("nothing.pth"), parse_budget("50%"), "digits", run=folder)
    return Cell(request, {**ASKED, **asked})


def test_a_cell_is_only_resumed_by_the_same_request(tmp_path: Path) -> None:
    one = cell(tmp_path / "one")
    check_same(one)
    write_spent(one.folder, one.asked, Spent(seconds=2.0))
    check_same(one)
    with pytest.raises(ArtifactError, match=r"one was made with pruning.steps 24 \(now 48\); one"):
        check_same(cell(tmp_path / "one", pruning={"steps": 48, "margin": None}))
    with pytest.raises(ArtifactError, match=r"new None \(now 1\)"):
        check_same(cell(tmp_path / "one", new=1))
    check_same(cell(tmp_path / "one", data_sha256="a", price={"half_cost": 1.0, "thin_cost": 0.1}))
    check_same(cell(tmp_path / "one", settings={"carry": False}))
    with pytest.raises(ArtifactError, match=r"settings.carry None \(now True\)"):
        check_same(cell(tmp_path / "one", settings={"carry": True}))


def test_what_earlier_cells_do_not_tell_binds_later_ones(tmp_path: Path) -> None:
    told = {"data_sha256": "a", "price": {"half_cost": 1.0, "thin_cost": 0.1}}
    one = cell(tmp_path, **told)
    write_spent(one.folder, one.asked, Spent())
    check_same(one)
    for other in (
        {"data_sha256": "b"},
        {"price": {"half_cost": 1.5, "thin_cost": 0.1}},
        {"price": {"half_cost": 1.0, "thin_cost": 0.2}},
    ):
        with pytest.raises(ArtifactError, match="give the former ones"):
            check_same(cell(tmp_path, **{**told, **other}))


def test_another_rate_of_a_search_says_what_to_remove(tmp_path: Path) -> None:
    one = cell(tmp_path)
    write_spent(one.folder, one.asked, Spent())
    faster = cell(tmp_path, training={"lr": 0.01})
    with pytest.raises(
        ArtifactError, match=r"training.lr 0.001 \(now 0.01\), .* remove the folder"
    ):
        check_same(faster, searched=True)
    with pytest.raises(ArtifactError, match="one comparison has one set of settings"):
        check_same(faster)
    longer = cell(tmp_path, training={"lr": 0.01}, pruning={"steps": 48, "margin": None})
    with pytest.raises(ArtifactError, match="one comparison has one set of settings"):
        check_same(longer, searched=True)


def test_a_run_of_its_own_is_no_cell(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", RUN_SCHEMA, {})
    with pytest.raises(ArtifactError, match="holds a run of its own"):
        check_same(cell(tmp_path))


def test_the_time_of_all_parts_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = cell(tmp_path)
    now = iter([100.0, 103.0, 103.5, 105.0, 105.0, 200.0, 200.0, 204.0])
    monkeypatch.setattr(processes, "perf_counter", lambda: next(now))
    first = Clock(Job(one, 2, 0))
    assert read_spent(one.folder).seconds == 3.0
    first.tick()  # too early to be written
    assert read_spent(one.folder).seconds == 3.0
    first.tick()
    assert (read_spent(one.folder).seconds, read_spent(one.folder).parts) == (5.0, 1)
    again = Clock(Job(one, 1, 0))
    assert (read_spent(one.folder).seconds, read_spent(one.folder).parts) == (5.0, 2)
    again.note("failed")
    spent = read_spent(one.folder)
    assert (spent.seconds, spent.parts, spent.threads, spent.error) == (9.0, 2, 1, "failed")
    assert spent.peak_memory_bytes >= 2**20


def test_what_trained_is_told_where_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    one = cell(tmp_path)
    assert one.request.compute.accelerator == "auto"
    assert one.placed().request.compute.accelerator == "cpu"
    assert one.placed().asked == one.asked
    Clock(Job(one.placed(), 1, 0))
    document = load_json(tmp_path / CELL_FILE)
    assert document["spent"]["accelerator"] == read_spent(one.folder).accelerator == "cpu"
    del document["spent"]["accelerator"]  # as an earlier version wrote it
    write_json(
        tmp_path / CELL_FILE, CELL_SCHEMA, {name: document[name] for name in ("asked", "spent")}
    )
    assert read_spent(one.folder).accelerator is None
    check_same(one)


def test_what_this_machine_lacks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for compute, error, said in (
        (ComputeConfig(accelerator="cuda"), RuntimeUnavailableError, "finds 0 GPUs"),
        (ComputeConfig(precision="fp16"), ConfigError, "fp16 needs a GPU"),
    ):
        one = cell(tmp_path)
        with pytest.raises(error, match=said):
            replace(one, request=replace(one.request, compute=compute)).placed()


def test_damaged_cells_are_told(tmp_path: Path) -> None:
    one = cell(tmp_path)
    write_json(tmp_path / CELL_FILE, "edgeecc/cell/1", {"asked": ASKED, "spent": {"hours": 1}})
    with pytest.raises(
        ArtifactError, match=r"seconds in .*cell.json must be a finite number, found None; remove"
    ):
        read_spent(one.folder)
    write_spent(one.folder, one.asked, Spent())
    assert row_of(one).status == "missing"
    write_spent(one.folder, one.asked, Spent(error="too hot"))
    assert (row_of(one).status, row_of(one).error) == ("failed", "too hot")
    write_json(tmp_path / "run.json", RUN_SCHEMA, {"request": {"training": {"lr": 1e-3}}})
    write_json(tmp_path / "result.json", RESULT_SCHEMA, {"status": "converged"})
    with pytest.raises(
        ArtifactError, match=r"score in .*result.json must .* remove its folder to run"
    ):
        row_of(one)


RESULT = {
    "status": "converged", "score": "top-1", "dense": {"accuracy": 0.9, "cost": 1.0}, "pruned_accuracy": 0.5,
    "accuracy": 0.8, "judged_score": None, "cost": 0.4, "budget": {"value": 0.5}, "meter": "a model",
    "widths": {"stem": [3, 8]}, "steps": 24, "finetune_steps": 12,
}  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"accuracy": "x"}, "accuracy in"),
        ({"accuracy": True}, "accuracy in"),
        ({"steps": "x"}, "steps in"),
        ({"judged_score": []}, "judged_score in"),
        ({"widths": [1]}, "widths in"),
        ({"widths": {"stem": "8"}}, "stem in"),
        ({"dense": 1}, "dense in"),
        ({"status": None}, "status in"),
        ({"budget": {}}, "value in"),
    ],
)
def test_every_figure_of_a_cell_is_checked(
    tmp_path: Path, wrong: Dict[str, object], said: str
) -> None:
    one = cell(tmp_path)
    write_spent(one.folder, one.asked, Spent(seconds=2.0, parts=1))
    write_json(tmp_path / "run.json", RUN_SCHEMA, {"request": {"training": {"lr": 1e-3}}})
    write_json(tmp_path / "result.json", RESULT_SCHEMA, RESULT)
    row = row_of(one)
    assert (row.accuracy, row.widths, row.lr, row.seconds) == (0.8, {"stem": [3, 8]}, 1e-3, 2.0)
    write_json(tmp_path / "result.json", RESULT_SCHEMA, {**RESULT, **wrong})
    with pytest.raises(ArtifactError, match=f"{said} .*; remove its folder to run the cell again"):
        row_of(one)


@pytest.mark.parametrize(
    "wrong", [{"seconds": "1"}, {"parts": None}, {"threads": []}, {"error": 1}]
)
def test_every_figure_of_what_was_spent_is_checked(
    tmp_path: Path, wrong: Dict[str, object]
) -> None:
    spent = {**asdict(Spent(seconds=2.0)), **wrong}
    write_json(tmp_path / CELL_FILE, CELL_SCHEMA, {"asked": ASKED, "spent": spent})
    with pytest.raises(ArtifactError, match="; remove its folder to run the cell again"):
        read_spent(cell(tmp_path).folder)


def test_peak_memory_is_that_of_this_program(monkeypatch: pytest.MonkeyPatch) -> None:
    before = peak_memory()
    block = bytearray(2**26)
    assert peak_memory() >= max(before, len(block))
    monkeypatch.setattr(processes, "_STATUS", Path("/nowhere"))
    assert peak_memory() >= before


def test_memory_on_gpus_is_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cuda_peak_memory() == 0 or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda gpu: 100 + gpu)
    assert cuda_peak_memory() == 201


def test_jobs_share_the_cores() -> None:
    assert 1 <= threads_each(1) <= torch.get_num_threads()
    assert threads_each(10_000) == 1


def test_a_failing_cell_keeps_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import edgeecc.prune

    def fail(error: BaseException) -> None:
        def prune(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(edgeecc.prune, "prune", prune)

    one = cell(tmp_path)
    for error, code in ((ConfigError("the loss is nan"), 1), (KeyboardInterrupt(), 130)):
        fail(error)
        with pytest.raises(SystemExit) as left:
            carry_out(Job(one, 1, 30))
        assert left.value.code == code
        assert row_of(one).error == (str(error) or None)
    fail(ZeroDivisionError("so"))
    with pytest.raises(ZeroDivisionError):
        carry_out(Job(one, 1, 30))
    assert row_of(one).error == "ZeroDivisionError: so"


def die(job: Job, out: Connection) -> None:
    """Say a word and log another, and end as the folder's name says; what a process does in place of pruning."""
    voice = Voice(out)
    voice.tell(WORD)
    voice.tell(WORD)  # too early after the first to be said
    voice.emit(logging.LogRecord("edgeecc.x", logging.WARNING, "", 0, "low on %s", ("rope",), None))
    if job.cell.folder.path.name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.cell.folder.path.name == "failed":
        sys.exit(7)
    if job.cell.folder.path.name == "long":
        time.sleep(60.0)
    write_bytes(job.cell.folder.file("result.json"), b"{}")


WORD = Progress(
    "pruning", 3, 9, "steps", loads=(Load(Metric.ENERGY, 2.0, 1.0, "m"),), loss=0.5, score=Score("top-1", 0.9, "dense"),
)  # fmt: skip


class InterruptError(Exception):
    """In place of Ctrl-C, which would stop the test."""


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of forks beside threads
def test_processes_end_each_in_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Forked here, where a fresh interpreter would take seconds each to load torch."""
    monkeypatch.setattr(processes, "work", die)
    monkeypatch.setattr(
        processes.multiprocessing, "get_context", lambda _: multiprocessing.context.ForkContext()
    )
    cells = [cell(tmp_path / name) for name in ("fine", "killed", "failed", "other")]
    told: List[Tuple[str, bool]] = []
    words: List[Tuple[str, Progress]] = []
    run_cells(
        cells, 2, lambda one, ended: told.append((one.folder.path.name, ended)),
        lambda one, word: words.append((one.folder.path.name, word)),
    )  # fmt: skip
    assert sorted(words, key=lambda word: word[0]) == [
        (name, WORD) for name in ("failed", "fine", "killed", "other")
    ]
    said = [(record.name, record.getMessage()) for record in caplog.records]
    assert said.count(("edgeecc.x", "low on rope")) == 4
    assert sorted(name for name, ended in told if ended) == sorted(
        one.folder.path.name for one in cells
    )
    assert told[:2] == [("fine", False), ("killed", False)]
    assert [one.is_finished() for one in cells] == [True, False, False, True]
    assert "ended by signal 9; is there too little memory?" in str(row_of(cells[1]).error)
    assert row_of(cells[2]).error == "its process exited with 7"

    def interrupt(one: Cell, ended: bool) -> None:
        if ended:
            raise InterruptError

    started = time.perf_counter()
    with pytest.raises(InterruptError):
        run_cells([cell(tmp_path / "long"), cell(tmp_path / "quick")], 2, interrupt)
    assert time.perf_counter() - started < 50.0
    assert not multiprocessing.active_children()
