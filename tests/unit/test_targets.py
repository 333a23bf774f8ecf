"""Devices by name, over stand-ins for their drivers: what is opened, what is refused, and calibrations on them."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Dict, Iterator

import pytest

from edgeecc import bench, doctor, machine, targets
from edgeecc.bench import TargetBench, measure_graph
from edgeecc.config import MeasureProtocol
from edgeecc.cost.profile import Profile
from edgeecc.crew import MAX_FAILURES
from edgeecc.device_names import gpu_board, parse_device
from edgeecc.errors import EdgeeccError
from edgeecc.loaders import Engines, loader
from edgeecc.machine import boards_here, resolve
from edgeecc.measure_variants import Station
from edgeecc.meters.nvml import NvmlEnergyMeter
from edgeecc.runtimes import trtexec
from edgeecc.runtimes.engine import EngineBuildError
from edgeecc.runtimes.onnxrt import OnnxRuntime
from edgeecc.targets import Target, open_target
from edgeecc.timing import DeviceTimes
from edgeecc.verify import measure_energy
from tests import fake_trtexec, sysfs_trees
from tests.cli_runs import complaint, run, run_json
from tests.fake_nvml import FakeBoard, FakeNvml, installed
from tests.fake_tensorrt import builds, install
from tests.fleets import graph_folder, small_network
from tests.unit.meters.test_measure import FakeDevice, FakeSensors

pytestmark = pytest.mark.device

TICK_S = 5e-4


@contextmanager
def gpu(board: Any = None) -> Iterator[FakeNvml]:
    """Let there be a GPU whose counter ticks fast, in real time."""
    library = FakeNvml(board or FakeBoard(tick_s=TICK_S), clock=perf_counter)
    with installed(library):
        yield library


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let windows be short: the counter above ticks two hundred times as fast as a real one."""
    monkeypatch.setattr(NvmlEnergyMeter, "period_s", TICK_S)
    monkeypatch.setattr(bench, "idle_power", lambda meter: 12.5)


def refusal(device: str, root: Path) -> str:
    with pytest.raises(EdgeeccError) as caught, open_target(parse_device(device), root=root):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("write", "device", "rail"),
    [
        (sysfs_trees.tx2_r32, "jetson-tx2:trtexec:fp32", "VDD_SYS_GPU"),
        (sysfs_trees.tx2_r32, "jetson-tx2:trtexec:fp32:input", "VDD_IN"),
        (sysfs_trees.orin_nano_r36, "jetson-orin-nano:onnxruntime", "VDD_CPU_GPU_CV"),
        (sysfs_trees.agx_orin_r36, "jetson-agx-orin:onnxruntime:fp32:VDD_CPU_CV", "VDD_CPU_CV"),
    ],
)
def test_a_jetson_is_opened_by_its_name(write: Any, device: str, rail: str, tmp_path: Path) -> None:
    write(tmp_path)
    with open_target(parse_device(device), root=tmp_path) as target:
        assert target.meter.name == f"ina3221 {rail}"
        assert target.meter.read_j() >= 0.0
        assert target.sensors is not None
        assert target.sensors.conditions().held_back == ()
    assert next(iter(boards_here(tmp_path)[0])) == parse_device(device).board


def test_another_machine_than_the_one_named_is_refused(tmp_path: Path) -> None:
    assert "jetson-nano is not here, this machine is no Jetson" in refusal(
        "jetson-nano:trtexec", tmp_path
    )
    sysfs_trees.tx2_r32(tmp_path)
    said = refusal("jetson-nano:trtexec", tmp_path)
    assert "jetson-nano is not here, this machine is jetson-tx2" in said
    assert "--fleet" in said
    assert "VDD_IN" in refusal("jetson-tx2:trtexec:fp32:VDD_CORE", tmp_path), (
        "the rails that there are"
    )
    with gpu():
        assert "this machine is nvidia-a40" in refusal("nvidia-h200:torch", tmp_path)
        assert "has no meter gpu: a GPU has counter and power" in refusal(
            "nvidia-a40:torch:fp32:gpu", tmp_path
        )
    with installed(None):
        assert "NVML" in refusal("nvidia-a40:torch", tmp_path)


def test_a_gpu_is_read_by_its_counter_or_its_power(tmp_path: Path) -> None:
    with gpu():
        for meter, words in (
            ("", "energy counter"),
            (":counter", "energy counter"),
            (":power", "power"),
        ):
            with open_target(
                parse_device(f"nvidia-a40:onnxruntime:fp32{meter}"), root=tmp_path
            ) as target:
                assert words in target.meter.name
        found, missing = boards_here(tmp_path)
    assert list(found) == ["nvidia-a40", "cpu"]
    assert list(missing) == ["cpu-package"]
    with installed(None):
        found, missing = boards_here(tmp_path)
    assert list(found) == ["cpu"]
    assert sorted(missing) == ["cpu-package", "nvidia"]


def test_the_package_of_the_cpu_is_read_by_rapl(tmp_path: Path) -> None:
    sysfs_trees.zone(tmp_path, "package-0", 1000, 2**32, at="intel-rapl:0")
    with open_target(parse_device("cpu-package:onnxruntime"), root=tmp_path) as target:
        assert "package-0" in target.meter.name
        assert target.sensors is None
    with installed(None):
        assert "package-0" in boards_here(tmp_path)[0]["cpu-package"]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("NVIDIA H200", "nvidia-h200"),
        ("GeForce GTX 1080 Ti", "nvidia-geforce-gtx-1080-ti"),
        ("###", "nvidia-gpu"),
    ],
)
def test_models_are_names(model: str, name: str) -> None:
    assert gpu_board(model) == name
    assert parse_device(f"{name}:torch").board == name


def test_a_runtime_that_is_not_here_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "edgeecc.runtimes.eager", None)
    with pytest.raises(EdgeeccError, match=r"torch is not here; pip install 'edgeecc\[host\]'"):
        loader(parse_device("nvidia-a40:torch"))
    with pytest.raises(EdgeeccError, match="names no runtime"):
        loader(parse_device("jetson-tx2"))


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch) -> Dict[str, str]:
    """Let nothing here run networks, but for what is added."""
    found: Dict[str, str] = {}
    monkeypatch.setattr(machine, "runtimes_here", lambda: (found, {"tensorrt": "no bindings"}))
    return found


def test_a_device_is_resolved_to_its_whole_name(nothing: Dict[str, str], tmp_path: Path) -> None:
    with installed(None):
        assert resolve("auto", root=tmp_path) == "onnxruntime:cpu"
    assert resolve("virtual:tx2") == "virtual:tx2"
    nothing.update({"trtexec": "", "torch": ""})
    sysfs_trees.tx2_r32(tmp_path)
    assert resolve("auto", root=tmp_path) == "jetson-tx2:trtexec:fp32"
    assert resolve("auto", "int8", root=tmp_path) == "jetson-tx2:trtexec:int8"
    assert resolve("nvidia-a40") == "nvidia-a40:trtexec:fp32"
    assert resolve("nvidia-a40:torch", "fp16") == "nvidia-a40:torch:fp16"
    assert resolve("jetson-nano:torch:fp16:input", "fp16") == "jetson-nano:torch:fp16:input"
    del nothing["trtexec"]
    with pytest.raises(
        EdgeeccError, match="nothing here runs networks on jetson-tx2 in int8: no bindings"
    ):
        resolve("auto", "int8", root=tmp_path)
    with pytest.raises(EdgeeccError, match="names another precision than --precision fp32"):
        resolve("nvidia-a40:torch:fp16", "fp32")
    with pytest.raises(EdgeeccError, match="unknown device"):
        resolve("toaster")


def test_the_package_is_taken_where_there_is_no_board(tmp_path: Path) -> None:
    sysfs_trees.zone(tmp_path, "package-0", 1000, 2**32, at="intel-rapl:0")
    with installed(None):
        assert resolve("auto", root=tmp_path) == "cpu-package:onnxruntime:fp32"


def test_doctor_tells_boards_meters_and_runtimes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "CROSS_CHECK_S", 0.05)
    install(monkeypatch, "10")
    with gpu():
        sections = doctor.examine(tmp_path)
    told = {one.name: one for findings in sections.values() for one in findings}
    assert told["nvidia-a40"].ok
    assert "tensorrt 10.3.0" in told["tensorrt"].detail
    (check,) = [one for one in sections["meters"] if "A40" in one.name]
    assert check.ok
    sysfs_trees.tx2_r32(tmp_path)
    with installed(None):
        sections = doctor.examine(tmp_path, tmp_path)
    assert [one.name for one in sections["devices"]][2:] == ["jetson-tx2", "cpu-package"]
    assert "ina3221 VDD_IN" in [one.name for one in sections["meters"]]
    with gpu(FakeBoard(tick_s=TICK_S, instant=lambda now: (0, 1, 90_000.0))):
        (check,) = [
            one for one in doctor.examine(tmp_path, tmp_path)["meters"] if "A40" in one.name
        ]
    assert not check.ok
    assert ":counter, takes one of them" in check.hint


WORDS = [
    "--samples",
    12,
    "--target-error",
    0,
    "--model",
    "bilinear",
    "--fit",
    "work",
    "--window-s",
    0.005,
]


@pytest.mark.parametrize("release", ["8.2", "10"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_gpu_is_calibrated_with_engines(
    release: str, precision: str, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = install(monkeypatch, release)
    graph, device = graph_folder(tmp_path / "graph"), f"nvidia-a40:tensorrt:{precision}"
    words = [
        "calibrate",
        "--graph",
        graph,
        "--device",
        device,
        "--workspace",
        tmp_path,
        "--tolerance",
        0.5,
        *WORDS,
    ]
    with gpu():
        result = run_json(*words)
        assert run_json(*words)["resumed_from"] == 12
    assert result["about"]["idle_power_w"] == 12.5
    assert result["about"]["conditions"]["mode"] == "300 W"
    assert result["failed"] == []
    folder = tmp_path / "calibration" / f"nvidia-a40-tensorrt-{precision}" / "small"
    profile = Profile.load(folder / "profile.json")
    assert profile.metric.value == "energy"
    assert "energy counter, tensorrt" in profile.meter
    assert precision in profile.meter
    assert profile.anchors["dense"] > 0.0
    assert (folder / "timings-tensorrt.cache").read_bytes().startswith(b"timings ")
    assert len(list(folder.glob("engines/*.engine"))) == 2, "the anchors, which come again"
    assert builds(trt) == 14, "each once, and what the second command asks of is kept"
    with sqlite3.connect(folder / "samples.db") as db:
        told = [json.loads(text) for (text,) in db.execute("SELECT told FROM conditions")]
    assert len(told) == 14
    assert all(one["clocks_hz"] and one["temperatures_c"] for one in told)
    text = (folder / "PROTOCOL.md").read_text()
    assert "- Idle power, W: 12.5." in text


def test_a_single_measure_times_single_inferences_and_a_board_keeps_its_dense_engine(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = install(monkeypatch, "10")
    graph = graph_folder(tmp_path / "graph")
    protocol = MeasureProtocol(window_s=0.005, tolerance=0.5)
    words = ["measure", "--graph", graph, "--device", "auto", "--tolerance", 0.5]
    with gpu(), monkeypatch.context() as patch:
        patch.setattr(machine, "runtimes_here", lambda: ({"tensorrt": ""}, {}))
        words += ["--precision", "fp16", "--window-s", 0.005, "--number"]
        found = run_json(*words, -1)
        told = found["latency_events_s"]
        assert told["clock"] == "CUDA events"
        assert 100 <= told["runs"] <= 1000
        assert 0.0 < told["median"] <= told["p95"] <= told["p99"]
        assert "single inferences" in run(*words, 3).stdout
        assert builds(trt) == 2
        with Station.open(graph, "nvidia-a40:tensorrt:fp16", 0, protocol) as station:
            dense = station.spec.dense_widths()
            row = station.measure(-1, dense)
            assert builds(trt) == 2, "the dense engine is kept from the command"
            station.measure(3, dense)
            assert builds(trt) == 3
    assert "latency_events_s" not in row, "what drives a board does not ask for it"
    assert len(list((graph / "engines").iterdir())) == 2


def test_a_folder_that_cannot_be_written_keeps_nothing(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10")
    graph = graph_folder(tmp_path / "graph")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    protocol = MeasureProtocol(window_s=0.005, tolerance=0.5)
    with gpu(), Station.open(graph, "nvidia-a40:tensorrt:fp32", 0, protocol) as station:
        station.measure(-1, station.spec.dense_widths())
    assert sorted(path.name for path in graph.iterdir()) == ["dense.onnx", "spec.json"]


class Timed:
    """A runtime whose device says that an inference takes a millisecond."""

    name = "timed"

    def __init__(self, device_s: float) -> None:
        self._device_s = device_s

    def run(self, count: int) -> None: ...

    def device_times(self, count: int) -> DeviceTimes:
        return DeviceTimes.of([self._device_s] * count, "CUDA events")


@pytest.mark.parametrize(
    ("host_s", "warns"), [(1e-3, False), (1.09e-3, False), (1.5e-3, True), (0.6e-3, True)]
)
def test_a_latency_that_is_the_hosts_is_warned_of(
    host_s: float, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    meter = FakeDevice(3.0, host_s)
    runtime = Timed(1e-3)
    runtime.run = meter.run  # type: ignore[method-assign]
    target = Target(parse_device("nvidia-a40:tensorrt"), meter, None, lambda model: runtime)
    found = bench.measure_loaded(runtime, target, MeasureProtocol(), events=True)
    assert found.device_times is not None
    assert found.device_times.runs == 1000
    assert found.events_told()["latency_events_s"]["agrees"] == (not warns)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == warns
    if warns:
        assert "\n" not in lines[0]
        assert "over 10 % apart" in lines[0]
        assert "1 ms by CUDA events" in lines[0]
    assert bench.measure_loaded(runtime, target, MeasureProtocol()).device_times is None


def test_a_jetson_whose_tree_is_hidden_is_told(tmp_path: Path) -> None:
    sysfs_trees.tx2_r32(tmp_path)
    (tmp_path / "proc/device-tree").unlink()
    shutil.rmtree(tmp_path / "sys/firmware")
    assert "systempaths=unconfined" in refusal("jetson-tx2:trtexec", tmp_path)
    with installed(None):
        assert "device tree is hidden" in boards_here(tmp_path)[1]["jetson"]


def test_variants_that_cannot_be_built_are_passed_over_and_not_tried_again(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, tried = graph_folder(tmp_path / "graph"), []
    plain = TargetBench.measure

    def measure(self: Any, number: int, widths: Any, protocol: MeasureProtocol) -> Any:
        tried.append(number)
        if number in wrong:
            raise EngineBuildError(f"no kernel for variant {number}")
        return plain(self, number, widths, protocol)

    monkeypatch.setattr(TargetBench, "measure", measure)
    monkeypatch.setattr(targets, "loader", lambda name, engines: OnnxRuntime)
    words = [
        "calibrate",
        "--graph",
        graph,
        "--device",
        "nvidia-a40:onnxruntime",
        "--workspace",
        tmp_path,
        *WORDS,
    ]
    wrong = {3, 4}
    with gpu():
        result = run_json(*words)
        assert [one["number"] for one in result["failed"]] == [3, 4]
        assert "no kernel for variant 3" in result["failed"][0]["why"]
        assert result["samples"] == 10
        tried.clear()
        assert run_json(*words)["samples"] == 10
        assert tried == [-1], "the dense network tells which meter it is"
        pytest.importorskip("matplotlib")
        folder = tmp_path / "calibration" / "nvidia-a40-onnxruntime-fp32" / "small"
        assert run_json("report", folder, "--resamples", 40)["samples"] == {
            "train": 5,
            "heldout": 5,
        }
        wrong = set(range(12, 99))
        said = complaint(*words[:7], "--samples", 60, *WORDS[2:])
        assert f"{MAX_FAILURES} variants could not be built" in said
        assert "what is measured is kept" in said
        wrong = {-1}
        other = ["--workspace", tmp_path / "other"]
        assert "no kernel for variant -1" in complaint(*words[:5], *other, *WORDS)


def test_trtexec_is_observed_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_trtexec.program(tmp_path / "trtexec")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(trtexec.TrtexecRuntime.observe, "__kwdefaults__", {"settle_s": 0.1})
    name = parse_device("jetson-tx2:trtexec:fp32")
    _, model = small_network()
    meter = FakeDevice(3.0, 1.0)
    monkeypatch.setattr(meter, "clock_s", perf_counter, raising=False)
    monkeypatch.setattr(meter, "read_j", lambda: 3.0 * perf_counter(), raising=False)
    target = Target(name, meter, FakeSensors([]), loader(name, Engines(tmp_path)))
    found = measure_graph(
        model, target, MeasureProtocol(window_s=0.1, min_windows=3, tolerance=0.5)
    )
    assert found.energy_j / found.latency_s == pytest.approx(3.0, rel=1e-3)
    assert "trtexec fp32" in found.meter
    assert found.conditions is not None
    assert found.conditions.mode == "MAXN"


def test_what_is_exported_is_measured_where_its_board_is(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "loader", lambda name, engines: OnnxRuntime)
    _, model = small_network()
    protocol = MeasureProtocol(window_s=0.005, tolerance=0.5)
    with gpu():
        found = measure_energy(model, "nvidia-a40:onnxruntime:fp32", protocol)
        assert found is not None
        assert found.energy_j > 0.0
        assert "energy counter" in found.meter
        assert measure_energy(model, "nvidia-h200:onnxruntime:fp32", protocol) is None
    for device in ("jetson-tx2", "onnxruntime:cpu", "systolic:eyeriss"):
        assert measure_energy(model, device, protocol) is None
