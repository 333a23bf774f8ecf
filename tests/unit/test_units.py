from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.errors import UnitError
from edgeecc.units import UNITS, Metric, format_quantity, parse_budget, parse_quantity

pytestmark = pytest.mark.device


@given(st.floats(1e-6, 1e6), st.sampled_from(sorted(UNITS)))
def test_a_written_quantity_reads_back(value: float, unit: str) -> None:
    metric, factor = UNITS[unit]
    found = parse_quantity(f"{value!r} {unit}")
    assert found.metric is metric
    assert found.value == pytest.approx(value * factor, rel=1e-12)


@given(
    st.floats(1e-9, 1e12),
    st.sampled_from(sorted({metric for metric, _ in UNITS.values()}, key=str)),
)
def test_formatting_loses_only_the_digits_it_drops(value: float, metric: Metric) -> None:
    assert parse_quantity(format_quantity(value, metric, digits=15)).value == pytest.approx(
        value, rel=1e-12
    )


def test_accesses_are_shown_and_not_yet_taken() -> None:
    assert format_quantity(10_253_600, Metric.ACCESSES) == "10.25 MRF"
    with pytest.raises(UnitError, match="unknown unit 'MRF'"):
        parse_budget("10MRF")


def test_prefixes_are_told_apart() -> None:
    assert parse_quantity("25mJ").value == pytest.approx(0.025)
    assert parse_quantity(" 0.025 J ").value == pytest.approx(0.025)
    assert parse_quantity("200MMAC").value == 200e6
    with pytest.raises(UnitError, match="unknown unit 'MJ'"):
        parse_quantity("25MJ")


@pytest.mark.parametrize(
    "text", ["", "J", "mJ25", "1e400J", "0J", "-3mJ", "nanJ", "inf J", "1 2 J", "0%", "-5%"]
)
def test_what_is_no_positive_quantity_is_refused(text: str) -> None:
    with pytest.raises(UnitError):
        parse_budget(text)


def test_a_bare_number_is_refused_with_the_units() -> None:
    with pytest.raises(UnitError, match="bare number; add a unit .*mJ"):
        parse_budget("0.025")


def test_a_percentage_is_of_dense() -> None:
    budget = parse_budget("60%", Metric.LATENCY)
    assert (budget.relative, budget.metric) == (True, Metric.LATENCY)
    assert budget.resolve(10.0) == pytest.approx(6.0)
    with pytest.raises(UnitError, match="at most 100%"):
        parse_budget("101%")


def test_an_absolute_budget_does_not_ask_what_dense_costs() -> None:
    assert parse_budget("12ms").resolve(1e9) == pytest.approx(0.012)
