"""A fleet through the command line: real Dask workers, real board processes, kills of both, and what is told of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

from edgeecc.cost.profile import Profile
from tests.cli_runs import complaint, run, run_json
from tests.fleets import KIND, ROOT, fleet_file, graph_folder, stored

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
SAMPLES = 60
#: A shell that starts its jobs in the background has them ignore Ctrl-C; this one shall hear it.
HEARING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["edgeecc", *sys.argv[1:]]
from edgeecc.cli.main import main
if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graph_folder(tmp_path_factory.mktemp("graph"))


def calibration(graph: Path, workspace: Path) -> List[Any]:
    """Return the words of a calibration that measures all samples."""
    words = ["calibrate", "--graph", graph, "--workspace", workspace]
    return [*words, "--samples", SAMPLES, "--target-error", "0"]


@pytest.fixture(scope="module")
def alone(graph: Path, tmp_path_factory: pytest.TempPathFactory) -> List[Any]:
    """Return the samples that one bench measures: what is measured is a function of the sample's number alone."""
    workspace = tmp_path_factory.mktemp("alone")
    run_json(*calibration(graph, workspace))
    return stored(workspace)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Return a cluster that runs already: workers of boards a and b, and one without the resource of its board."""
    from distributed import Nanny, Scheduler, SpecCluster

    options = {"host": "127.0.0.1", "dashboard": False, "nthreads": 1, "memory_limit": 0}
    resources = {"a": {KIND: 1}, "b": {KIND: 1}, "bare": {}}
    workers = {
        name: {"cls": Nanny, "options": {**options, "resources": one, "silence_logs": 50}}
        for name, one in resources.items()
    }
    here = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard": False}}
    with SpecCluster(workers=workers, scheduler=here, silence_logs=50) as found:
        yield found


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Return a function that starts `edgeecc calibrate` with a fleet in the background."""
    processes: List[subprocess.Popen] = []

    def start(graph: Path, fleet: Path, *more: str) -> subprocess.Popen:
        script = tmp_path / "hearing.py"
        script.write_text(HEARING)
        words = [*calibration(graph, tmp_path), "--fleet", fleet, "--json", *more]
        process = subprocess.Popen(
            [sys.executable, str(script), *map(str, words)],
            env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(2400):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to that")


def measured(workspace: Path) -> Dict[str, int]:
    """Return board -> how many samples the store has of it."""
    try:
        boards = [board for (board,) in stored(workspace, "board")]
    except Exception:  # not there yet
        return {}
    return {board: boards.count(board) for board in boards}


def pids(folder: Path) -> Dict[int, int]:
    """Return process of a board -> process of its worker, of all that were started."""
    found = {}
    for path in folder.iterdir():
        text = path.read_text()
        if text:
            found[int(path.name)] = int(text)
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def faults(
    tmp_path: Path, delay_s: float = 0.02, **more: Dict[str, Any]
) -> Dict[str, Dict[str, Any]]:
    """Return faults of boards, each leaving its process numbers in a folder of its own."""
    for name in more:
        (tmp_path / name).mkdir(exist_ok=True)
    return {
        name: {"delay_s": delay_s, "pids": str(tmp_path / name), **one}
        for name, one in more.items()
    }


@pytest.mark.slow
def test_kills_of_a_worker_and_of_boards_lose_nothing(
    graph: Path, alone: list, started: Callable, tmp_path: Path
) -> None:
    off = tmp_path / "off"
    boards = faults(tmp_path, 0.15, a={}, b={}, c={"off": str(off)})
    fleet = fleet_file(
        tmp_path / "fleet.toml", boards, rest_s=0.2, rests=2, canary_every=8, batch_s=0.2
    )
    process = started(graph, fleet)
    wait_until(lambda: {"a", "b", "c"} <= set(measured(tmp_path)))
    (worker,) = set(pids(tmp_path / "a").values())
    (board,) = pids(tmp_path / "b")
    (dying,) = pids(tmp_path / "c")
    os.kill(worker, signal.SIGKILL)
    os.kill(board, signal.SIGKILL)
    off.touch()
    os.kill(dying, signal.SIGKILL)
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert stored(tmp_path) == alone
    told = json.loads(out)["boards"]
    assert told["c"]["state"] == "dead"
    assert "the board is off" in told["c"]["why"]
    assert "its worker ended" in told["a"]["why"]
    assert told["b"]["state"] == "fine", "its process was started again"
    assert len(pids(tmp_path / "b")) == 2
    assert sum(one["samples"] for one in told.values()) == SAMPLES
    assert "board c is dead" in errors
    ours = [pid for name in "abc" for pair in pids(tmp_path / name).items() for pid in pair]
    wait_until(lambda: not any(map(is_running, ours)))


def test_a_throttled_board_is_told_and_its_samples_are_measured_anew(
    graph: Path, alone: list, cluster: Any, tmp_path: Path
) -> None:
    boards = faults(tmp_path, a={}, b={"slow_after": 12})
    fleet = fleet_file(tmp_path / "fleet.toml", boards, rest_s=60.0, canary_every=8, batch_s=0.2)
    driven = ["--scheduler", cluster.scheduler_address, "--fleet", fleet]
    result = run_json(*calibration(graph, tmp_path), *driven)
    told = result["boards"]
    assert told["b"]["state"] == "slow"
    assert "times what it did at its start" in told["b"]["why"]
    assert stored(tmp_path) == alone, "nothing that was measured hot is kept"
    assert told["a"]["samples"] + told["b"]["samples"] == SAMPLES
    assert told["a"]["offset"] == pytest.approx(1.0, abs=0.01)


def test_offsets_are_found_told_and_divided_out(
    graph: Path, alone: list, cluster: Any, tmp_path: Path
) -> None:
    """Factors of 1.2 and 0.8 against their geometric mean; the store keeps what was measured."""
    boards = faults(tmp_path, a={"scale": 1.2}, b={"scale": 0.8})
    fleet = fleet_file(tmp_path / "fleet.toml", boards)
    words = calibration(graph, tmp_path)
    driven = ["--scheduler", cluster.scheduler_address, "--fleet", fleet]
    result = run_json(*words, *driven)
    factors = {"a": 1.2, "b": 0.8}
    values = stored(tmp_path, "number, value, board")
    assert {board for *_, board in values} == {"a", "b"}
    for (_, _, plain, _), (_, value, board) in zip(alone, values):
        assert value == pytest.approx(factors[board] * plain)
    mean = (1.2 * 0.8) ** 0.5
    for name, factor in factors.items():
        told = result["boards"][name]
        assert told["offset"] == pytest.approx(factor / mean, rel=0.01)
        assert 0.0 < told["standard_error"] < 0.02
    path = Path(result["profile"])
    profile = Profile.load(path)
    dense = next(plain for number, _, plain, _ in alone if number == -1)
    assert profile.anchors["dense"] == pytest.approx(mean * dense, rel=0.01)
    assert (
        f"- Board a: {result['boards']['a']['samples']} samples, offset 1.2"
        in (path.parent / "PROTOCOL.md").read_text()
    )
    fleet_file(
        fleet, boards, reference="b"
    )  # the same samples, held to board b; no board is needed for that
    held = run_json(*words, *driven)
    assert held["resumed_from"] == SAMPLES
    assert held["boards"]["b"]["offset"] == 1.0
    assert held["boards"]["a"]["offset"] == pytest.approx(1.5, rel=0.01)
    text = run(*words).stdout  # without a fleet, of what it has measured
    assert "offset" in text
    assert f"{result['boards']['a']['offset']:.4f} +- " in text


@pytest.mark.slow
def test_ctrl_c_and_dead_boards_keep_what_is_there(
    graph: Path, alone: list, cluster: Any, started: Callable, tmp_path: Path
) -> None:
    off = tmp_path / "off"
    boards = faults(tmp_path, 0.15, a={"off": str(off)}, b={"off": str(off)})
    fleet = fleet_file(tmp_path / "fleet.toml", boards, rest_s=0.1, rests=1)
    process = started(graph, fleet)
    wait_until(lambda: sum(measured(tmp_path).values()) > 4)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it: to all of them
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "interrupted; what was saved is kept" in errors
    assert "Traceback" not in errors
    kept = stored(tmp_path)
    assert 4 < len(kept) < SAMPLES

    driven = ["--scheduler", cluster.scheduler_address]
    process = started(graph, fleet, *driven)
    wait_until(lambda: sum(measured(tmp_path).values()) > len(kept))
    off.touch()
    for name in "ab":
        for pid in pids(tmp_path / name):
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    missing = SAMPLES + 2 - len(stored(tmp_path))
    last = errors.strip().splitlines()[-1]
    assert last.startswith("Error: no board is left (a dead: ")
    assert f"{missing} samples are missing, what was measured is kept" in last

    off.unlink()
    run_json(*calibration(graph, tmp_path), "--fleet", fleet, *driven)
    assert stored(tmp_path) == alone


def test_workers_of_a_scheduler_that_runs_already(
    graph: Path, alone: list, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is a board's by its name and its resource; one that lacks either measures nothing, and all stay."""
    monkeypatch.setattr("edgeecc.fleet.dispatch.WORKERS_S", 1.0)
    words = calibration(graph, tmp_path)
    words += ["--scheduler", cluster.scheduler_address, "--fleet"]
    boards = fleet_file(tmp_path / "fleet.toml", faults(tmp_path, a={}, bare={}))
    result = run_json(*words, boards)
    assert stored(tmp_path) == alone
    assert result["boards"]["a"]["samples"] == SAMPLES
    assert result["boards"]["bare"]["why"] == "it has no worker"
    said = complaint(*words, fleet_file(tmp_path / "other.toml", faults(tmp_path, z={})))
    assert "has no worker of a board; start one for each, such as: dask worker tcp://" in said
    assert f'--name z --nthreads 1 --resources "{KIND}=1"' in said
    assert len(cluster.scheduler.workers) == 3
    assert not any(map(is_running, pids(tmp_path / "a"))), "boards are let go"


def test_what_it_refuses(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = fleet_file(tmp_path / "fleet.toml", {"a": {}})
    words = ["calibrate", "--graph", graph, "--workspace", tmp_path]
    assert "a scheduler goes with a fleet" in complaint(*words, "--scheduler", "tcp://h:1")
    assert "no board of kind onnxruntime:cpu" in complaint(
        *words, "--fleet", fleet, "--device", "onnxruntime:cpu"
    )
    assert "is no address of a scheduler" in complaint(*words, "--fleet", fleet, "--scheduler", "x")
    monkeypatch.setattr("edgeecc.fleet.dispatch.CONNECT_S", 0.5)
    closed = ["--fleet", fleet, "--scheduler", "tcp://127.0.0.1:9"]
    assert "cannot reach scheduler tcp://127.0.0.1:9" in complaint(*words, *closed)
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "a fleet needs Dask, which is not here; pip install 'edgeecc[fleet]'" in complaint(
        *words, "--fleet", fleet
    )


def test_variants_that_cannot_be_built_are_passed_over_by_the_fleet(
    graph: Path, tmp_path: Path
) -> None:
    wrong = [2, 5, 11]
    fleet = fleet_file(
        tmp_path / "fleet.toml",
        {"a": {"unbuildable": wrong}, "b": {"unbuildable": wrong}},
    )
    words = [*calibration(graph, tmp_path)[:-4], "--samples", 20, "--target-error", 0]
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # Dask's usual port, which another fleet may have
            stack.enter_context(socket.create_server(("127.0.0.1", 8787)))
        told = run_json(*words, "--fleet", fleet)
    assert [one["number"] for one in told["failed"]] == wrong
    assert told["failed"][0]["why"] == "no kernel for variant 2"
    assert told["samples"] == 17
    assert {one["state"] for one in told["boards"].values()} <= {"fine", "new"}
    assert sorted(number for (number,) in stored(tmp_path, "number") if number >= 0) == [
        number for number in range(20) if number not in wrong
    ]
    many = list(range(20, 60))
    fleet = fleet_file(
        tmp_path / "fleet.toml", {"a": {"unbuildable": many}, "b": {"unbuildable": many}}
    )
    said = complaint(*calibration(graph, tmp_path), "--fleet", fleet)
    assert "20 variants could not be built" in said
    fleet = fleet_file(tmp_path / "fleet.toml", {"a": {"unbuildable": [-1]}})
    other = [
        word if word != tmp_path else tmp_path / "other" for word in calibration(graph, tmp_path)
    ]
    said = complaint(*other, "--fleet", fleet)
    assert "a dead: it cannot build variant -1: no kernel for variant -1" in said
