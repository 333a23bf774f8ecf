"""The course of a solve: which steps it keeps, that it survives a kill, and that runs keep it."""

from __future__ import annotations

from typing import Dict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.run_request import FINETUNE_ROWS, thinned
from edgeecc.solvers.base import Step
from edgeecc.solvers.course import ROWS, Course


def driven(course: Course, steps: int, first: int = 1) -> Course:
    for step in range(first, steps + 1):
        course.take(step, steps, np.array([step / 3.0, 2.0]), np.array([0.0, float(step)]))
    return course


@given(st.integers(1, 1500))
def test_rows_are_bounded_and_end_with_the_last_step(steps: int) -> None:
    told = driven(Course(["a", "b"]), steps).to_json()
    assert told["groups"] == ["a", "b"]
    kept = told["step"]
    assert (kept[0], kept[-1]) == (1, steps)
    assert kept == sorted(set(kept))
    assert len(kept) == len(told["s"]) == len(told["y"]) <= ROWS + 2
    assert len(kept) >= min(steps, ROWS // 2)
    assert [row[1] for row in told["y"]] == kept


@pytest.mark.parametrize("done", [0, 1, 7, 450])
def test_an_interrupted_course_goes_on(done: int) -> None:
    whole = driven(Course(["a", "b"]), 450).to_json()
    half = Course(["a", "b"])
    for step in range(1, done + 1):
        half.take(step, 450, np.array([step / 3.0, 2.0]), np.array([0.0, float(step)]))
    state: Dict[str, torch.Tensor] = {name: value.clone() for name, value in half.state().items()}
    resumed = Course(["a", "b"])
    resumed.load_state(state)
    assert driven(resumed, 450, done + 1).to_json() == whole


def test_a_checkpoint_of_an_earlier_version_has_none() -> None:
    course = driven(Course(["a", "b"]), 3)
    course.load_state({})
    assert course.to_json()["step"] == [1, 2, 3]


@given(st.integers(0, 3 * FINETUNE_ROWS))
def test_losses_of_fine_tuning_are_bounded_and_end_with_the_last(count: int) -> None:
    history = [Step(at + 1, count, float(at), 1.0) for at in range(count)]
    kept = thinned(history)
    assert len(kept["step"]) == len(kept["loss"]) <= FINETUNE_ROWS + 1
    assert kept["step"][-1:] == ([count] if count else [])
    assert kept["loss"] == [step - 1.0 for step in kept["step"]]
    assert kept["step"] == sorted(set(kept["step"]))
