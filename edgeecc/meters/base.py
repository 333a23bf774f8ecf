"""What a meter is, and what a measurement tells.

A meter is a clock and, mostly, a cumulative count of joules, so a window is a plain subtraction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import perf_counter
from typing import Dict, Optional, Protocol

from edgeecc.meters.conditions import Conditions
from edgeecc.timing import DeviceTimes

#: Ratio of the interquartile range to the standard deviation of a normal distribution.
IQR_PER_SIGMA = 1.349
#: Standard error of a median over that of a mean, normal distribution.
MEDIAN_PENALTY = 1.2533


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
        energy_se_j: standard error of the mean, by what windows differ.
        energy_resolution_j: standard error that the meter adds: its ticks, and the steps of its sensor.
        energy_iqr_j: interquartile range over the windows.
        latency_s: median over the windows of seconds per inference.
        latency_iqr_s: interquartile range over the windows.
        windows: number of windows that count.
        dropped: windows that do not: disturbed, unseen in part, or held back.
        runs: inferences per window.
        converged: whether the asked tolerance was reached.
        meter: the meter's name.
        conditions: what the device was like in the last window; None where nothing tells.
        device_times: of single inferences, by a clock of the device; None where it has none, or was not asked.
    """

    energy_j: Optional[float]
    energy_median_j: Optional[float]
    energy_se_j: Optional[float]
    energy_resolution_j: Optional[float]
    energy_iqr_j: Optional[float]
    latency_s: float
    latency_iqr_s: float
    windows: int
    dropped: int
    runs: int
    converged: bool
    meter: str
    conditions: Optional[Conditions] = None
    device_times: Optional[DeviceTimes] = None

    @property
    def energy_error_j(self) -> Optional[float]:
        """Standard error of the energy in all, joules; None when the meter is only a clock."""
        if self.energy_se_j is None or self.energy_resolution_j is None:
            return None
        return math.hypot(self.energy_se_j, self.energy_resolution_j)

    def events_told(self) -> Dict[str, object]:
        """Return the times of single inferences as results tell them; nothing where there are none."""
        if self.device_times is None:
            return {}
        return {"latency_events_s": self.device_times.to_json(self.latency_s)}

    @property
    def latency_se_s(self) -> float:
        """Standard error of the median latency, seconds, as far as windows differ; slow drifts do not show."""
        return MEDIAN_PENALTY * self.latency_iqr_s / IQR_PER_SIGMA / math.sqrt(self.windows)
