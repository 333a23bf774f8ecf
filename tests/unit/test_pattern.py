"""The N:M pattern: parsing, where it applies, what it keeps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.config import PruneConfig
from edgeecc.errors import ConfigError
from edgeecc.pattern import Pattern, parse

pytestmark = pytest.mark.device

patterns = st.sampled_from([Pattern(2, 4), Pattern(1, 4)])


def groups(weights: np.ndarray) -> list[np.ndarray]:
    """Return every group by the letter of the rule: one output, one kernel place (none in a matrix), four inputs."""
    places = [range(size) for size in weights.shape[2:]]
    return [
        weights[(output, slice(start, start + 4), *place)]
        for output in range(weights.shape[0])
        for start in range(0, weights.shape[1], 4)
        for place in itertools.product(*places)
    ]


@st.composite
def weights(draw: st.DrawFn) -> np.ndarray:
    shape = (draw(st.integers(1, 3)), 4 * draw(st.integers(1, 3)))
    shape += draw(st.sampled_from([(), (1, 1), (2, 3), (3,)]))
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    values = generator.standard_normal(shape).astype(np.float32)
    return np.round(values) if draw(st.booleans()) else values  # ties and zeros


@given(values=weights(), pattern=patterns)
def test_the_largest_of_every_group_stay(values: np.ndarray, pattern: Pattern) -> None:
    keep = pattern.keep_largest(values)
    assert (keep.shape, keep.dtype) == (values.shape, np.bool_)
    for group, kept in zip(groups(values), groups(keep)):
        first = np.argsort(-np.abs(group), kind="stable")[: pattern.keep]
        assert sorted(np.flatnonzero(kept)) == sorted(first)


@given(values=weights(), pattern=patterns)
def test_it_holds_where_no_group_has_more(values: np.ndarray, pattern: Pattern) -> None:
    assert pattern.holds(values) == all(np.count_nonzero(g) <= pattern.keep for g in groups(values))
    restricted = pattern.restrict(values)
    assert pattern.holds(restricted)
    assert restricted.dtype == values.dtype
    np.testing.assert_array_equal(pattern.restrict(restricted), restricted)
    if pattern.holds(values):
        np.testing.assert_array_equal(restricted, values)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_visible(wrong: float) -> None:
    values = np.ones((1, 4, 1, 1), dtype=np.float32)
    for place in range(4):
        one = values.copy()
        one[0, place] = wrong
        assert not np.isfinite(Pattern(2, 4).restrict(one)).all()
    assert not np.isfinite(Pattern(2, 4).restrict(wrong * values)).any()


@pytest.mark.parametrize(
    ("shape", "grouping", "transposed", "found"),
    [
        ((8, 4, 3, 3), 1, False, True),
        ((10, 512), 1, False, True),
        ((8, 1, 3, 3), 1, False, False),  # reads one channel
        ((8, 3, 7, 7), 1, False, False),
        ((8, 6, 3, 3), 1, False, False),
        ((8, 1, 3, 3), 8, False, False),  # depthwise
        ((8, 4, 3, 3), 2, False, False),  # grouped
        ((8, 4, 3, 3), 1, True, False),
    ],
)
def test_it_applies_to_dense_layers_of_a_multiple_of_four_inputs(
    shape: tuple, grouping: int, transposed: bool, found: bool
) -> None:
    assert Pattern(2, 4).applies(shape, groups=grouping, transposed=transposed) is found


def test_a_pattern_is_written_with_a_colon() -> None:
    assert [parse(text) for text in ("2:4", "1:4")] == [Pattern(2, 4), Pattern(1, 4)]
    assert parse("2:4").text == "2:4"
    for text in ("", "2", "2/4", "2:", "-2:4", "2:4:8", " 2:4", "two:four", "2.0:4"):
        with pytest.raises(ConfigError, match="is not written as N:M; give 2:4"):
            parse(text)
    for text in ("0:4", "3:4", "4:4", "1:2", "4:8", "2:0"):
        with pytest.raises(ConfigError, match=f"{text} is not served by sparse matrix units"):
            parse(text)


def test_channels_have_no_pattern() -> None:
    assert PruneConfig(method="wsp", pattern="2:4").pattern == "2:4"
    with pytest.raises(
        ConfigError, match="a pattern goes with --method wsp or magnitude, not with ecc"
    ):
        PruneConfig(pattern="2:4")
    with pytest.raises(ConfigError, match="not written as N:M"):
        PruneConfig(method="wsp", pattern="half")
