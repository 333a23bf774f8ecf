"""A recorded trace as a device: its meter replays what was measured, and its clock is the trace's.

A trace is seconds with watts, or seconds with cumulative joules, one reading a line:

    CSV    a first line `seconds,watts` or `seconds,joules`, then numbers
    JSONL  objects such as {"seconds": 0.01, "watts": 3.2}

Time moves only when `run` is called: `count` inferences take `count` times the latency that the user states. What a
window then reads is what the recorded device drew in those seconds, so a whole calibration runs as it did on the board,
with no board there, and twice the same. Between readings power is taken to change linearly (watts), or to be constant
(joules); a stretch of more than `BLIND_PERIODS` usual distances without a reading is blind, as it is of a live sensor.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Tuple

import numpy as np
import numpy.typing as npt

from edgeecc.errors import ArtifactError, ConfigError, MeterError
from edgeecc.meters.sampled import BLIND_PERIODS

#: Bounds of a file: a day of a kilohertz sensor is neither.
MOST_BYTES = 64 * 1024 * 1024
MOST_LINE = 200

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trace:
    """Readings of a sensor, from time 0 on.

    Args:
        name: of the file, without its folder.
        seconds: (n,), strictly increasing, n >= 2; the first is 0.
        joules: (n,) cumulative, never decreasing; the first is 0.
        watts: (n,) power at those times, when it is what was recorded.
    """

    name: str
    seconds: Array
    joules: Array
    watts: Optional[Array]

    @property
    def period_s(self) -> float:
        """The usual distance between readings: their median."""
        return float(np.median(np.diff(self.seconds)))

    def joules_at(self, seconds: float) -> float:
        """Return the cumulative joules at a time within the trace."""
        after = int(np.searchsorted(self.seconds, seconds, side="right"))
        before = min(after, len(self.seconds) - 1) - 1
        start, end = self.seconds[before], self.seconds[before + 1]
        share = (seconds - start) / (end - start)
        if self.watts is None:
            low, high = self.joules[before], self.joules[before + 1]
            return float(low + share * (high - low))
        first, slope = self.watts[before], self.watts[before + 1] - self.watts[before]
        passed = seconds - start
        return float(self.joules[before] + passed * (first + 0.5 * share * slope))

    def blind_s(self, seconds: float) -> float:
        """Return for how long, up to a time, nothing was read."""
        gaps = np.diff(self.seconds)
        blind = gaps > BLIND_PERIODS * self.period_s
        return float(np.clip(seconds - self.seconds[:-1], 0.0, gaps)[blind].sum())


def read_trace(path: Path) -> Trace:
    """Return a recorded trace: CSV, or JSONL where the name ends in .jsonl.

    Raises: ArtifactError, with the number of the line, when it is missing, too long, or no trace.
    """
    numbers: List[Tuple[float, float]] = []
    kind = ""
    lines = _text(path).split("\n")
    last = len(lines) - 1
    for number, line in enumerate(lines, start=1):
        if len(line) > MOST_LINE:
            raise _wrong(
                path, number, f"has {len(line)} characters; at most {MOST_LINE} make sense"
            )
        if not line.strip() and number > last:
            continue
        if path.suffix == ".jsonl":
            here, seconds, value = _from_json(path, number, line)
        elif number == 1:
            kind = _header(path, line)
            continue
        else:
            here, (seconds, value) = kind, _from_csv(path, number, line)
        if kind and here != kind:
            raise _wrong(path, number, f"gives {here} where the lines before give {kind}")
        kind = here
        _check(path, number, (seconds, value), numbers[-1] if numbers else None, kind)
        numbers.append((seconds, value))
    if len(numbers) < 2:
        raise ArtifactError(f"{path} has {len(numbers)} readings; a trace needs two or more")
    return _trace(path.name, np.asarray(numbers, dtype=np.float64), kind)


def _trace(name: str, numbers: Array, kind: str) -> Trace:
    seconds, values = numbers[:, 0] - numbers[0, 0], numbers[:, 1]
    if kind == "joules":
        return Trace(name, seconds, values - values[0], None)
    pieces = 0.5 * (values[1:] + values[:-1]) * np.diff(seconds)
    return Trace(name, seconds, np.concatenate([[0.0], np.cumsum(pieces)]), values)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise ArtifactError(
                f"trace {path} is longer than {MOST_BYTES} bytes; cut it, or average its readings"
            )
        return raw.decode("utf-8")
    except OSError as error:
        raise ArtifactError(f"trace {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ArtifactError(f"trace {path} is no text; give CSV or JSONL") from error


def _header(path: Path, line: str) -> str:
    names = [name.strip() for name in line.split(",")]
    if names not in (["seconds", "watts"], ["seconds", "joules"]):
        raise _wrong(path, 1, f"is {line[:60]!r}; it must be seconds,watts or seconds,joules")
    return names[1]


def _from_csv(path: Path, number: int, line: str) -> Tuple[float, float]:
    cells = line.split(",")
    if len(cells) != 2 or "_" in line:
        raise _wrong(path, number, f"is {line[:60]!r}; it must be two numbers")
    try:
        return float(cells[0]), float(cells[1])
    except ValueError as error:
        raise _wrong(path, number, f"is {line[:60]!r}; it must be two numbers") from error


def _from_json(path: Path, number: int, line: str) -> Tuple[str, float, float]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _wrong(path, number, f"is {line[:60]!r}, which is no JSON") from error
    kinds = ("watts", "joules")
    keys = sorted(entry) if isinstance(entry, dict) else []
    if keys not in [sorted(["seconds", kind]) for kind in kinds]:
        raise _wrong(path, number, f"is {line[:60]!r}; it must give seconds and watts, or joules")
    kind = next(name for name in kinds if name in entry)
    numbers = [entry["seconds"], entry[kind]]
    if any(isinstance(item, bool) or not isinstance(item, (int, float)) for item in numbers):
        raise _wrong(path, number, f"is {line[:60]!r}; seconds and {kind} must be numbers")
    try:
        return kind, float(numbers[0]), float(numbers[1])
    except OverflowError as error:
        raise _wrong(path, number, "has a number that is too large") from error


def _check(
    path: Path,
    number: int,
    reading: Tuple[float, float],
    before: Optional[Tuple[float, float]],
    kind: str,
) -> None:
    seconds, value = reading
    if not (math.isfinite(seconds) and math.isfinite(value)):
        raise _wrong(path, number, f"reads {seconds} s, {value}; both must be finite")
    if kind == "watts" and value < 0.0:
        raise _wrong(path, number, f"reads {value:.4g} W, which no load draws")
    if before is None:
        return
    if seconds <= before[0]:
        raise _wrong(path, number, f"is at {seconds:.6g} s, not after {before[0]:.6g} s")
    if kind == "joules" and value < before[1]:
        raise _wrong(path, number, f"counts {value:.6g} J, fewer than {before[1]:.6g} J before")


def _wrong(path: Path, number: int, what: str) -> ArtifactError:
    return ArtifactError(f"trace {path}: line {number} {what}")


class ReplayDevice:
    """A meter and a runtime on the time of a trace.

    Args:
        trace: what was recorded.
        latency_s: seconds of one inference.
    Raises: ConfigError when the latency is no time.
    """

    step_w = 0.0

    def __init__(self, trace: Trace, latency_s: float) -> None:
        if not (math.isfinite(latency_s) and latency_s > 0.0):
            raise ConfigError(f"a latency of {latency_s} s is none; give seconds per inference")
        self.name = f"replay of {trace.name}"
        self.period_s = trace.period_s
        self._trace, self._latency_s = trace, latency_s
        self._runs = 0

    def rewind(self) -> None:
        """Go back to the start of the trace."""
        self._runs = 0

    def run(self, count: int) -> None:
        """Run `count` inferences back to back, in no time: the trace moves on.

        Raises: MeterError when the trace ends before they do; it then stays where it is.
        """
        then, end = (self._runs + count) * self._latency_s, float(self._trace.seconds[-1])
        if then > end:
            raise MeterError(
                f"{self.name} ends after {end:.4g} s, and {count} more inferences would end at {then:.4g} s; record "
                "a longer one, or measure fewer or shorter windows"
            )
        self._runs += count

    def clock_s(self) -> float:
        """Return the trace's seconds."""
        return self._runs * self._latency_s

    def read_j(self) -> Optional[float]:
        """Return the trace's joules."""
        return self._trace.joules_at(self.clock_s())

    def blind_s(self) -> float:
        """Return for how long of the seconds so far nothing was recorded."""
        return self._trace.blind_s(self.clock_s())
