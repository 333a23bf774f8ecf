"""Rounds without training: devices that are not the model, what ends rounds, which one is kept, damaged state."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Callable, Dict, List, Optional, Tuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.cost.exact import mac_cost
from edgeecc.cost.forms import Form
from edgeecc.cost.product import ProductModel
from edgeecc.cost.terms import spec_groups
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.fit_config import FitBudgetConfig
from edgeecc.fit_rounds import INFEASIBLE, NO_WIDTHS, SPENT, WITHIN, Held, Rounds
from edgeecc.graph.spec import FloatArray
from edgeecc.units import Metric
from edgeecc.verdict import Bound
from tests.chains import chain_spec

SPEC = chain_spec([96, 64, 80])
DENSE = SPEC.vector(SPEC.dense_widths())
CONFIG = FitBudgetConfig()
#: A network that was pruned by the model below.
PRUNED = np.array([70.0, 40.0, 55.0])
Device = Callable[[FloatArray], float]


def model_of(linear: float = 0.5, fixed: float = 3.0) -> ProductModel:
    terms = Form(linear=True).terms(SPEC)
    slopes = np.linspace(1.0, 2.0, len(terms))
    slopes[-3:] *= linear
    return ProductModel(
        Metric.ENERGY, "model of a", groups=spec_groups(SPEC), terms=terms, coefficients=slopes, constant=fixed
    )  # fmt: skip


def held(value: float, model: Optional[ProductModel] = None) -> Held:
    return Held(Bound(Metric.ENERGY, value, "a budget", "virtual:a"), model or model_of())


def worth_of(seed: int) -> List[FloatArray]:
    rng = np.random.default_rng(seed)
    return [np.sort(rng.exponential(size=int(width)))[::-1] for width in DENSE]


def fitted(
    device: Device, value: float, *, seed: int = 0, noise: float = 0.0, config: FitBudgetConfig = CONFIG,
    others: Tuple[Held, ...] = (),
) -> Tuple[Rounds, str]:  # fmt: skip
    """Run rounds on a device, with readings that are off by a relative standard error."""
    rng = np.random.default_rng(seed)
    rounds = Rounds(SPEC, (held(value), *others), config)
    widths: Optional[FloatArray] = PRUNED
    reason = ""
    while widths is not None:
        true = device(widths)
        reading = true * (1.0 + noise * rng.standard_normal())
        rounds.add(widths, {Metric.ENERGY: (reading, noise * reading, "a meter")}, 0.0)
        widths, reason = rounds.next(worth_of(seed))
    return rounds, reason


@given(
    st.floats(0.8, 1.25), st.floats(0.8, 1.25), st.floats(0.8, 1.25), st.integers(0, 99),
    st.sampled_from([0.0, 0.004]),
)  # fmt: skip
def test_shifted_devices_are_met_in_at_most_four_rounds(
    products: float, linear: float, fixed: float, seed: int, noise: float
) -> None:
    """Every kind of cost is off by its own factor, which no affine correction of the whole can tell."""
    model = model_of()
    coefficients = model.coefficients * products
    coefficients[-3:] *= linear / products
    shifted = ProductModel(
        Metric.ENERGY, "device", groups=model.groups, terms=model.terms, coefficients=coefficients,
        constant=model.constant * fixed,
    )  # fmt: skip
    budget = model.predict(PRUNED) * 1.01
    rounds, reason = fitted(shifted.predict, budget, seed=seed, noise=noise)
    if shifted.predict(DENSE) < budget or shifted.predict(np.ones(3)) > 0.97 * budget:
        return
    assert reason == WITHIN
    assert len(rounds.told) <= 4 + 1
    assert rounds.best() == len(rounds.told) - 1
    best = rounds.told[-1]["budgets"][0]
    assert 0.98 * budget <= best["measured"] <= best["upper"] <= budget
    assert best["upper"] == pytest.approx(best["measured"] * (1.0 + 1.6449 * noise), rel=1e-4)


def test_every_round_says_what_it_was_and_what_it_made_of_the_model() -> None:
    model = model_of()
    budget = model.predict(PRUNED)
    rounds, _ = fitted(lambda w: 1.2 * model.predict(w), budget)
    first, second = rounds.told[:2]
    row = first["budgets"][0]
    assert (first["round"], first["removed"], first["returned"]) == (0, 0, 0)
    assert (row["expected"], row["meter"]) == (None, "a meter")
    assert row["predicted"] == budget
    assert row["measured"] == pytest.approx(1.2 * budget)
    assert row["scale"] * budget + row["offset"] == pytest.approx(1.2 * budget, rel=1e-5)
    assert second["removed"] > 0 == second["returned"]
    corrected = row["scale"] * second["budgets"][0]["predicted"] + row["offset"]
    assert second["budgets"][0]["expected"] == pytest.approx(corrected)
    assert second["holds"] is rounds.holds(1)


def test_a_slack_budget_brings_units_back() -> None:
    model = model_of()
    rounds, reason = fitted(lambda w: 0.9 * model.predict(w), model.predict(PRUNED))
    assert reason == WITHIN
    assert rounds.told[1]["returned"] > 0 == rounds.told[1]["removed"]


def test_what_ends_rounds() -> None:
    model = model_of()
    budget = model.predict(PRUNED)
    rounds, reason = fitted(model.predict, budget * 1.005)
    assert (reason, len(rounds.told)) == (WITHIN, 1)
    rounds, reason = fitted(lambda w: 0.5 * model.predict(w), budget)
    assert reason == NO_WIDTHS  # every unit is back, and it is still far below
    assert rounds.widths(-1).tolist() == DENSE.tolist()
    assert rounds.holds(rounds.best())
    rounds, reason = fitted(lambda w: 9.0 + 0.1 * model.predict(w), budget)
    assert reason == INFEASIBLE
    assert not rounds.holds(rounds.best())
    none = replace(CONFIG, rounds=0)
    rounds, reason = fitted(lambda w: 1.2 * model.predict(w), budget, config=none)
    assert (reason, len(rounds.told), rounds.best()) == (SPENT, 1, 0)


def test_the_best_round_holds_and_costs_most_or_else_exceeds_least() -> None:
    rounds = Rounds(SPEC, (held(10.0),), CONFIG)
    for value in (12.0, 9.0, 9.6, 10.5):
        rounds.add(PRUNED - value, {Metric.ENERGY: (value, 0.01, "a meter")}, 0.0)
    assert rounds.best() == 2
    rounds = Rounds(SPEC, (held(10.0),), CONFIG)
    for value in (12.0, 10.2, 10.5):
        rounds.add(PRUNED - value, {Metric.ENERGY: (value, 0.01, "a meter")}, 0.0)
    assert rounds.best() == 1
    # Within the budget, but not with the confidence.
    rounds = Rounds(SPEC, (held(10.0),), CONFIG)
    rounds.add(PRUNED, {Metric.ENERGY: (9.99, 0.1, "a meter")}, 0.0)
    assert not rounds.holds(0)


def test_several_budgets_hold_together_and_counts_are_not_corrected() -> None:
    model, macs = model_of(), mac_cost(SPEC)
    count = Held(Bound(Metric.MACS, 0.8 * macs.predict(PRUNED), "macs", ""), macs)
    rounds, reason = fitted(
        lambda w: 0.9 * model.predict(w), model.predict(PRUNED), others=(count,)
    )
    assert reason == WITHIN
    energy, counted = rounds.told[-1]["budgets"]
    assert (counted["scale"], counted["offset"], counted["meter"]) == (1.0, 0.0, "exact count")
    assert energy["upper"] <= energy["budget"]
    assert 0.98 * counted["budget"] <= counted["measured"] <= counted["budget"]


def test_rounds_are_taken_back_exactly() -> None:
    model = model_of()
    rounds, _ = fitted(lambda w: 1.2 * model.predict(w), model.predict(PRUNED), noise=0.004)
    again = Rounds(SPEC, (held(model.predict(PRUNED)),), CONFIG)
    again.load(json.loads(json.dumps(rounds.told)), "fit.json")
    assert again.told == rounds.told
    assert again.corrections() == rounds.corrections()


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told[0].pop("widths"),
        lambda told: told[0].update(widths={"g0": 1}),
        lambda told: told[0]["widths"].update(g0=10**9),
        lambda told: told[0]["budgets"][0].update(measured="much"),
        lambda told: told[0]["budgets"][0].update(measured=-1.0),
        lambda told: told[0].update(seconds=None),
        lambda told: told.insert(0, 3),
    ],
)
def test_damaged_rounds_are_refused(change: Callable[[List[Dict]], object]) -> None:
    rounds, _ = fitted(model_of().predict, model_of().predict(PRUNED) * 1.005)
    told = json.loads(json.dumps(rounds.told))
    change(told)
    with pytest.raises(ArtifactError, match=r"fit\.json"):
        Rounds(SPEC, (held(10.0),), CONFIG).load(told, "fit.json")
    with pytest.raises(ArtifactError, match="lists no rounds"):
        Rounds(SPEC, (held(10.0),), CONFIG).load({}, "fit.json")


@pytest.mark.parametrize(
    "values",
    [
        {"rounds": -1}, {"confidence": 0.5}, {"confidence": 1.0}, {"band": 0.0}, {"error": 1.0}, {"max_windows": 1},
        {"batches": 0}, {"checkpoint_s": 0.0}, {"finetune": -0.1},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(values: Dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        FitBudgetConfig(**values)


def test_the_confidence_term_takes_its_share_of_the_band() -> None:
    for confidence in (0.8, 0.95, 0.999):
        config = FitBudgetConfig(confidence=confidence)
        assert config.quantile * config.tolerance <= config.band * config.error * (1.0 + 1e-12)
    assert FitBudgetConfig(confidence=0.51).tolerance == 0.02
