"""The one protocol by which anything is measured.

`measure` alone decides on warm-up, the length of a window, repeats, what a disturbed window is, and how far off the
result may be. Idle power is not subtracted; `idle_power` tells it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Callable, List, Optional, Sequence, Tuple

import numpy as np

from edgeecc.config import MeasureProtocol
from edgeecc.errors import MeterError
from edgeecc.meters.base import IQR_PER_SIGMA, MEDIAN_PENALTY, Measurement, Meter
from edgeecc.meters.conditions import Conditions, Sensors

#: Windows last at least this many periods of the counter: its tick then errs by 2 % at most, 0.8 % on average.
PERIODS_PER_WINDOW = 50
#: Share of a window that may go by without a reading.
BLIND_SHARE = 0.01
#: A window is too short below this share of what it is to last.
SHORT_SHARE = 0.5
#: A window is disturbed when its time is off the median by more than so many robust deviations, and this share of it.
OUTLIER_SIGMAS, OUTLIER_SHARE = 5.0, 0.03
#: Fewer windows tell no outlier.
OUTLIER_WINDOWS = 5
#: Disturbed windows are dropped while they are fewer than one in so many: more is how the device is.
OUTLIER_ONE_IN = 3

#: Alerts that a measurement keeps, the last ones.
MAX_ALERTS = 20

_Sleep = Callable[[float], None]
#: Clock, joules and blind seconds at one moment.
Reading = Tuple[float, Optional[float], float]
#: From what reads, how many windows and their seconds, to the readings at their borders and the inferences a second.
Observe = Callable[[Callable[[], Reading], int, float], Tuple[Sequence[Reading], float]]


@dataclass(frozen=True)
class Patience:
    """How long a device that is held back is waited for.

    Args:
        cool_s: seconds of rest before the window is taken again.
        waits: rests in a row before it is given up.
    """

    cool_s: float = 10.0
    waits: int = 12


@dataclass(frozen=True)
class Window:
    """What one inference took, on average over a window.

    Args:
        joules: None when the meter is only a clock.
        seconds: of one inference.
    """

    joules: Optional[float]
    seconds: float


#: A window, and the share of it in which nothing was read.
_Part = Tuple[Window, float]


def measure(  # each says what is measured, or how
    run: Callable[[int], None], meter: Meter, protocol: MeasureProtocol, sensors: Optional[Sensors] = None, *,
    patience: Patience = Patience(), sleep: _Sleep = time.sleep,
) -> Measurement:  # fmt: skip
    """Measure one inference.

    Warm up; choose how many inferences fill a window; measure windows until the standard error is under the
    tolerance (of the energy, or of the latency when the meter is only a clock) or their number is spent. Windows in
    which the device was held back or the sensor went unread are taken again; where joules are counted, windows whose
    time is an outlier are left out.

    Args:
        run: runs n inferences back to back and returns when they are done.
        meter: what to read.
        protocol: see `MeasureProtocol`.
        sensors: say whether the device is held back; None where nothing tells.
        patience: with a device that is.
        sleep: waits.
    Raises: MeterError when the counter stands still, runs backwards, or the clock does not move; when the device is
        held back, or the sensor goes unread, for longer than the patience lasts.
    """
    if protocol.warmup_runs:
        run(protocol.warmup_runs)
    taker = _Taker(run, meter, _runs_per_window(run, meter, protocol), sensors)
    taker.least_s = SHORT_SHARE * _window_s(meter, protocol)
    windows: List[Window] = []
    while len(windows) < protocol.max_windows:
        windows.append(taker.take(patience, sleep))
        kept = undisturbed(windows)
        if len(kept) >= protocol.min_windows and _error(kept) <= protocol.tolerance:
            break
    return _summary(kept, taker, taker.dropped + len(windows) - len(kept), protocol.tolerance)


def measure_observed(  # each says what is measured, or how
    observe: Observe, meter: Meter, protocol: MeasureProtocol, sensors: Optional[Sensors] = None, *,
    patience: Patience = Patience(), sleep: _Sleep = time.sleep,
) -> Measurement:  # fmt: skip
    """Measure one inference of a program that runs by itself, amid many that follow each other.

    As `measure`; but its windows are cut by time, not by inferences: what one takes is the power in a window over the
    inferences a second. They are observed in rounds of `min_windows`, each a run of the program.

    Args:
        observe: see `Observe`.
        meter, protocol, sensors, patience, sleep: see `measure`.
    Raises: MeterError as `measure`; whatever `observe` raises.
    """
    taker = _Taker(lambda count: None, meter, 1, sensors)
    window_s = _window_s(meter, protocol)
    windows: List[Window] = []
    while len(windows) < protocol.max_windows:
        windows += taker.take_round(observe, protocol.min_windows, window_s, patience, sleep)
        kept = undisturbed(windows)
        if len(kept) >= protocol.min_windows and _error(kept) <= protocol.tolerance:
            break
    taker.runs = max(1, round(window_s / float(np.median([window.seconds for window in windows]))))
    return _summary(kept, taker, taker.dropped + len(windows) - len(kept), protocol.tolerance)


def idle_power(meter: Meter, seconds: float = 5.0, sleep: _Sleep = time.sleep) -> Optional[float]:
    """Return the watts of a device that nothing was asked of, None when the meter is only a clock.

    Raises: MeterError as `measure`.
    """
    if meter.read_j() is None:
        return None
    taker = _Taker(
        lambda count: sleep(max(seconds, PERIODS_PER_WINDOW * meter.period_s)), meter, 1, None
    )
    window = taker.take(Patience(), sleep)
    return None if window.joules is None else window.joules / window.seconds


def undisturbed(windows: Sequence[Window]) -> List[Window]:
    """Return the windows that count: where joules are counted, without those whose time is an outlier."""
    if len(windows) < OUTLIER_WINDOWS or windows[0].joules is None:
        return list(windows)
    seconds = np.array([window.seconds for window in windows])
    off = np.abs(seconds - np.median(seconds))
    sigma = _iqr(seconds) / IQR_PER_SIGMA
    is_off = (off > OUTLIER_SIGMAS * sigma) & (off > OUTLIER_SHARE * np.median(seconds))
    if OUTLIER_ONE_IN * int(is_off.sum()) >= len(windows):
        return list(windows)
    return [window for window, out in zip(windows, is_off) if not out]


class _Taker:
    """Takes windows that the sensor saw whole and in which the device was not held back.

    Args:
        run, meter: see `measure`.
        runs: inferences of a window.
        sensors: see `measure`.
    """

    def __init__(
        self, run: Callable[[int], None], meter: Meter, runs: int, sensors: Optional[Sensors]
    ) -> None:
        self._run, self.meter, self.runs, self._sensors = run, meter, runs, sensors
        self.conditions: Optional[Conditions] = None
        self.dropped = 0
        #: A shorter window is taken again with more inferences: the first ones were slow, or something else was.
        self.least_s = 0.0

    def take(self, patience: Patience, sleep: _Sleep) -> Window:
        """Return the next window that counts."""
        return self._that_count(lambda: [self._long_enough()], patience, sleep)[0]

    def take_round(
        self, observe: Observe, count: int, window_s: float, patience: Patience, sleep: _Sleep
    ) -> List[Window]:
        """Return the windows of one run of a program that runs by itself, those that count."""

        def one_run() -> List[_Part]:
            readings, rate_hz = observe(self._read, count, window_s)
            return [self._between(*pair, rate_hz) for pair in zip(readings, readings[1:])]

        return self._that_count(one_run, patience, sleep)

    def _that_count(
        self, take: Callable[[], List[_Part]], patience: Patience, sleep: _Sleep
    ) -> List[Window]:
        for _ in range(patience.waits + 1):
            before = self._held_back()
            parts = take()
            reasons = sorted({*before, *self._held_back()})
            seen = [] if reasons else [window for window, blind in parts if blind <= BLIND_SHARE]
            self.dropped += len(parts) - len(seen)
            if seen:
                return seen
            if reasons:
                sleep(patience.cool_s)
        raise self._given_up(reasons, max(blind for _, blind in parts), patience)

    def _long_enough(self) -> _Part:
        while True:
            first = self._read()
            self._run(self.runs)
            last = self.meter.clock_s(), self.meter.read_j(), self.meter.blind_s()
            seconds = last[0] - first[0]
            if not 0.0 < seconds < self.least_s:
                return _checked(self.meter, first, last, self.runs)
            self.dropped += 1
            self.runs = math.ceil(self.runs * min(10.0, 2.0 * self.least_s / seconds))

    def _given_up(self, reasons: Sequence[str], blind: float, patience: Patience) -> MeterError:
        if reasons:
            return MeterError(
                f"the device is held back ({', '.join(reasons)}) in {patience.waits + 1} windows in a row, each after "
                f"{patience.cool_s:.3g} s of rest; cool it, fix its clocks, or give it more power, and go on"
            )
        return MeterError(
            f"{self.meter.name} went unread for {blind:.0%} of {patience.waits + 1} windows in a row: this machine is "
            "too busy to read it; stop other work and go on"
        )

    def _read(self) -> Reading:
        joules, unseen_s = self.meter.read_j(), self.meter.blind_s()
        return self.meter.clock_s(), joules, unseen_s

    def _between(self, first: Reading, last: Reading, rate_hz: float) -> _Part:
        seconds, runs = last[0] - first[0], (last[0] - first[0]) * rate_hz
        window, blind = _checked(self.meter, first, last, runs)
        return Window(window.joules, seconds / runs), blind

    def _held_back(self) -> Tuple[str, ...]:
        if self._sensors is None:
            return ()
        now = self._sensors.conditions()
        before = () if self.conditions is None else self.conditions.alerts
        self.conditions = replace(now, alerts=(*before, *now.alerts)[-MAX_ALERTS:])
        return now.held_back


def _window_s(meter: Meter, protocol: MeasureProtocol) -> float:
    """Return how long a window is to last."""
    return max(protocol.window_s, PERIODS_PER_WINDOW * meter.period_s)


def _runs_per_window(run: Callable[[int], None], meter: Meter, protocol: MeasureProtocol) -> int:
    """Return how many inferences last `window_s` and enough counter periods."""
    target = _window_s(meter, protocol)
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


def _checked(meter: Meter, first: Reading, last: Reading, runs: float) -> _Part:
    """Return what one inference took between two readings, and the share of it in which nothing was read."""
    (start, first_j, unseen_s), (end, last_j, unseen_end_s) = first, last
    seconds, unseen_s = end - start, unseen_end_s - unseen_s
    if seconds <= 0.0:
        raise MeterError(
            f"the clock of {meter.name} ran backwards or stood still over {runs:.6g} inferences"
        )
    if first_j is None or last_j is None:
        return Window(None, seconds / runs), 0.0
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
    return Window(joules / runs, seconds / runs), unseen_s / seconds


def _error(windows: Sequence[Window]) -> float:
    """Return the relative standard error of the mean energy or, robustly, of the median latency."""
    joules = _joules(windows)
    if joules is not None:
        return float(joules.std(ddof=1) / math.sqrt(len(joules)) / joules.mean())
    seconds = np.array([window.seconds for window in windows])
    sigma = _iqr(seconds) / IQR_PER_SIGMA
    return MEDIAN_PENALTY * sigma / math.sqrt(len(seconds)) / float(np.median(seconds))


def resolution_j(meter: Meter, joules: float, seconds: float, *, runs: int, windows: int) -> float:
    """Return the standard error that a meter adds to the energy of one inference, joules (ours).

    The ends of a window fall anywhere between two ticks of a counter, which is a triangle of half a period's energy
    each way, and other in each window; the steps of a sensor round all its readings of a steady power the same way.

    Args:
        meter: its period and its step.
        joules, seconds: of one inference.
        runs: inferences of a window.
        windows: how many there are.
    """
    tick = joules / seconds * meter.period_s / math.sqrt(6.0) / runs / math.sqrt(windows)
    step = meter.step_w / math.sqrt(12.0) * seconds
    return math.hypot(tick, step)


def _summary(
    windows: Sequence[Window], taker: _Taker, dropped: int, tolerance: float
) -> Measurement:
    joules = _joules(windows)
    seconds = np.array([window.seconds for window in windows])
    error, resolution = _error(windows), None
    if joules is not None:
        mean = float(joules.mean())
        resolution = resolution_j(
            taker.meter, mean, float(seconds.mean()), runs=taker.runs, windows=len(windows)
        )
        error = math.hypot(error, resolution / mean)
    return Measurement(
        energy_j=None if joules is None else float(joules.mean()),
        energy_median_j=None if joules is None else float(np.median(joules)),
        energy_se_j=None if joules is None else float(joules.std(ddof=1) / math.sqrt(len(joules))),
        energy_resolution_j=resolution,
        energy_iqr_j=None if joules is None else _iqr(joules),
        latency_s=float(np.median(seconds)),
        latency_iqr_s=_iqr(seconds),
        windows=len(windows),
        dropped=dropped,
        runs=taker.runs,
        converged=error <= tolerance,
        meter=taker.meter.name,
        conditions=taker.conditions,
    )


def _joules(windows: Sequence[Window]) -> Optional[np.typing.NDArray[np.float64]]:
    found = [window.joules for window in windows if window.joules is not None]
    return np.array(found) if found else None


def _iqr(values: np.typing.NDArray[np.float64]) -> float:
    return float(np.subtract(*np.percentile(values, [75, 25])))
