"""Offsets of boards: known ones come back, whatever the variants cost, and their errors are what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.cost.offsets import corrected, estimate, offsets, per_board, relative_error
from edgeecc.cost.samples import Row
from edgeecc.errors import ConfigError

pytestmark = pytest.mark.device
FACTORS = st.lists(st.floats(0.5, 2.0), min_size=2, max_size=5)


def row(board: str, variant: int, value: float, error: float | None = 0.02, **more: object) -> Row:
    standard_error = None if error is None else error * value
    fields = {"spread": None, "latency_s": None, "windows": 5, "runs": 3, "converged": True, **more}
    return Row(variant, (variant + 1, 7), value, standard_error, board=board, **fields)


def measured(factors: list, noise: float, seed: int, variants: int = 6, times: int = 2) -> list:
    """Return rows of boards that measured the same variants several times, with their true factors and noise."""
    random = np.random.default_rng(seed)
    costs = random.uniform(0.01, 100.0, variants)
    return [
        row(f"b{board}", variant, cost * factor * math.exp(noise * random.standard_normal()))
        for board, factor in enumerate(factors)
        for variant, cost in enumerate(costs)
        for _ in range(times)
    ]


def truth(factors: list) -> np.ndarray:
    logs = np.log(factors)
    return np.exp(logs - logs.mean())


@given(FACTORS, st.integers(0, 99))
def test_without_noise_factors_come_back_exactly(factors: list, seed: int) -> None:
    found = offsets(measured(factors, 0.0, seed))
    assert [one.factor for one in found.values()] == pytest.approx(truth(factors), rel=1e-9)


@given(FACTORS, st.integers(0, 99))
def test_with_noise_factors_come_back_within_their_error(factors: list, seed: int) -> None:
    found = offsets(measured(factors, 0.02, seed))
    for one, wanted in zip(found.values(), truth(factors)):
        assert abs(math.log(one.factor / wanted)) < 5.0 * one.standard_error
        assert one.standard_error < 0.02


def test_standard_errors_are_those_of_many_repetitions() -> None:
    """The spread of the estimates over fresh noise, which no formula sees, is what each of them tells."""
    found = [offsets(measured([1.1, 0.9, 1.0], 0.02, seed)) for seed in range(300)]
    for name in ("b0", "b1", "b2"):
        spread = np.std([math.log(one[name].factor) for one in found])
        told = np.mean([one[name].standard_error for one in found])
        assert 0.75 < told / spread < 1.4


def test_equal_boards_are_within_noise_of_one() -> None:
    sizes = [
        abs(math.log(one.factor)) / one.standard_error
        for seed in range(50)
        for one in offsets(measured([1.0] * 4, 0.02, seed)).values()
    ]
    assert np.mean(np.array(sizes) < 2.0) > 0.9


@given(FACTORS, st.floats(0.2, 5.0), st.integers(0, 99))
def test_scaling_a_board_scales_its_offset_alone(factors: list, scale: float, seed: int) -> None:
    rows = measured(factors, 0.05, seed)
    scaled = [
        row(one.board, one.number, one.value * (scale if one.board == "b1" else 1.0))
        for one in rows
    ]
    before, after = offsets(rows, "b0"), offsets(scaled, "b0")
    assert after["b1"].factor == pytest.approx(scale * before["b1"].factor, rel=1e-6)
    for name in set(before) - {"b1"}:
        assert after[name].factor == pytest.approx(before[name].factor, rel=1e-6)


@given(FACTORS, st.integers(0, 99))
def test_the_estimate_is_that_of_plain_least_squares(factors: list, seed: int) -> None:
    """Against the textbook's design matrix, one column a board and a variant, where no residual is cut down."""
    rows = measured(factors, 1e-3, seed, times=1)
    logs, count = np.log([one.value for one in rows]), len(factors)
    boards = np.array([int(one.board[1:]) for one in rows])
    variants = np.array([one.number for one in rows])
    errors = np.random.default_rng(seed).uniform(0.01, 0.05, len(rows))
    design = np.hstack([np.eye(count)[boards], np.eye(6)[variants]])
    design = np.vstack([design / errors[:, None], np.r_[np.ones(count), np.zeros(6)] * 1e6])
    wanted = np.linalg.lstsq(design, np.r_[logs / errors, 0.0], rcond=None)[0][:count]
    found, covariance = estimate(logs, errors, boards, variants, count)
    assert found == pytest.approx(wanted, abs=1e-7)
    assert found.sum() == pytest.approx(0.0, abs=1e-9)
    inverse = np.linalg.inv(design.T @ design)[:count, :count]
    assert covariance == pytest.approx(inverse, rel=1e-4, abs=1e-9)


def test_one_disturbed_measurement_moves_little() -> None:
    rows = measured([1.2, 1.0, 0.8], 0.01, 3)
    calm = offsets(rows)
    rows[0] = row("b0", 0, 3.0 * rows[0].value)
    for name, one in offsets(rows).items():
        assert one.factor == pytest.approx(calm[name].factor, rel=0.02)


def test_scatter_beyond_what_measurements_say_widens_the_error() -> None:
    wide, narrow = (offsets(measured([1.0, 1.0], noise, 1))["b0"] for noise in (0.2, 0.02))
    assert wide.standard_error > 4.0 * narrow.standard_error


def test_what_one_board_alone_measured_says_nothing() -> None:
    rows = measured([1.1, 0.9], 0.01, 5)
    assert offsets([*rows, *(row("b0", 50 + n, 9.0) for n in range(9))]) == offsets(rows)


def test_a_reference_has_offset_one_and_no_error() -> None:
    found = offsets(measured([1.5, 1.0, 0.5], 0.0, 1), "b1")
    assert [one.factor for one in found.values()] == pytest.approx([1.5, 1.0, 0.5])
    assert found["b1"].standard_error == pytest.approx(0.0, abs=1e-9)
    assert found["b0"].standard_error > 0.0


def test_rows_without_boards_need_no_offsets() -> None:
    assert offsets([]) == {}
    assert offsets([row("", 1, 2.0)]) == {}
    rows = [row("", 1, 2.0)]
    assert corrected(rows, {}) == rows
    assert offsets([row("b0", 1, 2.0)])["b0"].factor == 1.0


def test_corrections_divide_value_and_errors_and_leave_the_rest() -> None:
    rows = [row("b0", 1, 4.0, spread=1.0, latency_s=3.0), row("b1", 1, 1.0)]
    found = offsets(rows)
    one, other = corrected(rows, found)
    assert one.value == pytest.approx(2.0)
    assert other.value == pytest.approx(2.0)
    assert (one.standard_error, one.spread) == pytest.approx((0.04, 0.5))
    assert one.latency_s == 3.0
    assert rows[0].value == 4.0
    assert per_board(rows, found)["b0"]["samples"] == 1


def test_boards_that_share_nothing_are_refused() -> None:
    rows = [*measured([1.0, 1.1], 0.0, 0), row("b9", 77, 1.0)]
    with pytest.raises(ConfigError, match="b9 and b0 measured no variant in common"):
        offsets(rows)
    with pytest.raises(
        ConfigError, match="reference board b7 has measured nothing; name one of b0"
    ):
        offsets(rows, "b7")
    with pytest.raises(ConfigError, match="not positive"):
        offsets([row("b0", 1, 1.0), row("b1", 1, -1.0)])


def test_errors_come_from_what_is_known() -> None:
    assert relative_error(row("b", 1, 2.0, 0.05)) == pytest.approx(0.05)
    assert relative_error(row("b", 1, 2.0, 0.0)) == 1e-3
    # Of the median of 25 normal readings whose quartiles are 1.349 sigma apart, sigma 0.2 of 2.0.
    told = relative_error(row("b", 1, 2.0, None, spread=1.349 * 0.2, windows=25))
    assert told == pytest.approx(1.2533 * 0.1 / 5.0, rel=1e-3)
    assert relative_error(row("b", 1, 2.0, None)) == 0.02
