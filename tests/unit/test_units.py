from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.errors import UnitError
from edgeecc.units import (
    BOUNDED,
    UNITS,
    Metric,
    check_distinct,
    format_quantity,
    parse_budget,
    parse_budgets,
    parse_quantity,
)

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


@given(st.floats(0.5, 100.0), st.sampled_from(BOUNDED), st.sampled_from(BOUNDED))
def test_a_percentage_may_name_its_metric(share: float, metric: Metric, other: Metric) -> None:
    for form in ("%{}", "% {}", " % of {} ", "%of {}"):
        text = f"{share!r}{form.format(metric.value)}"
        budget = parse_budget(text, other)
        assert (budget.metric, budget.relative, budget.text) == (metric, True, text.strip())
        assert budget.value == pytest.approx(share / 100.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("60%joules", "unknown metric 'joules' .* of energy, latency, macs, size"),
        ("60%accesses", "unknown metric 'accesses'"),
        ("60% of", "unknown metric 'of'"),
        ("60%ofmacs", "unknown metric 'ofmacs'"),
        ("120%macs", "at most 100%"),
        ("-5% of size", "positive"),
        ("%macs", "cannot read"),
        ("12ms latency", "cannot read"),
    ],
)
def test_a_share_of_nothing_known_is_refused(text: str, said: str) -> None:
    with pytest.raises(UnitError, match=said):
        parse_budget(text)


def test_several_budgets_keep_their_order() -> None:
    budgets = parse_budgets(["12ms", "60%", "8MB", "50%macs"])
    assert [budget.metric.value for budget in budgets] == ["latency", "energy", "size", "macs"]
    assert parse_budgets(["60%"], Metric.MACS)[0].metric is Metric.MACS


@pytest.mark.parametrize(
    ("texts", "both"),
    [
        (["25mJ", "60%"], "'25mJ' and '60%' both bound energy"),
        (["5MB", "1MMAC", "50% size"], "'5MB' and '50% size' both bound size"),
        (["60%", "60%"], "'60%' and '60%' both bound energy"),
    ],
)
def test_two_budgets_of_one_metric_are_refused_by_name(texts: list, both: str) -> None:
    with pytest.raises(UnitError, match=both):
        parse_budgets(texts)
    one = parse_budget(texts[0])
    with pytest.raises(UnitError, match="both bound"):
        check_distinct((one, one))
