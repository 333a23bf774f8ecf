"""What calibration guards against: other laws, forged samples, folders outside, interruption."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from edgeecc import bench as module
from edgeecc.artifacts import write_bytes, write_json
from edgeecc.calibrate import Job, calibrate
from edgeecc.calibration_folder import folder_name
from edgeecc.calibration_job import Request, run
from edgeecc.config import CalibrateConfig, MeasureProtocol
from edgeecc.errors import ArtifactError, MeterError
from edgeecc.meters.measure import measure
from edgeecc.meters.virtual import LAWS, TX2, VirtualDevice
from edgeecc.run_folder import SPEC_SCHEMA
from edgeecc.workload import NodeWork
from tests.unit.test_calibrate import small_network

pytestmark = pytest.mark.device
SAMPLES = CalibrateConfig(samples=20)
CONV = NodeWork("c", "Conv", 1e6, 4e3, 2e5, 1e5, in_channels=16, out_channels=16)


def calibrated(folder: Path) -> Path:
    spec, graph = small_network()
    calibrate(Job(spec, graph, TX2.name, folder), SAMPLES, MeasureProtocol())
    return folder / "samples.db"


def test_a_store_never_mixes_two_laws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrated(tmp_path)
    monkeypatch.setitem(LAWS, TX2.name, replace(TX2, mac_j=2 * TX2.mac_j))
    with pytest.raises(ArtifactError, match=r"holds samples with law .*move it away"):
        calibrated(tmp_path)


@pytest.mark.parametrize(
    ("widths", "why"),
    [
        ("[1, 1]", "sample 3 has other widths"),
        ("[1]", "sample 3 has other widths"),
        ("[1, 2, 3]", "sample 3 has other widths"),
        ("{}", "is damaged: widths are no list"),
    ],
)
def test_samples_of_other_widths_are_refused(tmp_path: Path, widths: str, why: str) -> None:
    store = calibrated(tmp_path)
    with sqlite3.connect(store) as db:
        db.execute("UPDATE samples SET widths = ? WHERE number = 3", (widths,))
    with pytest.raises(ArtifactError, match=why) as caught:
        calibrated(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_store_of_another_layout_is_called_damaged_not_full(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "samples.db") as db:
        db.execute("CREATE TABLE samples (number INTEGER PRIMARY KEY, widths TEXT NOT NULL)")
    with pytest.raises(ArtifactError, match=r"is damaged: .*calibrate again"):
        calibrated(tmp_path)


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("alexnet", "alexnet"),
        ("pkg.mod:Net", "Net"),
        ("m:../../../escaped", "-..-..-escaped"),
        ("/etc/x", "-etc-x"),
        ("m:..", "network"),
        ("", "network"),
    ],
)
def test_folder_names_stay_one_level_deep(reference: str, name: str) -> None:
    assert folder_name(reference) == name
    assert Path(name).name == name


def test_a_graph_folder_cannot_write_outside_the_workspace(tmp_path: Path) -> None:
    spec, graph = small_network()
    source, workspace = tmp_path / "graph", tmp_path / "workspace"
    workspace.mkdir()
    write_json(
        source / "spec.json", SPEC_SCHEMA, {"spec": replace(spec, network="m:../../../x").to_json()}
    )
    write_bytes(source / "dense.onnx", graph.SerializeToString())
    request = Request(None, None, source, TX2.name, workspace)
    result = run(request, SAMPLES, MeasureProtocol())
    assert workspace.resolve() in Path(str(result["profile"])).resolve().parents
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph", "workspace"]


def test_a_meter_that_reads_nan_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    device = VirtualDevice.named(TX2.name)
    device.load([CONV])
    monkeypatch.setattr(device, "read_j", lambda: float("nan"))
    with pytest.raises(MeterError, match="no count; check the meter"):
        measure(device.run, device, MeasureProtocol())


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MeterError])
def test_what_was_measured_before_an_interruption_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: type
) -> None:
    calls = []

    def interrupted(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 8:
            raise stop
        return measure(*arguments)

    monkeypatch.setattr(module, "measure", interrupted)
    with pytest.raises(stop):
        calibrated(tmp_path)
    with sqlite3.connect(tmp_path / "samples.db") as db:
        assert db.execute("SELECT count(*) FROM samples").fetchone() == (7,)
