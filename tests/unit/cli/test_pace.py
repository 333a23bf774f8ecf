"""Rates and times left against clocks of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.cli.pace import SPAN_S, Pace, duration_words, rate_words

pytestmark = pytest.mark.device


@given(
    before=st.integers(0, 10**6),
    rate=st.floats(0.01, 1e4),
    looks=st.integers(2, 300),
    gap_s=st.floats(0.3, 20.0),
)
def test_a_steady_rate_is_found_whatever_was_done_before(
    before: int, rate: float, looks: int, gap_s: float
) -> None:
    """A resumed job begins at `before`, which took none of the time."""
    each = max(1, round(rate * gap_s))
    pace = Pace()
    for look in range(looks):
        pace.look(before + look * each, 5.0 + look * gap_s)
    last_s = 5.0 + (looks - 1) * gap_s
    assert pace.rate_hz() == pytest.approx(each / gap_s)
    total = before + (looks - 1) * each + 10 * each
    assert pace.left_s(total, last_s) == pytest.approx(10 * gap_s)
    assert pace.left_s(total, last_s + gap_s) == pytest.approx(9 * gap_s, abs=1e-6)
    assert pace.left_s(total, last_s + 1e9) == 0.0


def test_one_look_tells_no_rate() -> None:
    pace = Pace()
    assert pace.rate_hz() is None
    pace.look(700, 1.0)
    assert pace.rate_hz() is None
    assert pace.left_s(1000, 2.0) is None
    pace.look(701, 1.01)
    assert pace.rate_hz() is None, "of a hundredth of a second"


def test_the_rate_is_that_of_late() -> None:
    pace = Pace()
    for second in range(100):
        pace.look(second, float(second))
    for second in range(100):
        pace.look(99 + 10 * second, 99.0 + second)
    assert pace.rate_hz() == pytest.approx(10.0)


def test_a_slow_count_has_the_rate_of_its_last_changes() -> None:
    pace = Pace()
    for look in range(5):
        pace.look(look, look * 10.0 * SPAN_S)
    assert pace.rate_hz() == pytest.approx(1.0 / (10.0 * SPAN_S))


def test_a_count_that_stands_still_or_falls() -> None:
    """Candidates of a search are told again and again; samples that a check condemns are taken back."""
    pace = Pace()
    for second in range(10):
        pace.look(5 * second, float(second))
    for second in range(10, 30):
        pace.look(45, float(second))
    assert pace.rate_hz() == pytest.approx(5.0)
    pace.look(20, 30.0)
    assert pace.rate_hz() is None
    pace.look(22, 31.0)
    assert pace.rate_hz() == pytest.approx(2.0)


def test_many_looks_take_no_more_memory() -> None:
    pace = Pace()
    for look in range(100_000):
        pace.look(look, look * 1e-3)
    assert len(pace._looks) < 300
    assert pace.rate_hz() == pytest.approx(1000.0, rel=0.02)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3.0, "0:00"), (0.4, "0:00"), (59.6, "1:00"), (725.0, "12:05"), (3599.4, "59:59"),
        (10929.0, "3:02:09"), (86399.6, "1d 00:00"), (2 * 86400.0 + 11000.0, "2d 03:03"),
    ],
)  # fmt: skip
def test_durations(seconds: float, words: str) -> None:
    assert duration_words(seconds) == words


@pytest.mark.parametrize(
    ("rate_hz", "words"),
    [
        (1234.5, "1,234 steps/s"), (99.96, "100.0 steps/s"), (8.33, "8.3 steps/s"), (1.0, "1.0 steps/s"),
        (0.4, "24.0 steps/min"), (1.0 / 60.0, "1.0 steps/min"), (0.001, "3.6 steps/h"),
    ],
)  # fmt: skip
def test_rates(rate_hz: float, words: str) -> None:
    assert rate_words(rate_hz, "steps") == words
