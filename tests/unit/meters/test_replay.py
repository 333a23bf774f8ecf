"""Replayed traces: the integral against numpy's, the protocol on them, and every line that is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import List, Tuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.config import MeasureProtocol
from edgeecc.errors import ArtifactError, ConfigError, MeterError
from edgeecc.meters import replay
from edgeecc.meters.measure import measure
from edgeecc.meters.replay import ReplayDevice, read_trace

pytestmark = pytest.mark.device

trapezoid = getattr(np, "trapezoid" if hasattr(np, "trapezoid") else "trapz")
readings = st.lists(st.tuples(st.floats(1e-3, 0.5), st.floats(0.0, 50.0)), min_size=2, max_size=30)


def csv(path: Path, kind: str, rows: List[Tuple[float, float]]) -> Path:
    path.write_text(f"seconds,{kind}\n" + "".join(f"{s!r},{v!r}\n" for s, v in rows))
    return path


def jsonl(path: Path, kind: str, rows: List[Tuple[float, float]]) -> Path:
    path.write_text("".join(json.dumps({"seconds": s, kind: v}) + "\n" for s, v in rows))
    return path


@given(readings, st.floats(0.0, 1.0))
def test_watts_are_integrated_as_numpy_does_on_a_line_between_readings(
    tmp_path_factory: pytest.TempPathFactory, rows: list, share: float
) -> None:
    steps, watts = np.asarray(rows).T
    times = 5.0 + np.cumsum(steps)
    path = tmp_path_factory.mktemp("trace") / "t.csv"
    trace = read_trace(csv(path, "watts", list(zip(times.tolist(), watts.tolist()))))
    until = times[0] + share * (times[-1] - times[0])
    dense = np.union1d(times[times < until], [until])
    expected = trapezoid(np.interp(dense, times, watts), dense)
    assert trace.joules_at(until - times[0]) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(readings, st.floats(0.0, 1.0))
def test_joules_are_followed_on_a_line_between_readings(
    tmp_path_factory: pytest.TempPathFactory, rows: list, share: float
) -> None:
    steps, more = np.asarray(rows).T
    times, joules = np.cumsum(steps), 3.0 + np.cumsum(more)
    path = tmp_path_factory.mktemp("trace") / "t.jsonl"
    trace = read_trace(jsonl(path, "joules", list(zip(times.tolist(), joules.tolist()))))
    until = times[0] + share * (times[-1] - times[0])
    expected = np.interp(until, times, joules) - joules[0]
    assert trace.joules_at(until - times[0]) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_protocol_measures_what_was_recorded(tmp_path: Path) -> None:
    path = csv(tmp_path / "tx2.csv", "watts", [(0.01 * n, 4.0) for n in range(3000)])
    device = ReplayDevice(read_trace(path), latency_s=0.002)
    found = measure(device.run, device, MeasureProtocol())
    assert found.energy_j == pytest.approx(0.008)
    assert found.latency_s == pytest.approx(0.002)
    assert found.meter == "replay of tx2.csv"
    device.rewind()
    assert measure(device.run, device, MeasureProtocol()) == found


def test_time_moves_only_when_it_runs(tmp_path: Path) -> None:
    path = csv(tmp_path / "t.csv", "joules", [(0.0, 0.0), (1.0, 2.0), (2.0, 2.0)])
    device = ReplayDevice(read_trace(path), latency_s=0.1)
    assert (device.clock_s(), device.read_j(), device.period_s) == (0.0, 0.0, 1.0)
    device.run(5)
    assert (device.clock_s(), device.read_j()) == (0.5, pytest.approx(1.0))
    device.run(15)
    assert (device.clock_s(), device.read_j()) == (2.0, pytest.approx(2.0))


def test_the_end_of_the_trace_says_how_long_it_is(tmp_path: Path) -> None:
    path = csv(tmp_path / "t.csv", "watts", [(0.0, 1.0), (1.0, 1.0)])
    device = ReplayDevice(read_trace(path), latency_s=0.1)
    device.run(10)
    with pytest.raises(MeterError, match="t.csv ends after 1 s, and 3 more .* end at 1.3 s"):
        device.run(3)
    assert device.clock_s() == 1.0


def test_stretches_without_readings_are_blind(tmp_path: Path) -> None:
    times = [0.1 * n for n in range(11)] + [5.0, 5.1]
    path = csv(tmp_path / "t.csv", "watts", [(seconds, 1.0) for seconds in times])
    device = ReplayDevice(read_trace(path), latency_s=0.5)
    found = []
    for _ in range(10):
        device.run(1)
        found.append(device.blind_s())
    assert found == pytest.approx([0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0])


@pytest.mark.parametrize("latency_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_latency_that_is_none_is_refused(tmp_path: Path, latency_s: float) -> None:
    trace = read_trace(csv(tmp_path / "t.csv", "watts", [(0.0, 1.0), (1.0, 1.0)]))
    with pytest.raises(ConfigError, match="give seconds per inference"):
        ReplayDevice(trace, latency_s)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has 0 readings; a trace needs two or more"),
        ("time,power\n0,1\n", "line 1 is 'time,power'"),
        ("seconds,watts\n0,1\n", "has 1 readings; a trace needs two or more"),
        ("seconds,watts\n0,1\n\n1,1\n", "line 3 is ''; it must be two numbers"),
        ("seconds,watts\n0,1,2\n", "line 2 is '0,1,2'"),
        ("seconds,watts\n0,one\n", "line 2 is '0,one'; it must be two numbers"),
        ("seconds,watts\n0,1_0\n", "line 2 is '0,1_0'"),
        ("seconds,watts\n0,nan\n", "line 2 reads 0.0 s, nan; both must be finite"),
        ("seconds,watts\ninf,1\n", "line 2 reads inf s"),
        ("seconds,watts\n0,1\n1,-2\n", "line 3 reads -2 W, which no load draws"),
        ("seconds,watts\n0,1\n0,1\n", "line 3 is at 0 s, not after 0 s"),
        ("seconds,watts\n1,1\n0.5,1\n", "line 3 is at 0.5 s, not after 1 s"),
        ("seconds,joules\n0,5\n1,4\n", "line 3 counts 4 J, fewer than 5 J before"),
        ("seconds,watts\n" + "1" * 300 + ",1\n", "line 2 has 302 characters; at most 200"),
    ],
)
def test_lines_that_are_no_trace_are_told_by_number(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ArtifactError) as caught:
        read_trace(path)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "which is no JSON"),
        ("[" * 199, "which is no JSON"),
        ("[1, 2]", "it must give seconds and watts, or joules"),
        ('{"seconds": 1}', "it must give"),
        ('{"seconds": 1, "watts": 1, "joules": 1}', "it must give"),
        ('{"seconds": 1, "watts": true}', "must be numbers"),
        ('{"seconds": "1", "watts": 1}', "must be numbers"),
        ('{"seconds": 1, "watts": NaN}', "must be finite"),
        ('{"seconds": 1, "joules": 1}', "gives joules where the lines before give watts"),
        ("", "which is no JSON"),
    ],
)
def test_json_lines_that_are_no_trace_are_told_by_number(
    tmp_path: Path, line: str, told: str
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"seconds": 0, "watts": 1}\n' + line + "\n" + '{"seconds": 2, "watts": 1}\n')
    with pytest.raises(ArtifactError, match="line 2") as caught:
        read_trace(path)
    assert told in str(caught.value)


def test_a_number_that_is_too_large_is_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(replay, "MOST_LINE", 1000)
    path = tmp_path / "t.jsonl"
    path.write_text('{"seconds": 0, "watts": 1' + "0" * 400 + "}\n")
    with pytest.raises(ArtifactError, match="line 1 has a number that is too large"):
        read_trace(path)


def test_files_that_cannot_be_a_trace_are_refused(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ArtifactError, match="cannot be read: No such file"):
        read_trace(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(ArtifactError, match="is no text"):
        read_trace(tmp_path / "binary.csv")
    monkeypatch.setattr(replay, "MOST_BYTES", 20)
    with pytest.raises(ArtifactError, match="is longer than 20 bytes"):
        read_trace(csv(tmp_path / "long.csv", "watts", [(0.0, 1.0), (1.0, 1.0)]))


def test_a_file_of_another_system_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"seconds,watts\r\n0,1\r\n1,3\r\n")
    assert read_trace(path).joules_at(1.0) == pytest.approx(2.0)
