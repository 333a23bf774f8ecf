"""Record a meter, to be replayed where its device is not: see `meters.replay`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Callable, List, Optional, Tuple

from edgeecc.artifacts import write_bytes
from edgeecc.errors import ConfigError, MeterError
from edgeecc.meters.base import Meter
from edgeecc.meters.replay import Trace, read_trace

#: Readings that fit into a file that is read again.
MOST_READINGS = 1_000_000


def record(meter: Meter, path: Path, step: Callable[[], object], readings: int) -> Trace:
    """Read a meter, let a step pass, and so on; write seconds and joules as CSV, and return them as a trace.

    A step of a few inferences records a network at work; one that sleeps records what else the device does. It should
    last a period of the meter or more. What was read is kept where the recording ends early.

    Args:
        meter: counts joules.
        path: file to write.
        step: called between two readings.
        readings: 2 to `MOST_READINGS`.
    Returns: the trace, as `read_trace` reads it.
    Raises: ConfigError when the readings are too few or too many; MeterError when the meter is only a clock, when it
        runs backwards, or a step takes no time; ArtifactError when the file cannot be written; whatever `step` raises.
    """
    if not 2 <= readings <= MOST_READINGS:
        raise ConfigError(f"{readings} readings make no trace; record 2 to {MOST_READINGS}")
    found: List[Tuple[float, float]] = [_reading(meter, None)]
    try:
        while len(found) < readings:
            step()
            found.append(_reading(meter, found[-1]))
    finally:
        if len(found) > 1:
            lines = [f"{seconds!r},{joules!r}\n" for seconds, joules in found]
            write_bytes(path, ("seconds,joules\n" + "".join(lines)).encode())
    return read_trace(path)


def _reading(meter: Meter, before: Optional[Tuple[float, float]]) -> Tuple[float, float]:
    joules = meter.read_j()
    seconds = float(meter.clock_s())
    if joules is None:
        raise MeterError(f"{meter.name} counts no joules; record a meter of energy")
    if not (math.isfinite(joules) and math.isfinite(seconds)):
        raise MeterError(f"{meter.name} read {joules} J at {seconds} s: no count; check the meter")
    if before is not None and (seconds <= before[0] or joules < before[1]):
        raise MeterError(
            f"{meter.name} read {joules:.6g} J at {seconds:.6g} s after {before[1]:.6g} J at {before[0]:.6g} s; let "
            "each step take time, and check the meter"
        )
    return seconds, float(joules)
