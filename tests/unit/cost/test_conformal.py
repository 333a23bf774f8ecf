"""Split conformal bounds cover what they promise, whatever is predicted and however it errs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.artifacts import load_json, write_json
from edgeecc.cost.conformal import Margin, least_samples, margin_of, upper_ratio
from edgeecc.cost.profile import Profile
from edgeecc.errors import ArtifactError, ConfigError
from tests.unit.cost.test_cost import profile

pytestmark = pytest.mark.device


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("held", [19, 40, 99])
def test_the_next_sample_stays_under_the_bound_as_often_as_promised(
    confidence: float, held: int
) -> None:
    """The oracle is the law of ranks: the last of n + 1 exchangeable ratios has each rank with the same chance."""
    generator = np.random.default_rng(held)
    draws = 4000
    ratios = np.exp(generator.standard_t(3, (draws, held + 1)) * 0.1)  # heavy tails, skewed
    under = np.mean([row[-1] <= upper_ratio(row[:-1], confidence) for row in ratios])
    exact = np.ceil((held + 1) * confidence - 1e-9) / (held + 1)
    assert under == pytest.approx(exact, abs=4.0 * np.sqrt(exact * (1.0 - exact) / draws))
    assert exact >= confidence


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_bounds_rise_with_confidence_or_say_that_samples_are_too_few(
    ratios: list, confidence: float
) -> None:
    if len(ratios) < least_samples(confidence):
        with pytest.raises(ConfigError, match=r"held-out samples cannot tell .* which takes \d+"):
            upper_ratio(ratios, confidence)
        return
    bound = upper_ratio(ratios, confidence)
    assert bound in ratios
    assert np.mean(np.array(ratios) <= bound) >= confidence - 1e-9
    assert upper_ratio(ratios, confidence / 2.0) <= bound


def test_few_samples_tell_less_than_usual_and_say_so() -> None:
    assert margin_of([1.1, 0.9, 1.3]) == Margin(pytest.approx(0.3), 0.75)
    assert margin_of([1.0 + i / 100 for i in range(19)]) == Margin(pytest.approx(0.18), 0.95)
    assert margin_of([0.8] * 30) == Margin(0.0, 0.95)  # a budget is never exceeded on purpose
    with pytest.raises(ConfigError, match="0.99 confidence, which takes 99"):
        margin_of([1.0] * 30, 0.99)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, 95.0])
def test_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ConfigError, match="must lie in"):
        upper_ratio([1.0] * 100, confidence)


def test_a_profile_keeps_the_ratios_that_its_margin_comes_from(tmp_path) -> None:
    path = tmp_path / "profile.json"
    ratios = tuple(0.9 + 0.01 * i for i in range(20))
    profile(ratios=ratios).save(path)
    again = Profile.load(path)
    assert again.ratios == ratios
    assert again.margin(0.9) == Margin(pytest.approx(0.08), 0.9)
    profile().save(path)
    with pytest.raises(ConfigError, match="keeps no held-out samples"):
        Profile.load(path).margin(0.9)


@pytest.mark.parametrize("wrong", ["x", [0.0], [-1.0, 2.0], [None], [True], [float("inf")]])
def test_damaged_ratios_are_one_line(tmp_path, wrong: object) -> None:
    path = tmp_path / "profile.json"
    profile().save(path)
    data = load_json(path)
    if wrong == [float("inf")]:
        path.write_text(path.read_text().replace('"ratios": []', '"ratios": [1e999]'))
    else:
        write_json(path, data.pop("schema"), {**data, "ratios": wrong, "made_by": {}})
    with pytest.raises(ArtifactError) as caught:
        Profile.load(path)
    assert "\n" not in str(caught.value)
