"""How long single inferences take by a clock of the device: what a runtime tells, and what a measurement keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional, Sequence

import numpy as np

from edgeecc.errors import MeterError

#: Single inferences that are timed: as many as fit into so many seconds, within bounds (ours).
TIMED_S, LEAST_RUNS, MOST_RUNS = 10.0, 100, 1000
#: The host's clock and the device's tell one latency while they differ by no more than this share (ours).
TOLERANCE = 0.1


@dataclass(frozen=True)
class DeviceTimes:
    """Seconds of single inferences by the device's own clock.

    Args:
        runs: how many were timed.
        median_s: over them.
        p95_s, p99_s: percentiles; None where the clock does not tell.
        clock: its name, such as "CUDA events".
    """

    runs: int
    median_s: float
    p95_s: Optional[float]
    p99_s: Optional[float]
    clock: str

    @staticmethod
    def of(seconds: Sequence[float], clock: str) -> DeviceTimes:
        """Return the distribution of times.

        Args:
            seconds: of each inference, at least one.
            clock: its name.
        Raises: MeterError when the clock stood still or ran backwards over one.
        """
        if not min(seconds) > 0.0:
            raise MeterError(f"{clock} took {min(seconds)} s for an inference; check the driver")
        median, p95, p99 = (float(value) for value in np.percentile(seconds, [50, 95, 99]))
        return DeviceTimes(len(seconds), median, p95, p99, clock)

    def agree_with(self, latency_s: float) -> bool:
        """Return whether inferences that follow each other take, by the host's clock, about as long as these."""
        return abs(latency_s / self.median_s - 1.0) <= TOLERANCE

    def to_json(self, latency_s: float) -> Dict[str, object]:
        """Return it JSON-ready, beside a latency by the host's clock, seconds."""
        return {
            "median": self.median_s,
            "p95": self.p95_s,
            "p99": self.p99_s,
            "runs": self.runs,
            "clock": self.clock,
            "agrees": self.agree_with(latency_s),
        }


def runs_to_time(latency_s: float) -> int:
    """Return how many single inferences are timed of a network that takes about so long."""
    return int(min(MOST_RUNS, max(LEAST_RUNS, TIMED_S / latency_s)))
