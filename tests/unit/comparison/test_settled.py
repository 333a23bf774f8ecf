"""What a comparison settles when it begins: its price, and the seed and budgets of its search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import List, Optional

import pytest

from edgeecc.artifacts import write_json
from edgeecc.comparison.budget_names import check_once
from edgeecc.comparison.rates import RateSearch
from edgeecc.comparison.settled import (
    PROFILE_FILE,
    SEARCH_FILE,
    SEARCH_SCHEMA,
    keep_price,
    keep_search,
    priced_as_before,
)
from edgeecc.cost.product import ProductModel
from edgeecc.cost.profile import Profile
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.run_request import PruneRequest
from edgeecc.units import parse_budget

SHIPPED = sorted((Path(__file__).resolve().parents[3] / "calibration").glob("*/*/profile.json"))
RATES = (1e-3, 1e-2)
BUDGETS = tuple(parse_budget(text) for text in ("60%", "40%", "20%"))


@pytest.fixture
def profile() -> Profile:
    return Profile.load(SHIPPED[0])


def template(device: Optional[str] = None) -> PruneRequest:
    return PruneRequest(Path("nothing.pth"), parse_budget("50%"), "digits", device=device)


def test_the_first_price_of_a_comparison_stays(tmp_path: Path, profile: Profile) -> None:
    assert keep_price(None, tmp_path) is None
    path = keep_price(profile, tmp_path)
    assert path == tmp_path / PROFILE_FILE
    first = path.read_bytes()
    assert keep_price(Profile.load(SHIPPED[0]), tmp_path) == path
    assert keep_price(replace(profile, note="made again", seed=profile.seed + 1), tmp_path) == path
    model = profile.model
    dearer = ProductModel(
        model.metric, model.meter, groups=model.groups, terms=model.terms, coefficients=2.0 * model.coefficients,
        constant=model.constant,
    )  # fmt: skip
    for other in (
        replace(profile, model=dearer),
        replace(profile, ratios=(1.5,)),
        replace(profile, device="other"),
    ):
        with pytest.raises(
            ArtifactError, match="predicts otherwise; leave out --profile and --device"
        ):
            keep_price(other, tmp_path)
    assert path.read_bytes() == first


def test_a_comparison_goes_on_with_its_price_where_no_other_is_named(
    tmp_path: Path, profile: Profile
) -> None:
    path = tmp_path / PROFILE_FILE
    one = template()
    assert priced_as_before(one, tmp_path) is one  # it has none yet
    keep_price(profile, tmp_path)
    assert priced_as_before(one, tmp_path).profiles == (path,)
    named = template(profile.device)
    assert priced_as_before(named, tmp_path).profiles == (path,)
    other = replace(one, profile=SHIPPED[0])
    assert priced_as_before(other, tmp_path) is other
    elsewhere = template("jetson-agx-orin:tensorrt:int8")
    assert priced_as_before(elsewhere, tmp_path) is elsewhere
    counted = replace(one, budget=parse_budget("50% of macs"))
    assert priced_as_before(counted, tmp_path) is counted
    path.write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        priced_as_before(one, tmp_path)


def test_a_search_goes_on_with_its_seed_and_budgets(tmp_path: Path) -> None:
    search = RateSearch(RATES)
    first = keep_search(search, BUDGETS[:1], [0, 1], tmp_path)
    assert (first.seed, first.budgets) == (2, BUDGETS[:1])
    # More seeds and budgets do not move it.
    again = keep_search(search, BUDGETS, [0, 1, 3, 4], tmp_path)
    assert (again.seed, again.budgets, again.rates) == (2, BUDGETS[:1], RATES)
    assert keep_search(replace(search, seed=2), BUDGETS, [0], tmp_path) == again
    # Budgets that are named replace those of the folder, for later commands too.
    two = (BUDGETS[0], BUDGETS[2])
    assert keep_search(replace(search, budgets=two), BUDGETS, [0], tmp_path).budgets == two
    assert keep_search(search, BUDGETS, [0], tmp_path).budgets == two


def test_the_seed_of_trials_is_neither_compared_nor_changed(tmp_path: Path) -> None:
    search = RateSearch(RATES)
    keep_search(search, BUDGETS, [0, 1], tmp_path)
    before = (tmp_path / SEARCH_FILE).read_bytes()
    with pytest.raises(
        ConfigError, match="seed 2 chose the rates of this comparison.*leave it out"
    ):
        keep_search(search, BUDGETS, [0, 1, 2], tmp_path)
    with pytest.raises(ArtifactError, match="have seed 2, not 7; leave --search-seed out"):
        keep_search(replace(search, seed=7), BUDGETS, [0, 1], tmp_path)
    assert (tmp_path / SEARCH_FILE).read_bytes() == before


@pytest.mark.parametrize(
    "budgets",
    [None, "50%", [1], [{"text": "50%"}], [{"text": "50%", "metric": "joy"}], [{"text": "x", "metric": "energy"}]],
)  # fmt: skip
def test_a_damaged_search_is_told(tmp_path: Path, budgets: Optional[List[object]]) -> None:
    seed = {} if budgets is None else {"seed": 3}
    write_json(tmp_path / SEARCH_FILE, SEARCH_SCHEMA, {**seed, "budgets": budgets or []})
    with pytest.raises(ArtifactError, match=r"search.json is damaged: .*; remove it, and give"):
        keep_search(RateSearch(RATES), BUDGETS, [0], tmp_path)


def test_no_budget_is_given_twice_however_it_is_written() -> None:
    check_once(BUDGETS)
    check_once([parse_budget("50%"), parse_budget("50% of macs"), parse_budget("50mJ")])
    for one, other in (("50%", "50%"), ("50%", "50 %"), ("50%", "50.0%"), ("25mJ", "0.025J")):
        with pytest.raises(ConfigError, match="is given twice"):
            check_once([parse_budget(one), parse_budget("7%"), parse_budget(other)])
