"""Joules from watts: a thread reads a power sensor on its own clock, and a trapezoid integrates what it reads.

Used where a device has no counter of energy. Stretches in which nothing was read, because the process was stopped or
starved, are counted: `measure` drops the windows that they touch, for what flowed there is unknown.
"""

from __future__ import annotations

import math
import threading
from time import perf_counter
from typing import Callable, Optional, Protocol, Tuple

from edgeecc.errors import MeterError, brief

#: A stretch without a reading is blind from so many periods of the sensor on.
BLIND_PERIODS = 10
#: A reading stands for the power now until it is so many periods old.
FRESH_PERIODS = 5
#: Seconds in which a sensor answers, and in which the thread has to end.
ANSWER_S = 5.0


class PowerSource(Protocol):
    """A power sensor."""

    @property
    def name(self) -> str:
        """As printed beside every figure."""

    @property
    def period_s(self) -> float:
        """Seconds between its readings; it is read as often."""

    @property
    def step_w(self) -> float:
        """Watts between neighbouring readings that it can give; 0 where they are fine enough not to matter."""

    def read_w(self) -> float:
        """Return watts now.

        Raises: MeterError when it cannot be read.
        """


class Integral:
    """Joules under watts at times, by trapezoid.

    Args:
        name: of the sensor, for errors.
        blind_from_s: a longer stretch without a reading is blind.
    """

    def __init__(self, name: str, blind_from_s: float) -> None:
        self._name, self._blind_from_s = name, blind_from_s
        self._last: Optional[Tuple[float, float]] = None
        self.joules = 0.0
        self.blind_s = 0.0

    @property
    def last_s(self) -> float:
        """When the last reading was; minus infinity before the first."""
        return -math.inf if self._last is None else self._last[0]

    def joules_at(self, seconds: float) -> float:
        """Return the joules up to a time after the last reading, which holds until then."""
        if self._last is None:
            return 0.0
        return self.joules + self._last[1] * max(0.0, seconds - self._last[0])

    def add(self, seconds: float, watts: float) -> None:
        """Add a reading.

        Raises: MeterError when it is no power, or the clock ran backwards.
        """
        if not math.isfinite(watts) or watts < 0.0:
            raise MeterError(
                f"{self._name} read {watts:.4g} W, which no load draws; check the sensor and its wiring"
            )
        if self._last is not None:
            passed = seconds - self._last[0]
            if passed < 0.0:
                raise MeterError(
                    f"the clock ran back by {-passed:.3g} s between two readings of {self._name}; measure again"
                )
            self.joules += 0.5 * (watts + self._last[1]) * passed
            if passed > self._blind_from_s:
                self.blind_s += passed
        self._last = (seconds, watts)


class SampledMeter:
    """A meter over a power sensor; a context manager, as its thread must end.

    Args:
        source: the sensor.
        clock: monotonic seconds.
    """

    def __init__(self, source: PowerSource, clock: Callable[[], float] = perf_counter) -> None:
        self.name, self.period_s, self.step_w = source.name, source.period_s, source.step_w
        self._source, self._clock = source, clock
        self._integral = Integral(source.name, BLIND_PERIODS * source.period_s)
        self._told_j = 0.0
        self._sensor, self._lock = threading.Lock(), threading.Lock()
        self._stop = threading.Event()
        self._failure: Optional[MeterError] = None
        self._thread = threading.Thread(target=self._sample, name=source.name, daemon=True)

    def __enter__(self) -> SampledMeter:
        self._read()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(ANSWER_S)

    def clock_s(self) -> float:
        """Return monotonic seconds."""
        return self._clock()

    def read_j(self) -> Optional[float]:
        """Return joules since the meter was opened, up to now; never fewer than before.

        The last reading holds up to now. The sensor is read only where that reading is old: a reading takes up to
        tens of milliseconds, and what flows meanwhile is no part of the window that this call begins or ends.

        Raises: MeterError when the sensor failed at any time since the meter was opened.
        """
        with self._lock:
            age = self._clock() - self._integral.last_s
        if not 0.0 <= age <= FRESH_PERIODS * self.period_s:
            self._read()
        with self._lock:
            if self._failure is not None:
                raise self._failure
            self._told_j = max(self._told_j, self._integral.joules_at(self._clock()))
            return self._told_j

    def blind_s(self) -> float:
        """Return for how long nothing was read, in all, seconds."""
        with self._lock:
            return self._integral.blind_s

    def _sample(self) -> None:
        while not self._stop.wait(self.period_s):
            try:
                self._read()
            except MeterError:  # kept for the next call
                return

    def _read(self) -> None:
        """Read the sensor. What fails once fails for good, as what flowed meanwhile is unknown."""
        if not self._sensor.acquire(timeout=ANSWER_S):
            raise MeterError(
                f"{self.name} has not answered for {ANSWER_S:g} s; check its bus and driver, run edgeecc doctor"
            )
        try:
            if self._failure is None:
                self._failure = self._read_once()
        finally:
            self._sensor.release()
        if self._failure is not None:
            raise self._failure

    def _read_once(self) -> Optional[MeterError]:
        """Add a reading; return what failed. A driver's own kind of error becomes one line of ours."""
        try:
            watts = self._source.read_w()
            with self._lock:
                self._integral.add(self._clock(), watts)
        except MeterError as error:
            return error
        except Exception as error:
            return MeterError(f"{self.name} failed: {brief(error)}; run edgeecc doctor")
        return None
