"""The budgets of a result are read back, those of older runs too, and each gets its verdict."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from edgeecc.errors import ArtifactError
from edgeecc.units import Metric
from edgeecc.verdict import Bound, bounds_of, energy_device, judged, overall

pytestmark = pytest.mark.device
ENERGY = {"metric": "energy", "unit": "J", "text": "25mJ", "value": 0.025}
SIZE = {"metric": "size", "unit": "B", "text": "5MB", "value": 5e6, "device": ""}
SOURCE = Path("result.json")


def test_a_result_of_one_budget_is_read_as_it_always_was() -> None:
    older = {"budget": ENERGY, "device": "virtual:tx2"}
    expected = (Bound(Metric.ENERGY, 0.025, "25mJ", "virtual:tx2"),)
    assert bounds_of(older, SOURCE) == expected
    listed = {**older, "budgets": [{**ENERGY, "device": "virtual:tx2"}]}
    assert bounds_of(listed, SOURCE) == expected


def test_a_result_of_several_budgets_lists_them() -> None:
    result = {
        "budget": SIZE,
        "device": "",
        "budgets": [SIZE, {**ENERGY, "device": "virtual:tx2"}],
    }
    bounds = bounds_of(result, SOURCE)
    assert [bound.metric.value for bound in bounds] == ["size", "energy"]
    assert energy_device(bounds) == "virtual:tx2"
    assert energy_device(bounds[:1]) == ""


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({}, "names no budget"),
        ({"budget": "25mJ"}, "names no budget"),
        ({"budget": {**ENERGY, "metric": "weight"}}, "a budget bounds 'weight'"),
        ({"budget": {**ENERGY, "value": "much"}}, "budget"),
        ({"budget": ENERGY, "budgets": [ENERGY, 3]}, "names no budget"),
        ({"budget": ENERGY, "budgets": [ENERGY, {**SIZE, "metric": None}]}, "a budget bounds None"),
    ],
)
def test_a_damaged_result_is_told(result: dict, said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        bounds_of(result, SOURCE)


@pytest.mark.parametrize("found", list(product([None, 0.9, 1.0, 1.1], repeat=3)))
def test_one_missed_budget_is_missed_altogether(found: tuple) -> None:
    metrics = (Metric.ENERGY, Metric.LATENCY, Metric.SIZE)
    verdicts = [
        judged(Bound(metric, 1.0, "1", "somewhere"), None if value is None else (value, "a meter"))
        for metric, value in zip(metrics, found)
    ]
    told = overall(verdicts)
    over = [metric.value for metric, value in zip(metrics, found) if value == 1.1]
    assert told["missed"] == over
    assert told["within_budget"] is (False if over else None if None in found else True)
    assert told["budgets"] == verdicts
    assert str(told["verdict"]).startswith(" and ".join(over) + " missed: " if over else "")
    for verdict, value in zip(verdicts, found):
        assert (verdict["found"], verdict["within"]) == (
            value,
            None if value is None else value <= 1.0,
        )
        assert ("a meter" in str(verdict["verdict"])) == (value is not None)


def test_the_words_on_one_budget_are_as_they_were() -> None:
    told = overall([judged(Bound(Metric.SIZE, 5e6, "5MB", ""), (4e6, "exact count"))])
    assert told["verdict"] == "4 MB by exact count, budget 5 MB"
