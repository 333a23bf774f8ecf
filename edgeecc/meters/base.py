"""Meters, and the one protocol by which anything is measured.

A meter is a clock and, mostly, a cumulative count of joules, so a window is a plain subtraction. `measure`
alone decides on warm-up, window length, repeats and spread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import perf_counter
from typing import Callable, List, Optional, Protocol, Tuple

import numpy as np

from edgeecc.config import MeasureProtocol
from edgeecc.errors import MeterError

#: Windows last at least this many periods of the counter: its tick then errs by under 5 %.
PERIODS_PER_WINDOW = 10
#: Ratio of the interquartile range to the standard deviation of a normal distribution.
_IQR_PER_SIGMA = 1.349
#: Standard error of a median over that of a mean, normal distribution.
_MEDIAN_PENALTY = 1.2533


class Meter(Protocol):
    """A clock with or without a joule counter."""

    @property
    def name(self) -> str:
        """As printed beside every figure, with "(simulated)" where it is."""

    @property
    def period_s(self) -> float:
        """Seconds between updates of the joule counter; 0 when it is continuous or there is none."""

    @property
    def step_w(self) -> float:
        """Watts between neighbouring readings of the sensor behind it; 0 where they do not matter."""

    def clock_s(self) -> float:
        """Return monotonic seconds."""

    def read_j(self) -> Optional[float]:
        """Return cumulative joules, or None when this meter is only a clock."""

    def blind_s(self) -> float:
        """Return for how many seconds in all nothing was read; 0 of a counter, which misses nothing."""


class ClockMeter:
    """The host's monotonic clock: latency only."""

    period_s = step_w = 0.0

    def __init__(self, name: str) -> None:
        self.name = name

    def clock_s(self) -> float:
        """Return monotonic seconds."""
        return perf_counter()

    def read_j(self) -> Optional[float]:
        """Return None: a clock counts no joules."""
        return None

    def blind_s(self) -> float:
        """Return 0: nothing is to be read."""
        return 0.0


@dataclass(frozen=True)
class Measurement:
    """Figures of one inference.

    Args:
        energy_j: mean over the windows; None when the meter is only a clock.
        energy_median_j: median over the windows: far from the mean, some windows were disturbed.
        energy_se_j: standard error of the mean.
        energy_iqr_j: interquartile range over the windows.
        latency_s: median over the windows of seconds per inference.
        latency_iqr_s: interquartile range over the windows.
        windows: number of windows.
        runs: inferences per window.
        converged: whether the asked tolerance was reached.
        meter: the meter's name.
    """

    energy_j: Optional[float]
    energy_median_j: Optional[float]
    energy_se_j: Optional[float]
    energy_iqr_j: Optional[float]
    latency_s: float
    latency_iqr_s: float
    windows: int
    runs: int
    converged: bool
    meter: str

    @property
    def latency_se_s(self) -> float:
        """Standard error of the median latency, seconds, as far as windows differ; slow drifts do not show."""
        return _MEDIAN_PENALTY * self.latency_iqr_s / _IQR_PER_SIGMA / math.sqrt(self.windows)


def measure(run: Callable[[int], None], meter: Meter, protocol: MeasureProtocol) -> Measurement:
    """Measure one inference.

    Warm up; choose how many inferences fill a window; measure windows until the standard error is under the
    tolerance (of the energy, or of the latency when the meter is only a clock) or their number is spent. Idle
    power is not subtracted.

    Args:
        run: runs n inferences back to back and returns when they are done.
        meter: what to read.
        protocol: see `MeasureProtocol`.
    Raises: MeterError when the counter stands still, runs backwards, or the clock does not move.
    """
    if protocol.warmup_runs:
        run(protocol.warmup_runs)
    runs = _runs_per_window(run, meter, protocol)
    energies: List[float] = []
    latencies: List[float] = []
    while len(latencies) < protocol.max_windows:
        joules, seconds = _window(run, meter, runs)
        latencies.append(seconds)
        if joules is not None:
            energies.append(joules)
        if (
            len(latencies) >= protocol.min_windows
            and _error(energies or latencies, bool(energies)) <= protocol.tolerance
        ):
            break
    return _summary(energies, latencies, runs, meter, protocol.tolerance)


def _runs_per_window(run: Callable[[int], None], meter: Meter, protocol: MeasureProtocol) -> int:
    """Return how many inferences last `window_s` and enough counter periods."""
    target = max(protocol.window_s, PERIODS_PER_WINDOW * meter.period_s)
    runs = 1
    while True:
        start = meter.clock_s()
        run(runs)
        seconds = meter.clock_s() - start
        if seconds >= 0.1 * target:
            return max(1, math.ceil(runs * target / seconds))
        if runs > 10**9:
            raise MeterError(f"the clock of {meter.name} does not move; check the runtime")
        runs *= 10 if seconds <= 0.0 else max(2, math.ceil(0.2 * target / seconds))


def _window(run: Callable[[int], None], meter: Meter, runs: int) -> Tuple[Optional[float], float]:
    first_j, start = meter.read_j(), meter.clock_s()
    run(runs)
    seconds, last_j = meter.clock_s() - start, meter.read_j()
    if seconds <= 0.0:
        raise MeterError(
            f"the clock of {meter.name} ran backwards or stood still over {runs} inferences"
        )
    if first_j is None or last_j is None:
        return None, seconds / runs
    joules = last_j - first_j
    if not math.isfinite(joules):
        raise MeterError(
            f"{meter.name} read {first_j} J, then {last_j} J: no count; check the meter"
        )
    if joules < 0.0:
        raise MeterError(
            f"{meter.name} counted {joules:.3g} J: the counter ran backwards; it wrapped or was reset"
        )
    if joules == 0.0:
        raise MeterError(
            f"{meter.name} counted 0 J over {seconds:.3g} s: the device has no energy counter, or the window is "
            "shorter than its period; use another meter or longer windows"
        )
    return joules / runs, seconds / runs


def _error(values: List[float], use_mean: bool) -> float:
    """Return the relative standard error of the mean (energy) or, robustly, of the median (latency)."""
    array = np.asarray(values)
    if use_mean:
        return float(array.std(ddof=1) / math.sqrt(len(array)) / array.mean())
    sigma = float(np.subtract(*np.percentile(array, [75, 25]))) / _IQR_PER_SIGMA
    return _MEDIAN_PENALTY * sigma / math.sqrt(len(array)) / float(np.median(array))


def _summary(
    energies: List[float], latencies: List[float], runs: int, meter: Meter, tolerance: float
) -> Measurement:  # fmt: skip
    joules, seconds = np.asarray(energies), np.asarray(latencies)
    has = bool(energies)
    return Measurement(
        energy_j=float(joules.mean()) if has else None,
        energy_median_j=float(np.median(joules)) if has else None,
        energy_se_j=float(joules.std(ddof=1) / math.sqrt(len(joules))) if has else None,
        energy_iqr_j=float(np.subtract(*np.percentile(joules, [75, 25]))) if has else None,
        latency_s=float(np.median(seconds)),
        latency_iqr_s=float(np.subtract(*np.percentile(seconds, [75, 25]))),
        windows=len(latencies),
        runs=runs,
        converged=_error(energies or latencies, has) <= tolerance,
        meter=meter.name,
    )
