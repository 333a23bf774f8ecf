"""Stages of fine-tuning: each step belongs to one stage, whose own rate and share it takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.errors import ConfigError
from edgeecc.schedule import Stage, parse_stage, rate_and_share, risen

pytestmark = pytest.mark.device


def test_stages_are_read_as_written() -> None:
    assert parse_stage("100000,constant") == Stage(100_000, decay="constant")
    assert parse_stage("300, lr=3e-5 ,distill=0") == Stage(300, 3e-5, 0.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not begin with its steps"),
        ("ten", "does not begin with its steps"),
        ("-3", "does not begin with its steps"),
        ("0", "trains nothing"),
        ("5,lr=fast", "'fast' in stage"),
        ("5,lr=0", "must be positive"),
        ("5,lr=nan", "must be positive"),
        ("5,distill=1.5", "must lie in 0..1"),
        ("5,warm", "'warm' in stage"),
    ],
)
def test_wrong_stages_are_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_stage(text)


stages = st.lists(
    st.builds(
        Stage,
        st.integers(1, 20),
        st.none() | st.floats(1e-6, 1.0),
        st.none() | st.floats(0.0, 1.0),
        st.sampled_from(["cosine", "constant"]),
    ),
    min_size=1,
    max_size=4,
)


@given(stages=stages, more=st.integers(0, 9), rate=st.floats(1e-6, 1.0), share=st.floats(0.0, 1.0))
def test_every_step_has_its_stage(stages: list, more: int, rate: float, share: float) -> None:
    steps = more + sum(stage.steps for stage in stages)
    expected = [stages[0]] * more + [stage for stage in stages for _ in range(stage.steps)]
    found = [rate_and_share(stages, index, steps, rate, share) for index in range(steps)]
    for index, (stage, (lr, part)) in enumerate(zip(expected, found)):
        top = rate if stage.lr is None else stage.lr
        assert part == (share if stage.distill is None else stage.distill)
        assert 0.0 < lr <= top
        if stage.decay == "constant" or (index and expected[index - 1] is not stage):
            assert lr == top
        elif index:
            assert lr < found[index - 1][0]


@pytest.mark.parametrize(("steps", "rise"), [(40, 0.25), (40, 0.0), (3, 0.1), (1, 1.0), (7, 1.0)])
def test_a_rate_rises_evenly_to_its_value_and_stays(steps: int, rise: float) -> None:
    found = [risen(0.3, index, round(rise * steps)) for index in range(steps)]
    rising = max(1, round(rise * steps))
    assert found[:rising] == pytest.approx([0.3 * (index + 1) / rising for index in range(rising)])
    assert found[rising - 1 :] == [0.3] * (steps - rising + 1)
