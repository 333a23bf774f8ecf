"""Recorded meters: what is replayed is what was read, window by window."""

from __future__ import annotations

import re
from pathlib import Path
from typing import List, Optional

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.config import MeasureProtocol
from edgeecc.errors import ArtifactError, ConfigError, EdgeeccError, MeterError
from edgeecc.meters.measure import measure
from edgeecc.meters.record import record
from edgeecc.meters.replay import ReplayDevice, read_trace
from edgeecc.meters.sampled import SampledMeter
from edgeecc.meters.virtual import VirtualDevice
from edgeecc.workload import NodeWork
from tests.unit.meters.test_measure import FakeDevice

pytestmark = pytest.mark.device
DOCS = Path(__file__).resolve().parents[3] / "docs"
WORK = [NodeWork("conv", "Conv", 1e7, 1e4, 1e4, 1e4, 8, 8)]


class Script:
    """A meter that reads what a list says."""

    name, period_s, step_w = "script", 0.0, 0.0

    def __init__(self, seconds: List[float], joules: List[Optional[float]]) -> None:
        self._pairs = list(zip(seconds, joules))
        self._now = 0

    def clock_s(self) -> float:
        self._now += 1
        return self._pairs[self._now - 1][0]

    def read_j(self) -> Optional[float]:
        return self._pairs[self._now][1]

    def blind_s(self) -> float:
        return 0.0


def replayed(path: Path, latency_s: float, counts: List[int]) -> List[float]:
    """Return the joules of windows of so many inferences each."""
    device = ReplayDevice(read_trace(path), latency_s)
    found = []
    for count in counts:
        before = device.read_j()
        device.run(count)
        found.append(device.read_j() - before)
    return found


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(1, 7))
def test_a_virtual_device_replays_to_the_same_joules_in_every_window(
    tmp_path_factory: pytest.TempPathFactory, counts: List[int], chunk: int
) -> None:
    path = tmp_path_factory.mktemp("record") / "tx2.csv"
    device = VirtualDevice.named("virtual:tx2")
    device.load(WORK, (7,))
    wanted, noisy = [], []

    def step() -> None:
        before = device.read_j()
        device.run(chunk)
        noisy.append(device.read_j() - before)

    trace = record(device, path, step, sum(counts) + 1)
    latency_s = float(trace.seconds[1]) / chunk
    for count in counts:
        wanted.append(sum(noisy[:count]))
        del noisy[:count]
    found = replayed(path, latency_s, [chunk * count for count in counts[:-1]])
    assert found == pytest.approx(wanted[:-1], rel=1e-9)
    assert trace.joules[-1] == pytest.approx(sum(wanted), rel=1e-9)


@given(st.lists(st.tuples(st.floats(1e-3, 2.0), st.floats(0.0, 30.0)), min_size=2, max_size=40))
def test_a_sampled_meter_replays_to_the_same_joules_between_readings(
    tmp_path_factory: pytest.TempPathFactory, steps: list
) -> None:
    """Power that changes in steps, read by the meter's own integral on a clock of the test."""
    path, now, watts = tmp_path_factory.mktemp("record") / "rail.csv", [0.0], [1.0]

    class Rail:
        name, period_s, step_w = "rail", 1e6, 0.0

        def read_w(self) -> float:
            return watts[0]

    meter = SampledMeter(Rail(), clock=lambda: now[0])
    meter._read()  # the thread is not started: the test is the clock
    left, read = list(steps), []

    def step() -> None:
        seconds, power = left.pop(0)
        now[0] += seconds
        watts[0] = power
        meter._read()
        read.append((now[0], meter.read_j()))

    trace = record(meter, path, step, len(steps) + 1)
    joules = np.asarray([joules for _, joules in read])
    assert trace.joules[1:] == pytest.approx(joules, rel=1e-12)
    for (seconds, _), wanted in zip(read, joules):
        assert trace.joules_at(min(seconds, trace.seconds[-1])) == pytest.approx(wanted, rel=1e-9)


def test_the_protocol_finds_in_a_recording_what_was_recorded(tmp_path: Path) -> None:
    meter = FakeDevice(3.0, 0.01)
    record(meter, tmp_path / "t.csv", lambda: meter.run(10), 700)
    device = ReplayDevice(read_trace(tmp_path / "t.csv"), latency_s=0.01)
    found = measure(device.run, device, MeasureProtocol(min_windows=3))
    assert found.energy_j == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("seconds", "joules", "message"),
    [
        ([0.0, 1.0], [None, None], "script counts no joules"),
        ([0.0, 0.0], [0.0, 1.0], "let each step take time"),
        ([0.0, 1.0], [2.0, 1.0], "read 1 J at 1 s after 2 J at 0 s"),
        ([0.0, 1.0], [0.0, float("nan")], "read nan J at 1.0 s: no count"),
    ],
)
def test_what_is_no_trace_is_one_line(
    seconds: list, joules: list, message: str, tmp_path: Path
) -> None:
    with pytest.raises(MeterError, match=message) as caught:
        record(Script(seconds, joules), tmp_path / "t.csv", lambda: None, 2)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "t.csv").exists()


def test_an_interrupted_recording_keeps_what_was_read(tmp_path: Path) -> None:
    meter = FakeDevice(3.0, 0.01)

    def step() -> None:
        if meter.clock_s() > 0.5:
            raise KeyboardInterrupt
        meter.run(10)

    with pytest.raises(KeyboardInterrupt):
        record(meter, tmp_path / "t.csv", step, 100)
    trace = read_trace(tmp_path / "t.csv")
    assert 3 < len(trace.seconds) < 10
    assert trace.joules[-1] == pytest.approx(3.0 * trace.seconds[-1])


def test_bounds_and_folders_are_told(tmp_path: Path) -> None:
    meter = FakeDevice(3.0, 0.01)
    for readings in (1, 10**9):
        with pytest.raises(ConfigError, match=f"{readings} readings make no trace"):
            record(meter, tmp_path / "t.csv", lambda: meter.run(1), readings)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot write"):
        record(meter, tmp_path / "file" / "t.csv", lambda: meter.run(1), 3)


def test_the_example_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no board its meter is a stand-in; the rest is as it is printed."""
    from edgeecc import targets

    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "devices.md").read_text(), re.DOTALL)
    meter = FakeDevice(3.0, 0.002)
    monkeypatch.setattr(targets, "_board", lambda name, root, stack: (meter, None))
    monkeypatch.setattr(targets, "loader", lambda name, engines: lambda graph: Network(meter))
    monkeypatch.setattr("edgeecc.graph.onnx_slice.load_model", lambda path: None)
    names: dict = {}
    exec(code, names)  # noqa: S102  # our own page
    assert names["found"].energy_j == pytest.approx(0.006, rel=0.01)
    assert names["found"].meter == "replay of trace.csv"
    with pytest.raises(EdgeeccError, match="ends after"):
        names["device"].run(10**9)


class Network:
    def __init__(self, meter: FakeDevice) -> None:
        self.run = meter.run

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None: ...
