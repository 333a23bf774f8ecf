"""The measuring protocol on meters whose truth is known."""

from __future__ import annotations

from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.config import MeasureProtocol
from edgeecc.errors import ConfigError, MeterError
from edgeecc.meters.base import ClockMeter
from edgeecc.meters.conditions import Conditions
from edgeecc.meters.measure import (
    PERIODS_PER_WINDOW,
    Patience,
    Window,
    idle_power,
    measure,
    measure_observed,
    resolution_j,
    undisturbed,
)
from edgeecc.meters.virtual import TX2, VirtualDevice, law_energy_j
from edgeecc.workload import NodeWork

pytestmark = pytest.mark.device


class FakeDevice:
    """Constant power; every run takes a jittered time; the counter ticks with a period.

    `hiccups` maps the number of a call of `run` to what its time is multiplied by, `blind` to what went unread of it.
    """

    name = "fake"

    def __init__(
        self, power_w: float, run_s: float, *, jitter: float = 0.0, period_s: float = 0.0, step_w: float = 0.0
    ) -> None:  # fmt: skip
        self.power_w, self.run_s, self.jitter, self.period_s = power_w, run_s, jitter, period_s
        self.step_w = step_w
        self.hiccups: Dict[int, float] = {}
        self.blind: Dict[int, float] = {}
        self.calls = 0
        self.unread = 0.0
        self.now = 0.0
        self.runs = 0
        self.random = np.random.default_rng(0)

    def run(self, count: int) -> None:
        self.runs += count
        self.calls += 1
        took = count * self.run_s * (1.0 + self.jitter * self.random.uniform(-1, 1))
        self.now += took * self.hiccups.get(self.calls, 1.0)
        self.unread += took * self.blind.get(self.calls, 0.0)

    def clock_s(self) -> float:
        return self.now

    def read_j(self) -> float:
        ticks = (
            self.now if not self.period_s else np.floor(self.now / self.period_s) * self.period_s
        )
        return self.power_w * float(ticks)

    def blind_s(self) -> float:
        return self.unread


class FakeSensors:
    """Held back for as long as it is told; a rest may help."""

    def __init__(self, reasons: Sequence[Tuple[str, ...]]) -> None:
        self.left = list(reasons)
        self.rests: List[float] = []

    def conditions(self) -> Conditions:
        return Conditions(
            {"gpu": 1e9}, {"gpu": 60.0}, "MAXN", self.left.pop(0) if self.left else ()
        )


@given(st.floats(0.1, 300.0), st.floats(1e-5, 0.5), st.floats(0.0, 0.3))
def test_constant_power_gives_power_times_time(power_w: float, run_s: float, jitter: float) -> None:
    device = FakeDevice(power_w, run_s, jitter=jitter)
    found = measure(device.run, device, MeasureProtocol(tolerance=0.5))
    assert found.energy_j == pytest.approx(power_w * run_s, rel=1.01 * jitter + 1e-9)
    assert found.energy_j / found.latency_s == pytest.approx(power_w, rel=2.1 * jitter + 1e-9)


def test_windows_outlast_the_counters_period() -> None:
    device = FakeDevice(10.0, 0.001, period_s=0.5)
    found = measure(device.run, device, MeasureProtocol(window_s=0.01))
    assert found.runs * 0.001 >= PERIODS_PER_WINDOW * 0.5 * (1 - 1e-9)
    assert found.energy_j == pytest.approx(0.01, rel=1.0 / PERIODS_PER_WINDOW)


def test_noisy_readings_are_repeated_until_the_error_is_small() -> None:
    calm = measure((device := FakeDevice(5.0, 0.01, jitter=0.001)).run, device, MeasureProtocol())
    wild = measure(
        (device := FakeDevice(5.0, 0.01, jitter=0.09)).run, device, MeasureProtocol(max_windows=100)
    )
    assert calm.windows == MeasureProtocol().min_windows
    assert wild.windows > calm.windows
    assert calm.converged
    assert wild.converged
    assert wild.energy_se_j <= 0.02 * wild.energy_j * 1.001


def test_too_few_windows_are_said_so() -> None:
    device = FakeDevice(5.0, 0.01, jitter=0.9)
    assert not measure(
        device.run, device, MeasureProtocol(max_windows=5, tolerance=0.001)
    ).converged


def test_zero_joules_are_an_error_never_a_result() -> None:
    device = FakeDevice(0.0, 0.01)
    with pytest.raises(MeterError, match="counted 0 J .* use another meter or longer windows"):
        measure(device.run, device, MeasureProtocol())


def test_a_counter_that_runs_backwards_is_an_error() -> None:
    device = FakeDevice(-5.0, 0.01)
    with pytest.raises(MeterError, match="ran backwards"):
        measure(device.run, device, MeasureProtocol())


def test_a_clock_that_stands_still_is_an_error() -> None:
    device = FakeDevice(5.0, 0.0)
    with pytest.raises(MeterError, match="does not move"):
        measure(device.run, device, MeasureProtocol())


def test_a_clock_alone_gives_latency_and_no_energy() -> None:
    found = measure(
        lambda n: sum(range(200 * n)),
        ClockMeter("host"),
        MeasureProtocol(window_s=0.002, tolerance=0.9),
    )
    assert found.energy_j is None
    assert found.energy_se_j is None
    assert found.latency_s > 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"window_s": 0.0},
        {"min_windows": 1},
        {"min_windows": 9, "max_windows": 8},
        {"tolerance": 1.0},
        {"warmup_runs": -1},
    ],
)
def test_protocols_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        MeasureProtocol(**wrong)


CONV = NodeWork("c", "Conv", 1e6, 4e3, 2e5, 1e5, in_channels=16, out_channels=16)


def test_the_virtual_tx2_is_its_law_without_noise() -> None:
    device = VirtualDevice.named("virtual:tx2", noise=False)
    device.load([CONV])
    found = measure(device.run, device, MeasureProtocol())
    by_hand = 2.48e-3 + 34e-12 * 1e6 + 107e-12 * (4e3 + 2e5 + 1e5)
    assert found.energy_j == pytest.approx(by_hand)
    assert "simulated" in found.meter


@pytest.mark.parametrize(("width", "tiled"), [(16, 16), (15, 16), (9, 16), (8, 8), (1, 8)])
def test_widths_off_the_tile_cost_the_next_multiple(width: int, tiled: int) -> None:
    node = NodeWork("c", "Conv", 1000.0 * width, 0.0, 0.0, 0.0, in_channels=4, out_channels=width)
    assert law_energy_j(TX2, [node]) - TX2.fixed_j == pytest.approx(TX2.mac_j * 1000.0 * tiled)


def test_depthwise_convolutions_are_not_tiled() -> None:
    node = NodeWork("d", "Conv", 900.0, 0.0, 0.0, 0.0, in_channels=1, out_channels=1, conv_groups=9)
    assert law_energy_j(TX2, [node]) - TX2.fixed_j == pytest.approx(TX2.mac_j * 900.0)


def test_noise_has_its_spread_and_depends_on_the_seed_alone() -> None:
    device = VirtualDevice.named("virtual:tx2")

    def reading(seed: int) -> float:
        device.load([CONV], (seed,))
        return measure(device.run, device, MeasureProtocol()).energy_j

    first = [reading(seed) for seed in range(200)]
    assert first == [reading(seed) for seed in range(200)]
    truth = law_energy_j(TX2, [CONV])
    assert np.mean(first) == pytest.approx(truth, rel=0.01)
    assert 0.01 < np.std(first) / truth < 0.03


def test_a_virtual_device_without_work_or_name_is_refused() -> None:
    with pytest.raises(MeterError, match="load work first"):
        VirtualDevice.named("virtual:tx2").run(1)
    with pytest.raises(ConfigError, match="known are virtual:tx2"):
        VirtualDevice.named("virtual:nothing")


@given(st.floats(0.01, 0.2), st.floats(0.5, 50.0), st.integers(0, 99))
def test_ticks_of_a_counter_err_as_is_told(period_s: float, power_w: float, seed: int) -> None:
    """Ends of windows anywhere between ticks: the spread of what is counted is the error that is told."""
    ends = np.random.default_rng(seed).uniform(0.0, period_s, (4000, 2)) + np.array(
        [0.0, 50 * period_s]
    )
    counted = np.diff(np.floor(ends / period_s) * period_s, axis=1)[:, 0] * power_w
    device = FakeDevice(power_w, 50 * period_s, period_s=period_s)
    told = resolution_j(device, power_w * 50 * period_s, 50 * period_s, runs=1, windows=1)
    assert told == pytest.approx(
        float((counted - np.diff(ends, axis=1)[:, 0] * power_w).std()), rel=0.05
    )


def test_steps_of_a_sensor_enter_the_error_and_no_window_helps() -> None:
    """76 mW at 2 W is 1.1 %: 76/sqrt(12) mW."""
    device = FakeDevice(2.0, 0.01, step_w=0.076)
    found = measure(device.run, device, MeasureProtocol())
    assert found.energy_se_j == pytest.approx(0.0, abs=1e-9)
    assert found.energy_error_j == pytest.approx(0.01 * 0.076 / 12**0.5)
    assert found.converged
    coarse = FakeDevice(0.5, 0.01, step_w=0.076)
    found = measure(coarse.run, coarse, MeasureProtocol())
    assert not found.converged
    assert found.windows == MeasureProtocol().min_windows, "more would not help"


@pytest.mark.parametrize("factor", [3.0, 0.5])
def test_a_disturbed_window_is_left_out_and_told(factor: float) -> None:
    device = FakeDevice(5.0, 0.01, jitter=0.001)
    device.hiccups = {6: factor}
    found = measure(device.run, device, MeasureProtocol())
    assert found.dropped == 1
    assert found.energy_j == pytest.approx(0.05, rel=2e-3)


def test_many_odd_windows_are_how_the_device_is() -> None:
    windows = [Window(1.0, 1.0)] * 4 + [Window(2.0, 2.0)] * 2
    assert undisturbed(windows) == windows
    assert undisturbed(windows[:5]) == windows[:4]
    clock = [Window(None, window.seconds) for window in windows]
    assert undisturbed(clock[:5]) == clock[:5], "a median needs no help"


def test_windows_in_which_a_device_is_held_back_are_taken_again() -> None:
    device, sensors = FakeDevice(5.0, 0.01), FakeSensors([(), ("thermal",), ("thermal",), ()])
    found = measure(
        device.run, device, MeasureProtocol(), sensors, patience=Patience(2.0, 3), sleep=sensors.rests.append
    )  # fmt: skip
    assert found.dropped == 2
    assert sensors.rests == [2.0, 2.0]
    assert found.conditions is not None
    assert found.conditions.mode == "MAXN"
    assert found.energy_j == pytest.approx(0.05)


def test_a_device_that_stays_held_back_is_an_error() -> None:
    device, sensors = FakeDevice(5.0, 0.01), FakeSensors([("power cap",)] * 99)
    with pytest.raises(MeterError, match=r"held back \(power cap\) in 4 windows in a row"):
        measure(
            device.run, device, MeasureProtocol(), sensors, patience=Patience(2.0, 3), sleep=sensors.rests.append
        )  # fmt: skip
    assert len(sensors.rests) == 4


def test_windows_that_went_unread_are_taken_again() -> None:
    device = FakeDevice(5.0, 0.01)
    device.blind = {5: 0.5, 6: 0.02}
    assert measure(device.run, device, MeasureProtocol()).dropped == 2
    device.blind = dict.fromkeys(range(99), 0.3)
    with pytest.raises(MeterError, match="went unread for 30% of 13 windows in a row"):
        measure(device.run, device, MeasureProtocol())


def test_idle_power_is_told_and_not_subtracted() -> None:
    device = FakeDevice(1.5, 1.0)
    waited: List[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        device.now += seconds

    assert idle_power(device, 4.0, sleep) == pytest.approx(1.5)
    device.period_s = 0.2
    idle_power(device, 4.0, sleep)
    assert waited == [4.0, PERIODS_PER_WINDOW * 0.2]
    assert idle_power(ClockMeter("host"), 4.0, sleep) is None
    assert len(waited) == 2, "a clock needs no waiting for"


class Program:
    """Starts, then infers at its own pace for as long as it is observed; its start draws power too."""

    def __init__(self, power_w: float = 5.0, rate_hz: float = 40.0) -> None:
        self.device = FakeDevice(power_w, 1.0)
        self.rate_hz, self.starts, self.noise_j = rate_hz, 0, 0.0

    def observe(
        self,
        read: Callable[[], Tuple[float, Optional[float], float]],
        windows: int,
        window_s: float,
    ) -> Tuple[List[Tuple[float, Optional[float], float]], float]:
        self.starts += 1
        self.device.now += 7.0
        readings = [read()]
        for _ in range(windows):
            self.device.run(1)
            self.device.now += window_s - 1.0
            seconds, joules, blind = read()
            readings.append(
                (seconds, joules + self.device.random.uniform(0.0, self.noise_j), blind)
            )
        return readings, self.rate_hz


def test_a_program_is_observed_amid_its_inferences_and_not_at_its_start() -> None:
    program = Program()
    found = measure_observed(program.observe, program.device, MeasureProtocol())
    assert found.energy_j == pytest.approx(5.0 / 40.0)
    assert found.latency_s == pytest.approx(1.0 / 40.0)
    assert (found.windows, found.runs, program.starts) == (5, 40, 1)
    assert found.converged


def test_a_program_is_started_again_until_the_error_is_small() -> None:
    program = Program()
    program.noise_j = 0.5
    found = measure_observed(program.observe, program.device, MeasureProtocol(tolerance=1e-6))
    assert found.windows == MeasureProtocol().max_windows
    assert program.starts == 6
    assert not found.converged


def test_a_program_on_a_device_that_is_held_back_or_unread() -> None:
    program, sensors = Program(), FakeSensors([("thermal",), (), ()])
    found = measure_observed(
        program.observe, program.device, MeasureProtocol(), sensors, sleep=sensors.rests.append
    )
    assert (found.dropped, program.starts) == (5, 2)
    assert sensors.rests == [10.0]
    program.device.calls, program.device.blind = 0, {2: 0.5}
    assert measure_observed(program.observe, program.device, MeasureProtocol()).dropped == 1
    program.device.blind = dict.fromkeys(range(999), 0.9)
    with pytest.raises(MeterError, match="went unread for 90% of 2 windows in a row"):
        measure_observed(
            program.observe, program.device, MeasureProtocol(), patience=Patience(0.0, 1)
        )
    held = FakeSensors([("thermal",)] * 99)
    with pytest.raises(MeterError, match="the device is held back"):
        measure_observed(
            program.observe, program.device, MeasureProtocol(), held, patience=Patience(0.0, 1), sleep=held.rests.append
        )  # fmt: skip


def test_windows_that_turn_out_short_are_taken_again_with_more_inferences() -> None:
    """The runs by which a window was sized were slow: a clock that rises, or another's work."""
    device = FakeDevice(5.0, 0.001)
    device.hiccups = dict.fromkeys(range(1, 6), 40.0)
    found = measure(device.run, device, MeasureProtocol(warmup_runs=0))
    assert found.dropped >= 1
    assert found.runs * 0.001 >= 0.5 * MeasureProtocol().window_s
    assert found.energy_j == pytest.approx(0.005)
