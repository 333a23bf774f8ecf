"""The measuring protocol on meters whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.config import MeasureProtocol
from edgeecc.errors import ConfigError, MeterError
from edgeecc.meters.base import ClockMeter, measure
from edgeecc.meters.virtual import TX2, VirtualDevice, law_energy_j
from edgeecc.workload import NodeWork

pytestmark = pytest.mark.device


class FakeDevice:
    """Constant power; every run takes a jittered time; the counter ticks with a period."""

    name = "fake"

    def __init__(
        self, power_w: float, run_s: float, *, jitter: float = 0.0, period_s: float = 0.0
    ) -> None:
        self.power_w, self.run_s, self.jitter, self.period_s = power_w, run_s, jitter, period_s
        self.now = 0.0
        self.runs = 0
        self.random = np.random.default_rng(0)

    def run(self, count: int) -> None:
        self.runs += count
        self.now += count * self.run_s * (1.0 + self.jitter * self.random.uniform(-1, 1))

    def clock_s(self) -> float:
        return self.now

    def read_j(self) -> float:
        ticks = (
            self.now if not self.period_s else np.floor(self.now / self.period_s) * self.period_s
        )
        return self.power_w * float(ticks)


@given(st.floats(0.1, 300.0), st.floats(1e-5, 0.5), st.floats(0.0, 0.3))
def test_constant_power_gives_power_times_time(power_w: float, run_s: float, jitter: float) -> None:
    device = FakeDevice(power_w, run_s, jitter=jitter)
    found = measure(device.run, device, MeasureProtocol(tolerance=0.5))
    assert found.energy_j == pytest.approx(power_w * run_s, rel=1.01 * jitter + 1e-9)
    assert found.energy_j / found.latency_s == pytest.approx(power_w, rel=2.1 * jitter + 1e-9)


def test_windows_outlast_the_counters_period() -> None:
    device = FakeDevice(10.0, 0.001, period_s=0.5)
    found = measure(device.run, device, MeasureProtocol(window_s=0.01))
    assert found.runs * 0.001 >= 5.0
    assert found.energy_j == pytest.approx(0.01, rel=0.11)


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
