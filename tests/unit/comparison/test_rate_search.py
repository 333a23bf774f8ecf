"""The search of learning rates: what it may see, and what it chooses."""

from __future__ import annotations

from dataclasses import fields
from typing import Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.comparison.figures import Row
from edgeecc.comparison.rates import (
    RateSearch,
    Trial,
    at_the_edge,
    chosen_rates,
    search_json,
    spread_over,
    trial_of,
)
from edgeecc.errors import ConfigError
from edgeecc.units import parse_budget

pytestmark = pytest.mark.device
BUDGETS = [parse_budget(text) for text in ("60%", "40%", "20%")]


def trial(method: str, rate: float, score: object, budget: str = "50%") -> Trial:
    row = Row(method, budget, 9, "finished", accuracy=1.0 - rate, judged_score=score)  # type: ignore[arg-type]
    return trial_of(row, rate)


def test_the_best_judged_score_decides_and_validation_is_not_even_there() -> None:
    trials = [
        trial("a", 0.1, 0.5),
        trial("a", 0.2, 0.7),
        trial("a", 0.3, 0.7),
        trial("b", 0.1, 0.0),
    ]
    assert chosen_rates(trials) == {"a": {"50%": 0.2}, "b": {"50%": 0.1}}
    mild = [trial("a", 0.1, 0.9, "80%"), trial("a", 0.2, 0.8, "80%")]
    assert chosen_rates([*trials, *mild])["a"] == {"50%": 0.2, "80%": 0.1}
    assert "accuracy" not in {field.name for field in fields(Trial)}


def test_a_method_whose_trials_all_failed_has_no_rate() -> None:
    assert chosen_rates([trial("a", 0.1, None), trial("b", 0.1, 0.4)]) == {"b": {"50%": 0.1}}


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.floats(1e-6, 1e6), min_size=1),
    st.dictionaries(st.sampled_from("uvwxyz"), st.floats(1e-6, 1e6)),
    st.data(),
)
def test_a_budget_takes_the_rate_of_the_nearest_that_has_one(
    searched: Dict[str, float], asked: Dict[str, float], data: st.DataObject
) -> None:
    known = data.draw(st.lists(st.sampled_from(sorted(searched)), min_size=1, unique=True))
    rates = {text: float(place) for place, text in enumerate(known)}
    found = spread_over({"a": rates}, searched, asked)
    assert list(found) == ["a"]
    assert list(found["a"]) == list(asked)
    for text, rate in found["a"].items():
        ratios = [max(searched[one] / asked[text], asked[text] / searched[one]) for one in known]
        assert ratios[known.index(known[int(rate)])] == pytest.approx(min(ratios))


def test_a_rate_at_the_edge_is_told() -> None:
    rates = (1e-3, 3e-3, 1e-2)
    chosen = {"a": {"60%": 1e-3, "20%": 3e-3}, "b": {"60%": 3e-3}, "c": {"20%": 1e-2}}
    assert at_the_edge(rates, chosen) == ["a at 60%", "c at 20%"]
    told = search_json(
        RateSearch(rates), [trial("a", 1e-2, 0.4)], budgets=BUDGETS[1:], seed=3, judged=9
    )
    assert (told["at_the_edge"], told["chosen"]) == (["a at 50%"], {"a": {"50%": 1e-2}})
    assert (told["budgets"], told["seed"]) == (["40%", "20%"], 3)
    assert told["judged_images"] == 9


def test_trials_take_the_middle_budget_and_a_seed_of_their_own() -> None:
    search = RateSearch((1e-3, 1e-2))
    assert [search.budgets_of(BUDGETS[:n])[0].text for n in (1, 2, 3)] == ["60%", "60%", "40%"]
    assert len(search.budgets_of(BUDGETS)) == 1
    two = (BUDGETS[2], BUDGETS[0])
    assert RateSearch((1e-3, 1e-2), two).budgets_of(BUDGETS) == two
    with pytest.raises(ConfigError, match="budgets of the search: 20%, 20%; give each once"):
        RateSearch((1e-3, 1e-2), (BUDGETS[2], BUDGETS[2]))
    assert search.seed_of([0, 4]) == 5
    with pytest.raises(ConfigError, match="seed 4 of the search is compared too"):
        RateSearch((1e-3, 1e-2), seed=4).seed_of([0, 4])


def test_trials_are_judged_on_a_part_of_the_training_images() -> None:
    search = RateSearch((1e-3, 1e-2))
    assert [search.judged_of(images) for images in (4, 600, 10**6)] == [1, 100, 10_000]
    assert RateSearch((1e-3, 1e-2), judged=7).judged_of(600) == 7
    with pytest.raises(ConfigError, match="0 images judge nothing"):
        RateSearch((1e-3, 1e-2), judged=0)


@pytest.mark.parametrize("rates", [(1e-3,), (1e-3, 1e-3), (0.0, 1e-3), (float("inf"), 1.0)])
def test_rates_that_make_no_search_are_refused(rates: tuple) -> None:
    with pytest.raises(ConfigError, match=r"at least two|must be positive"):
        RateSearch(rates)
