"""The search of learning rates: what it may see, and what it chooses."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Dict, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.comparison.figures import Row
from edgeecc.comparison.rates import (
    RateSearch,
    Trial,
    at_the_edge,
    chosen_rates,
    next_rate,
    scores_of,
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
    trials = [
        trial(name, rate, 0.5, text)
        for name, found in chosen.items()
        for text in found
        for rate in rates
    ]
    assert at_the_edge(trials, chosen) == ["a at 60%", "c at 20%"]
    assert at_the_edge([*trials, trial("c", 1.8e-2, 0.4, "20%")], chosen) == ["a at 60%"]
    told = search_json(
        RateSearch(rates), [trial("a", 1e-2, 0.4)], budgets=BUDGETS[1:], seed=3, judged=9
    )
    assert (told["rates"], told["refine"]) == ([1e-3, 3e-3, 1e-2], 0)
    assert (told["at_the_edge"], told["chosen"]) == (["a at 50%"], {"a": {"50%": 1e-2}})
    assert (told["budgets"], told["seed"]) == (["40%", "20%"], 3)
    assert told["judged_images"] == 9


def test_the_next_rate_is_half_way_to_a_neighbour_or_beyond_the_edge() -> None:
    scores = {1e-3: 0.5, 3e-3: 0.8, 1e-2: 0.7, 3e-2: None}
    assert next_rate(scores) == 5.5e-3
    assert next_rate({**scores, 5.5e-3: 0.81}) == 4.1e-3
    assert next_rate({**scores, 5.5e-3: 0.75}) == 1.7e-3  # the other side, where nothing was tried
    assert next_rate({1e-3: 0.8, 3e-3: 0.5}) == 3.3e-4
    assert next_rate({1e-3: 0.5, 3e-3: 0.8}) == 9e-3
    assert next_rate({1e-3: None, 3e-3: 0.8, 1e-2: None}) == 1.7e-3
    assert next_rate({1e-3: 0.1, 1.1e-3: 0.2}) == 1.2e-3
    assert next_rate({1e-3: 0.1, 1.1e-3: 0.2, 1.2e-3: 0.15}) == 1.15e-3
    assert next_rate({1e-3: 0.1, 1.0001e-3: 0.2, 1.0002e-3: 0.1}) is None
    for hopeless in ({}, {1e-3: 0.5}, {1e-3: None, 1e-2: None}):
        assert next_rate(hopeless) is None
    tried = [
        trial("a", 1e-3, 0.5),
        trial("a", 3e-3, None),
        trial("a", 1e-2, 0.6, "20%"),
        trial("b", 1.0, 0.9),
    ]
    assert scores_of(tried, "a", "50%") == {1e-3: 0.5, 3e-3: None}


@given(
    st.floats(0.0, 1.0),
    st.lists(st.integers(-50, 0), min_size=2, max_size=6, unique=True),
)
def test_refining_closes_in_on_the_best_rate_between_those_of_the_list(
    share: float, tenths: List[int]
) -> None:
    rates = [10.0 ** (power / 10.0) for power in tenths]
    peak = math.log10(min(rates)) + share * math.log10(max(rates) / min(rates))
    scores = {rate: -abs(math.log10(rate) - peak) for rate in rates}
    for _ in range(40):
        rate = next_rate(scores)
        if rate is None:
            break
        assert rate not in scores
        scores[rate] = -abs(math.log10(rate) - peak)
    assert max(scores.values()) > -0.02  # two digits tell rates 5 % apart, three 0.5 %


def test_trials_take_the_middle_budget_and_a_seed_of_their_own() -> None:
    search = RateSearch((1e-3, 1e-2))
    assert [search.budgets_of(BUDGETS[:n])[0].text for n in (1, 2, 3)] == ["60%", "60%", "40%"]
    assert len(search.budgets_of(BUDGETS)) == 1
    two = (BUDGETS[2], BUDGETS[0])
    assert RateSearch((1e-3, 1e-2), two).budgets_of(BUDGETS) == two
    with pytest.raises(ConfigError, match="budget of the search 20% is given twice; leave one out"):
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
    assert (search.each, RateSearch((1e-3, 1e-2), refine=3).each) == (2, 5)
    with pytest.raises(ConfigError, match="-1 trials cannot be added"):
        RateSearch((1e-3, 1e-2), refine=-1)


@pytest.mark.parametrize("rates", [(1e-3,), (1e-3, 1e-3), (0.0, 1e-3), (float("inf"), 1.0)])
def test_rates_that_make_no_search_are_refused(rates: tuple) -> None:
    with pytest.raises(ConfigError, match=r"at least two|must be positive"):
        RateSearch(rates)
