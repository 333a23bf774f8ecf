"""Joules from sampled watts: the integral against closed forms, and the thread that reads."""

from __future__ import annotations

import threading
from typing import Callable, List, Union

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.config import MeasureProtocol
from edgeecc.errors import MeterError
from edgeecc.meters import sampled
from edgeecc.meters.measure import measure
from edgeecc.meters.sampled import BLIND_PERIODS, Integral, SampledMeter

pytestmark = pytest.mark.device

trapezoid = getattr(np, "trapezoid" if hasattr(np, "trapezoid") else "trapz")
gaps = st.lists(st.floats(1e-4, 0.05), min_size=1, max_size=60)


def integrate(times: np.ndarray, watts: np.ndarray) -> Integral:
    integral = Integral("sensor", blind_from_s=1.0)
    for seconds, power in zip(times, watts):
        integral.add(float(seconds), float(power))
    return integral


@given(st.floats(0.0, 500.0), gaps, st.floats(-1e3, 1e3))
def test_constant_power_gives_power_times_time_under_jitter(
    power_w: float, steps: List[float], start: float
) -> None:
    times = start + np.concatenate([[0.0], np.cumsum(steps)])
    joules = integrate(times, np.full(len(times), power_w)).joules
    assert joules == pytest.approx(power_w * (times[-1] - times[0]), rel=1e-9, abs=1e-9)


@given(st.floats(0.0, 100.0), st.floats(0.0, 100.0), gaps)
def test_linear_power_is_integrated_exactly(first: float, slope: float, steps: List[float]) -> None:
    times = np.concatenate([[0.0], np.cumsum(steps)])
    closed_form = first * times[-1] + 0.5 * slope * times[-1] ** 2
    assert integrate(times, first + slope * times).joules == pytest.approx(closed_form, rel=1e-9)


@given(st.lists(st.tuples(st.floats(1e-4, 0.05), st.floats(0.0, 300.0)), min_size=2, max_size=60))
def test_any_readings_give_what_numpy_gives(readings: list) -> None:
    steps, watts = np.asarray(readings).T
    times = np.cumsum(steps)
    assert integrate(times, watts).joules == pytest.approx(trapezoid(watts, times), rel=1e-9)


@given(st.lists(st.floats(0.1, 3.0), min_size=1, max_size=30))
def test_blind_stretches_are_counted(steps: List[float]) -> None:
    times = np.concatenate([[0.0], np.cumsum(steps)])
    blind = sum(gap for gap in np.diff(times) if gap > 1.0)
    assert integrate(times, np.ones(len(times))).blind_s == pytest.approx(blind)


@pytest.mark.parametrize("watts", [-0.1, float("nan"), float("inf")])
def test_what_is_no_power_is_refused(watts: float) -> None:
    with pytest.raises(MeterError, match="sensor read .* W, which no load draws; check the sensor"):
        integrate(np.array([0.0]), np.array([watts]))


def test_a_clock_that_runs_back_is_refused() -> None:
    with pytest.raises(MeterError, match="ran back by 0.5 s .* of sensor; measure again"):
        integrate(np.array([1.0, 0.5]), np.array([1.0, 1.0]))


def test_nothing_is_counted_before_the_first_reading() -> None:
    assert Integral("sensor", 1.0).joules_at(5.0) == 0.0


class Source:
    """A sensor whose power is a function of the time, on a clock that moves only when told to."""

    step_w = 0.0

    def __init__(self, power: Callable[[float], float], period_s: float = 0.001) -> None:
        self.name = f"test sensor {id(self)}"
        self.power, self.period_s = power, period_s
        self.now, self.reads = 0.0, 0
        self.failure: Union[Exception, None] = None

    def clock(self) -> float:
        return self.now

    def read_w(self) -> float:
        self.reads += 1
        if self.failure is not None:
            raise self.failure
        return self.power(self.now)

    def threads(self) -> List[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == self.name]


def wait_until(happened: Callable[[], bool]) -> None:
    """Wait until something happened, a few milliseconds mostly, 20 s at most."""
    for _ in range(20_000):
        if happened():
            return
        threading.Event().wait(0.001)
    raise AssertionError("it did not happen")


def test_constant_power_on_a_clock_that_jumps() -> None:
    source = Source(lambda _: 7.5)
    with SampledMeter(source, source.clock) as meter:
        first = meter.read_j()
        for _ in range(50):
            source.now += 0.37
            meter.read_j()
        assert meter.read_j() - first == pytest.approx(7.5 * 50 * 0.37)
        assert meter.clock_s() == source.now


def test_a_ramp_is_exact_wherever_it_is_read() -> None:
    source = Source(lambda seconds: 2.0 * seconds, period_s=1e-6)
    with SampledMeter(source, source.clock) as meter:
        for seconds in (0.1, 0.7, 0.8, 3.0):
            source.now = seconds
            assert meter.read_j() == pytest.approx(seconds**2)


def test_measuring_with_it_gives_joules_per_inference() -> None:
    source = Source(lambda _: 5.0)

    with SampledMeter(source, source.clock) as meter:

        def run(count: int) -> None:
            for _ in range(count):
                source.now += 0.01
                meter.read_j()  # the thread knows no time but its own

        found = measure(run, meter, MeasureProtocol())
    assert found.energy_j == pytest.approx(0.05)
    assert found.meter == source.name


def test_a_fresh_reading_stands_for_the_power_now_and_the_sensor_is_left_alone() -> None:
    source = Source(lambda _: 4.0, period_s=1000.0)
    with SampledMeter(source, source.clock) as meter:
        for seconds in (1.0, 2.0, 4000.0):
            source.now = seconds
            assert meter.read_j() == pytest.approx(4.0 * seconds)
        assert source.reads == 1
        source.now = 5001.0
        assert meter.read_j() == pytest.approx(4.0 * 5001.0)
        assert source.reads == 2


def test_the_count_never_falls_when_power_does() -> None:
    source = Source(lambda seconds: 10.0 if seconds < 5.0 else 0.0, period_s=10.0)
    with SampledMeter(source, source.clock) as meter:
        source.now = 50.0
        high = meter.read_j()
        source.now = 50.001
        assert high == pytest.approx(500.0)
        assert meter.read_j() >= high
        source.now = 100.0
        assert meter.read_j() >= high


def test_stretches_without_a_reading_are_blind() -> None:
    source = Source(lambda _: 1.0, period_s=1.0)
    with SampledMeter(source, source.clock) as meter:
        source.now = BLIND_PERIODS - 1.0
        meter.read_j()
        assert meter.blind_s() == 0.0
        source.now += BLIND_PERIODS + 1.0
        meter.read_j()
        assert meter.blind_s() == BLIND_PERIODS + 1.0


def test_the_thread_reads_on_its_own_and_ends() -> None:
    source = Source(lambda _: 1.0)
    with SampledMeter(source) as meter:
        wait_until(lambda: source.reads > 5)
        assert source.threads()
        assert meter.read_j() > 0.0
    assert not source.threads()


def test_the_thread_ends_when_the_measurement_fails() -> None:
    source = Source(lambda _: 1.0)
    with pytest.raises(ZeroDivisionError), SampledMeter(source):
        raise ZeroDivisionError
    assert not source.threads()


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (MeterError("the rail is gone"), "the rail is gone"),
        (OSError("bus\nhung"), "test sensor .* failed: bus hung; run edgeecc doctor"),
    ],
)
def test_what_fails_in_the_thread_is_told_at_the_next_call_and_stays(
    failure: Exception, told: str
) -> None:
    source = Source(lambda _: 1.0)
    with SampledMeter(source) as meter:
        source.failure = failure
        wait_until(lambda: not source.threads())
        source.failure = None
        for _ in range(2):
            with pytest.raises(MeterError, match=told):
                meter.read_j()


@pytest.mark.parametrize("watts", [-1.0, float("nan")])
def test_no_power_in_the_thread_is_told(watts: float) -> None:
    source = Source(lambda _: watts if source.reads > 3 else 1.0)
    with SampledMeter(source) as meter:
        wait_until(lambda: not source.threads())
        with pytest.raises(MeterError, match="which no load draws"):
            meter.read_j()


def test_a_sensor_that_fails_at_once_fails_in_one_line() -> None:
    source = Source(lambda _: 1.0)
    source.failure = RuntimeError("no\ndriver")
    with pytest.raises(MeterError, match="failed: no driver; run edgeecc doctor"):
        SampledMeter(source).__enter__()


def test_a_clock_that_runs_back_is_told() -> None:
    source = Source(lambda _: 1.0, period_s=1000.0)
    source.now = 5.0
    with SampledMeter(source, source.clock) as meter:
        source.now = 1.0
        with pytest.raises(MeterError, match="the clock ran back by 4 s"):
            meter.read_j()


def test_a_sensor_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampled, "ANSWER_S", 0.02)
    answer, hangs = threading.Event(), threading.Event()

    def power(_: float) -> float:
        if source.reads > 1:
            hangs.set()
            answer.wait(20.0)
        return 1.0

    source = Source(power)
    with SampledMeter(source, source.clock) as meter:
        assert hangs.wait(20.0)
        source.now = 10.0
        with pytest.raises(MeterError, match="has not answered for 0.02 s"):
            meter.read_j()
        answer.set()
        wait_until(lambda: source.reads > 2)
