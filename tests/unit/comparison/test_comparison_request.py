"""What may be compared, and how rates and settings are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch  # noqa: F401  # requests are of the host tier

from edgeecc.comparison.rates import RateSearch
from edgeecc.comparison.request import CompareRequest, rates_by_method, settings_by_method
from edgeecc.config import TrainConfig
from edgeecc.errors import ConfigError
from edgeecc.run_request import PruneRequest
from edgeecc.units import parse_budget

BUDGETS = (parse_budget("50%"), parse_budget("20%"))
TEMPLATE = PruneRequest(Path("dense-{seed}.pth"), BUDGETS[0], "digits")
FINE = CompareRequest(TEMPLATE, ("ecc", "uniform"), BUDGETS, (0, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ()}, "at least one method"),
        ({"methods": ("ecc", "ecc")}, "method ecc is given twice"),
        ({"methods": ("ecc", "magic")}, "unknown method 'magic'"),
        ({"budgets": (BUDGETS[0], BUDGETS[0])}, "budget 50% is given twice"),
        ({"budgets": (BUDGETS[0], parse_budget("1MMAC"))}, "bound energy and macs"),
        ({"seeds": (0, 1, 0)}, "seed 0 is given twice"),
        ({"rates": {("eap", ""): 1e-3}}, "eap is set but not compared"),
        ({"rates": {("ecc", "30%"): 1e-3}}, "set at 30%, which is not compared"),
        ({"settings": {"eap": ("a=1",)}}, "eap is set but not compared"),
        ({"rates": {("ecc", ""): 1e-3}, "search": RateSearch((1e-3, 1e-2))}, "leave one out"),
        (
            {
                "template": replace(TEMPLATE, training=TrainConfig(lr=1e-3)),
                "search": RateSearch((1e-3, 1e-2)),
            },
            "leave one out",
        ),
        ({"jobs": 0}, "give at least 1"),
    ],
)
def test_what_makes_no_comparison_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(FINE, **change)


def test_each_seed_may_have_its_weights() -> None:
    assert FINE.weights_of(3) == Path("dense-3.pth")
    one = replace(FINE, template=replace(TEMPLATE, weights=Path("dense.pth")))
    assert one.weights_of(0) == one.weights_of(3) == Path("dense.pth")


def test_rates_and_settings_are_read() -> None:
    usual, own = rates_by_method(["ecc=3e-3", " 1e-2", "ecc@20%=1"])
    assert (usual, own) == (1e-2, {("ecc", ""): 3e-3, ("ecc", "20%"): 1.0})
    asked = replace(FINE, rates=own)
    assert [asked.rate_of("ecc", budget, 1e-2) for budget in BUDGETS] == [3e-3, 1.0]
    assert asked.rate_of("uniform", BUDGETS[0], 1e-2) == 1e-2
    assert settings_by_method(["ecc.ramp=0.6", "a.b=c.d", "ecc.warmup=3"]) == {
        "ecc": ("ramp=0.6", "warmup=3"),
        "a": ("b=c.d",),
    }


@pytest.mark.parametrize("text", ["ecc=fast", "", "ecc=", "@50%=1e-3", "ecc@=1e-3"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write METHOD=RATE"):
        rates_by_method([text])


@pytest.mark.parametrize("text", ["ramp=0.6", "ecc.ramp", ".ramp=1", "ecc=1.5"])
def test_what_is_no_setting_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"write METHOD\.NAME=VALUE"):
        settings_by_method([text])
