"""How long single inferences take by the device: percentiles against their definition, and what agrees."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.errors import MeterError
from edgeecc.timing import LEAST_RUNS, MOST_RUNS, TOLERANCE, DeviceTimes, runs_to_time

pytestmark = pytest.mark.device


@given(st.lists(st.floats(1e-6, 10.0), min_size=1, max_size=60))
def test_the_distribution_is_told(seconds: list) -> None:
    found = DeviceTimes.of(seconds, "clock")
    assert found.median_s == pytest.approx(statistics.median(seconds))
    assert min(seconds) <= found.median_s <= found.p95_s <= found.p99_s <= max(seconds)
    for share, value in ((0.95, found.p95_s), (0.99, found.p99_s)):
        below = sum(one <= value * (1 + 1e-12) for one in seconds)
        assert below >= int(share * (len(seconds) - 1)) + 1
    assert found.to_json(found.median_s)["agrees"] is True


@pytest.mark.parametrize("seconds", [[0.0], [1.0, -1.0]])
def test_a_clock_that_does_not_run_is_told(seconds: list) -> None:
    with pytest.raises(MeterError, match="for an inference; check the driver"):
        DeviceTimes.of(seconds, "CUDA events")


@given(st.floats(1e-6, 1.0), st.floats(0.5, 2.0))
def test_latencies_agree_within_the_tolerance(median: float, ratio: float) -> None:
    times = DeviceTimes(100, median, None, None, "clock")
    if abs(abs(ratio - 1.0) - TOLERANCE) > 1e-9:
        assert times.agree_with(ratio * median) == (abs(ratio - 1.0) < TOLERANCE)


@given(st.floats(1e-7, 100.0))
def test_as_many_are_timed_as_ten_seconds_hold(latency_s: float) -> None:
    runs = runs_to_time(latency_s)
    assert LEAST_RUNS <= runs <= MOST_RUNS
    assert runs * latency_s <= 10.0 or runs == LEAST_RUNS
