"""Lines between host and board: what one side writes the other reads, and nothing else passes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.cost.samples import Failure, Row
from edgeecc.errors import ConfigError, MeterError
from edgeecc.fleet.wire import (
    MAX_WHY,
    check_greeting,
    failure_object,
    greeting,
    read_answer,
    read_task,
    row_object,
    task_line,
)
from tests.unit.test_calibrate import small_network

pytestmark = pytest.mark.device
SPEC, _ = small_network()
FIGURES = st.none() | st.floats(0.0, 1e9)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
GOOD = {"number": 1, "widths": [2, 3], "value": 1.0, "standard_error": None, "spread": 0.1, "latency_s": 0.1,
        "windows": 5, "runs": 3, "converged": True, "meter": "m"}  # fmt: skip


@given(st.integers(-2, 2**31), st.integers(1, 24), st.integers(1, 40))
def test_tasks_come_over(number: int, one: int, other: int) -> None:
    line = task_line(number, [one, other]).decode()
    assert read_task(line, SPEC) == (number, {"c1": one, "c2": other})


@given(st.floats(1e-12, 1e12), FIGURES, FIGURES, FIGURES, st.booleans())
def test_rows_come_over_to_the_last_bit(
    value: float, error: float, spread: float, latency: float, settled: bool
) -> None:
    row = Row(7, (2, 3), value, error, spread, latency, 5, 3, settled)
    line = json.dumps(row_object(row, "virtual:tx2 (simulated)")).encode()
    assert read_answer(line, 7, [2, 3]) == (row, "virtual:tx2 (simulated)")


@given(st.text(max_size=40), st.integers(0, 2**31))
def test_failures_come_over_in_one_printable_line(why: str, number: int) -> None:
    line = json.dumps(failure_object(Failure(number, why))).encode()
    found, meter = read_answer(line, number, [2, 3])
    assert isinstance(found, Failure)
    assert (found.number, meter) == (number, "")
    assert found.why
    assert found.why.isprintable()
    if why.isprintable() and why == " ".join(why.split()):
        assert found.why == (why or "no reason was told")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"number": 2, "failed": "no kernel"}, "answered with variant '2', not 1"),
        ({"number": 1, "failed": ""}, "for a reason that it did not tell"),
        ({"number": 1, "failed": None}, "for a reason that it did not tell"),
        ({"number": 1, "failed": "a\nb"}, "for a reason that it did not tell"),
        ({"number": 1, "failed": "x" * (MAX_WHY + 1)}, "for a reason that it did not tell"),
    ],
)
def test_what_a_failure_must_not_be(answer: dict, message: str) -> None:
    with pytest.raises(MeterError, match=message):
        read_answer(json.dumps(answer).encode(), 1, [2, 3])


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_nonsense_is_told_in_one_line(line: bytes) -> None:
    for read in (lambda: read_answer(line, 1, [2, 3]), lambda: check_greeting(line, "d", "f")):
        with pytest.raises(MeterError) as caught:
            read()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300
    with pytest.raises(ConfigError):
        read_task(line.decode(errors="replace"), SPEC)


@given(
    st.sampled_from([key for key in GOOD if key not in ("standard_error", "spread", "latency_s")]),
    JSON,
)
def test_a_row_with_one_odd_field_is_refused(key: str, value: object) -> None:
    line = json.dumps({**GOOD, key: value}).encode()
    try:
        row, meter = read_answer(line, 1, [2, 3])
    except MeterError:
        return
    assert (row.number, row.widths) == (1, (2, 3))
    assert row.value > 0.0
    assert row.windows >= 1 <= row.runs
    assert 0 < len(meter) <= 200


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"number": 2}, "answered with variant '2', not 1"),
        ({"widths": [2, 4]}, "answered with variant"),
        ({"value": 0.0}, "value 0.0, which is not positive"),
        ({"value": None}, "value None"),
        ({"value": float("inf")}, "no JSON object"),
        ({"value": 10**400}, "no JSON object"),
        ({"value": "1"}, "no finite figure"),
        ({"spread": -1.0}, "spread '-1.0', no finite figure"),
        ({"windows": True}, "windows 'True', no count"),
        ({"converged": 1}, "converged '1'"),
        ({"meter": "a\nb"}, "named the meter"),
    ],
)
def test_what_a_row_must_not_be(changes: dict, message: str) -> None:
    with pytest.raises(MeterError, match=message):
        read_answer(json.dumps({**GOOD, **changes}).encode(), 1, [2, 3])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"number": -3, "widths": [1, 1]}, "number '-3' must lie in -2"),
        ({"number": True, "widths": [1, 1]}, "number 'True'"),
        ({"number": 0, "widths": [1.5, 1]}, "must be a list of whole numbers"),
        ({"number": 0, "widths": [0, 1]}, "must be a list of whole numbers"),
        ({"number": 0, "widths": [1]}, "has 2 prunable groups, got 1 widths"),
        ({"number": 0, "widths": [25, 1]}, "width 25 of group c1 is outside 1..24"),
        ({"number": 0}, "is no variant; write"),
    ],
)
def test_what_a_task_must_not_be(task: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_task(json.dumps(task), SPEC)


@pytest.mark.parametrize(
    ("key", "hint"),
    [("edgeecc", "install the same version"), ("device", "name its kind"), ("fingerprint", "copy")],
)
def test_a_board_that_measures_something_else_is_refused(key: str, hint: str) -> None:
    good = greeting("virtual:tx2", SPEC)
    check_greeting(json.dumps(good).encode(), "virtual:tx2", SPEC.fingerprint())
    odd = json.dumps({**good, key: "x"}).encode()
    with pytest.raises(MeterError, match=f"it has {key} 'x', not .*; {hint}"):
        check_greeting(odd, "virtual:tx2", SPEC.fingerprint())
