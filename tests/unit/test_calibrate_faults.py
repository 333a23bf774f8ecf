"""Two calibrations of one folder, disks that are full, and clocks that jump."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import List

import pytest

from edgeecc.artifacts import load_json
from edgeecc.calibration_job import Request
from edgeecc.calibration_job import run as calibrate
from edgeecc.config import CalibrateConfig, MeasureProtocol
from edgeecc.progress import Progress
from edgeecc.report.evidence import read_evidence
from tests.cli_runs import complaint, run, run_json
from tests.fleets import graph_folder, stored

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.device


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return graph_folder(tmp_path / "graph")


def words(graph: Path, workspace: Path, samples: int = 300) -> List[str]:
    return ["calibrate", "--graph", str(graph), "--workspace", str(workspace), "--samples", str(samples),
            "--target-error", "0"]  # fmt: skip


def test_a_second_calibration_waits_and_readers_do_not(graph: Path, tmp_path: Path) -> None:
    run(*words(graph, tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeecc", "-q", *words(graph, tmp_path, 200_000)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    folder = tmp_path / "calibration/virtual-tx2/small"
    try:
        while len(stored(tmp_path)) < 400 and process.poll() is None:
            time.sleep(0.02)
        text = complaint(*words(graph, tmp_path, 310))
        assert f"{folder} is in use by another process" in text
        assert "wait for it or choose another --workspace" in text
        if Path("/proc/locks").exists():
            assert f"(number {process.pid})" in text
        evidence = read_evidence(folder)  # what only reads, as report does, may go on
        assert len(evidence.told) + len(evidence.truth) == 300
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(stored(tmp_path)) >= 400
    assert run_json(*words(graph, tmp_path, 310))["resumed_from"] == 310


def test_a_refused_calibration_changes_nothing(graph: Path, tmp_path: Path) -> None:
    """Another network of the same name: its spec must not stand beside the samples of the first."""
    from edgeecc.artifacts import write_bytes, write_json
    from edgeecc.run_folder import SPEC_SCHEMA, read_spec_file
    from tests.unit.test_calibrate import small_network

    run(*words(graph, tmp_path))
    folder = tmp_path / "calibration/virtual-tx2/small"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".db-shm"}
    spec, model = small_network((24, 48))
    write_json(tmp_path / "other/spec.json", SPEC_SCHEMA, {"spec": spec.to_json()})
    write_bytes(tmp_path / "other/dense.onnx", model.SerializeToString())
    assert "holds samples with fingerprint" in complaint(*words(tmp_path / "other", tmp_path))
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert (
        read_spec_file(folder / "spec.json").fingerprint()
        == load_json(folder / "profile.json")["fingerprint"]
    )


def test_a_full_disk_keeps_what_is_there(graph: Path, tmp_path: Path) -> None:
    run(*words(graph, tmp_path / "straight"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        text = complaint(*words(graph, tmp_path / "full"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot write" in text
    assert "free space or choose another --workspace" in text
    run(*words(graph, tmp_path / "full"))
    assert stored(tmp_path / "full") == stored(tmp_path / "straight")


def test_speed_is_no_difference_of_the_time_of_day(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(10**7))
    monkeypatch.setattr(time, "time", lambda: 1.7e9 - 3600.0 * next(times))
    started = time.perf_counter()
    told = run_json(*words(graph, tmp_path))
    assert told["variants_per_s"] >= 300 / (time.perf_counter() - started)


def test_progress_counts_what_is_there_but_not_in_the_rate(graph: Path, tmp_path: Path) -> None:
    run(*words(graph, tmp_path))
    told: List[Progress] = []
    request = Request(None, None, graph, "virtual:tx2", tmp_path)
    config = CalibrateConfig(samples=500, target_error=1e-6)
    calibrate(request, config, MeasureProtocol(), told.append)
    assert told[0].done >= 300
    assert {(one.total, one.unit, one.at_most) for one in told} == {(500, "samples", True)}
    assert {one.phase for one in told} == {"measuring", "fitting"}
    assert told[-1].done == 500
    assert re.fullmatch(
        r"error at most [0-9.]+% of 0.0% wanted  round [0-9]+  [0-9]+ windows", told[-1].note
    )
