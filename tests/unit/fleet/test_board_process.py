"""One board driven: answers, deaths, silence, nonsense, and nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Iterator

import pytest

from edgeecc.bench import VirtualBench
from edgeecc.config import MeasureProtocol
from edgeecc.cost.samples import Failure
from edgeecc.errors import MeterError
from edgeecc.fleet import board_process
from edgeecc.fleet.board_process import BoardProcess
from edgeecc.fleet.boards import Board
from edgeecc.graph.onnx_slice import SlicePlan
from tests.fleets import board, graph_folder, order
from tests.unit.test_calibrate import small_network

pytestmark = pytest.mark.device


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graph_folder(tmp_path_factory.mktemp("graph"))


@pytest.fixture
def driven(graph: Path) -> Iterator[list]:
    """Return a list of processes that are ended afterwards."""
    processes: list = []
    yield processes
    for process in processes:
        process.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_process, "PAUSE_S", 0.01)


def gone(pid: int) -> bool:
    """Return whether a process has ended, within a while."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_a_board_measures_what_the_bench_does(graph: Path, driven: list) -> None:
    spec, model = small_network()
    bench = VirtualBench(SlicePlan.build(model, spec), "virtual:tx2", 0)
    process = BoardProcess(board(), order(graph))
    driven.append(process)
    for number in (-1, 0, 7):
        widths = {"c1": 3 + number, "c2": 5}
        row, meter, wall_s = process.measure(number, list(widths.values()))
        wanted = bench.measure(number, widths, MeasureProtocol())
        assert (row.value, row.standard_error) == (wanted.energy_j, wanted.energy_se_j)
        assert (row.number, row.windows, meter) == (number, wanted.windows, wanted.meter)
        assert wall_s > 0.0


def test_what_cannot_be_built_is_an_answer_and_the_process_goes_on(
    graph: Path, driven: list, tmp_path: Path
) -> None:
    process = BoardProcess(board(unbuildable=[3], pids=str(tmp_path)), order(graph))
    driven.append(process)
    failure, meter, _ = process.measure(3, [3, 4])
    assert failure == Failure(3, "no kernel for variant 3")
    assert meter == ""
    assert process.measure(4, [3, 4])[0].number == 4
    assert len(list(tmp_path.iterdir())) == 1, "it was started once"


def test_a_killed_process_is_started_again(graph: Path, driven: list, tmp_path: Path) -> None:
    process = BoardProcess(board(pids=str(tmp_path)), order(graph))
    driven.append(process)
    first = process.measure(0, [3, 4])[0]
    (pid,) = [int(path.name) for path in tmp_path.iterdir()]
    os.kill(pid, signal.SIGKILL)
    assert process.measure(0, [3, 4])[0] == first
    assert len(list(tmp_path.iterdir())) == 2
    process.close()
    assert all(gone(int(path.name)) for path in tmp_path.iterdir())


def test_a_board_that_stays_dead_says_why(graph: Path, driven: list, tmp_path: Path) -> None:
    (tmp_path / "off").touch()
    process = BoardProcess(board(off=str(tmp_path / "off")), order(graph))
    driven.append(process)
    with pytest.raises(MeterError, match="exited with 1: the board is off"):
        process.measure(0, [3, 4])
    (tmp_path / "off").unlink()
    assert process.measure(0, [3, 4])[0].number == 0


@pytest.mark.parametrize(
    ("faults", "changes", "message"),
    [
        ({"mute_after": 0}, {"sample_s": 0.3}, "did not answer for 0.3 s in variant 0"),
        ({"noise_after": 0}, {}, "answered with value 'a lot', no finite figure"),
        ({}, {"fingerprint": "0" * 16}, "has fingerprint .*copy spec.json and dense.onnx"),
        ({}, {"graph": "nowhere"}, "exited with 1: Error: cannot read nowhere"),
    ],
)  # fmt: skip
def test_faults_are_told(
    graph: Path, driven: list, faults: dict, changes: dict, message: str
) -> None:
    changes = dict(changes)
    asked = order(Path(changes.pop("graph", graph)), **changes)
    process = BoardProcess(board(**faults), asked)
    driven.append(process)
    with pytest.raises(MeterError, match=message) as caught:
        process.measure(0, [3, 4])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import time; time.sleep(99)", "did not answer for 0.5 s in its start"),
        ("print('hello')", "answered 'hello', no JSON object"),
        ("print('x' * 3000000)", "more than 1048576 bytes in one line"),
        ("import os, time; os.close(1); os.close(2); time.sleep(99)", "closed its output"),
        ("import sys; sys.stderr.write('a\\nb\\x1b[31m\\n'); sys.exit(3)", "exited with 3: b"),
    ],
)  # fmt: skip
def test_programs_that_are_no_edgeecc(driven: list, graph: Path, script: str, message: str) -> None:
    odd = Board("odd", "virtual:tx2", command=(sys.executable, "-c", script))
    process = BoardProcess(odd, order(graph, start_s=0.5 if "99" in script else 60.0))
    driven.append(process)
    with pytest.raises(MeterError, match=message):
        process.measure(0, [3, 4])


#: In place of ssh: what it would run over there is run here, by the same kind of shell.
SSH = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
[ "$2" = me@board ] || exit 255
exec sh -c "$3"
"""


def test_a_board_over_ssh(
    graph: Path, driven: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ssh").write_text(SSH)
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    there = replace(board(), ssh="me@board", graph=str(graph))
    process = BoardProcess(there, order(graph))
    driven.append(process)
    here = BoardProcess(board(), order(graph))
    driven.append(here)
    assert process.measure(3, [3, 4])[0] == here.measure(3, [3, 4])[0]
    gone = BoardProcess(replace(there, ssh="me@elsewhere"), order(graph))
    driven.append(gone)
    with pytest.raises(MeterError, match="its process exited with 255"):
        gone.measure(3, [3, 4])


def test_a_command_that_is_not_there(driven: list, graph: Path) -> None:
    process = BoardProcess(Board("odd", "virtual:tx2", command=("no-such-program",)), order(graph))
    driven.append(process)
    with pytest.raises(MeterError, match="cannot start no-such-program"):
        process.measure(0, [3, 4])


def test_closing_ends_a_measurement_that_is_under_way(graph: Path, tmp_path: Path) -> None:
    process = BoardProcess(board(mute_after=0, pids=str(tmp_path)), order(graph))
    said: list = []

    def ask() -> None:
        try:
            process.measure(0, [3, 4])
        except MeterError as error:
            said.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    while not list(tmp_path.iterdir()):
        time.sleep(0.01)
    process.close()
    thread.join(30.0)
    assert said == ["it was stopped"]
    assert all(gone(int(path.name)) for path in tmp_path.iterdir())
    with pytest.raises(MeterError, match="it was stopped"):
        process.measure(0, [3, 4])


DRIVER = """
import sys
from pathlib import Path
from tests.fleets import board, order
from edgeecc.fleet.board_process import BoardProcess
process = BoardProcess(board(mute_after=1, pids={pids!r}), order(Path({graph!r})))
process.measure(0, [3, 4])
print("ready", flush=True)
process.measure(1, [3, 4])
"""


def test_a_board_whose_host_was_killed_stops_measuring(graph: Path, tmp_path: Path) -> None:
    code = DRIVER.format(pids=str(tmp_path), graph=str(graph))
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert host.stdout.readline() == b"ready\n"
    (pid,) = [int(path.name) for path in tmp_path.iterdir()]
    host.kill()
    host.wait()
    host.stdout.close()
    assert gone(pid)
