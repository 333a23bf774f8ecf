"""Devices and profiles find their budgets; limits, shares and margins are each budget's own."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgeecc.budgets import (
    PricedBudget,
    identity_of,
    problem_of,
    profiles_of,
    result_of,
    sources_by_metric,
)
from edgeecc.cost.exact import mac_cost, size_cost
from edgeecc.cost.product import ProductModel
from edgeecc.cost.profile import Profile
from edgeecc.errors import ArtifactError, BudgetInfeasibleError, ConfigError, UnitError
from edgeecc.graph.spec import NetworkSpec
from edgeecc.graph.trace import trace
from edgeecc.pricing import Price, PriceQuery, price
from edgeecc.run_request import PruneRequest
from edgeecc.solvers.feasibility import check_feasible
from edgeecc.solvers.finetune import FixedPattern
from edgeecc.sources import NetworkSource, Traced
from edgeecc.units import Metric, parse_budgets
from tests import zoo

ENERGY, LATENCY, MACS, SIZE = Metric.ENERGY, Metric.LATENCY, Metric.MACS, Metric.SIZE


@pytest.fixture(scope="module")
def spec() -> NetworkSpec:
    return trace(*zoo.build("residual"), network="residual")


def profile_of(spec: NetworkSpec, metric: Metric, device: str) -> Profile:
    """Return a profile that predicts a metric, one unit a multiply-accumulate."""
    model = ProductModel.from_json({**mac_cost(spec).to_json(), "metric": metric.value}, device)
    return Profile(
        network="residual", device=device, fingerprint=spec.fingerprint(), model=model,
        form="bilinear", fit="nnls", meter=device, heldout=None, samples={},
    )  # fmt: skip


@pytest.fixture
def files(spec: NetworkSpec, tmp_path: Path) -> dict:
    """Return profile files by metric."""
    paths = {metric: tmp_path / f"{metric.value}.json" for metric in (ENERGY, LATENCY)}
    for metric, path in paths.items():
        profile_of(spec, metric, f"own-{metric.value}").save(path)
    return paths


def test_sources_go_with_the_budget_of_their_metric(files: dict) -> None:
    both = ("onnxruntime:cpu", "virtual:tx2")
    expected = {ENERGY: "virtual:tx2", LATENCY: "onnxruntime:cpu"}
    for devices in (both, both[::-1]):
        assert sources_by_metric([ENERGY, SIZE, LATENCY], devices, []) == (expected, {})
    for profiles in ([files[ENERGY], files[LATENCY]], [files[LATENCY], files[ENERGY]]):
        found = sources_by_metric([LATENCY, ENERGY], [], profiles)
        assert found == ({}, files)
    mixed = sources_by_metric([LATENCY, ENERGY], ["virtual:tx2"], [files[LATENCY]])
    assert mixed == ({ENERGY: "virtual:tx2"}, {LATENCY: files[LATENCY]})


def test_what_matches_no_budget_is_refused(files: dict, tmp_path: Path) -> None:
    path = files[LATENCY]
    with pytest.raises(ConfigError, match=f"profile {path} predicts latency, which no budget"):
        sources_by_metric([ENERGY, MACS], [], [path])
    with pytest.raises(ConfigError, match=r"predicts latency.*--budget in s"):
        sources_by_metric([MACS], [], [path])
    with pytest.raises(ConfigError, match="device onnxruntime:cpu predicts latency, which no"):
        sources_by_metric([ENERGY], ["onnxruntime:cpu"], [])
    with pytest.raises(ConfigError, match="devices virtual:tx2 and jetson-tx2 both predict energy"):
        sources_by_metric([ENERGY], ["virtual:tx2", "jetson-tx2"], [])
    with pytest.raises(ConfigError, match="profiles .* both predict latency; give one"):
        sources_by_metric([LATENCY], [], [path, path])
    with pytest.raises(ConfigError, match="unknown device 'toaster'"):
        sources_by_metric([ENERGY], ["toaster"], [])
    with pytest.raises(ArtifactError, match=r"cannot read .*gone\.json"):
        sources_by_metric([ENERGY], [], [tmp_path / "gone.json"])


def test_a_device_is_left_aside_where_all_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert sources_by_metric([MACS, SIZE], ["virtual:tx2"], []) == ({}, {})
    assert "virtual:tx2 prices no budget of this run" in caplog.text


def test_a_profile_of_another_metric_than_its_folders_is_refused(
    spec: NetworkSpec, tmp_path: Path
) -> None:
    """A device's folder may hold anything."""
    folder = tmp_path / "calibration" / "virtual-tx2" / "residual"
    profile_of(spec, LATENCY, "virtual:tx2").save(folder / "profile.json")
    traced, source = Traced(spec, onnx.ModelProto()), NetworkSource("residual", (3, 8, 8))
    query = PriceQuery(ENERGY, "virtual:tx2", None, tmp_path)
    with pytest.raises(ConfigError, match=r"budget is in J but the profile .* predicts latency"):
        price(traced, source, query)


def priced(spec: NetworkSpec, texts: list, margins: list) -> tuple:
    """Return budgets of MACs, bytes or joules with margins of their own."""
    dense = spec.vector(spec.dense_widths())
    found = []
    for budget, margin in zip(parse_budgets(texts), margins):
        profile = None
        cost = {MACS: mac_cost, SIZE: size_cost}.get(budget.metric, mac_cost)(spec)
        if budget.metric is ENERGY:
            profile = profile_of(spec, ENERGY, "virtual:tx2")
            cost = profile.model
        told = Price(cost, "" if profile is None else profile.device, margin, profile)
        dense_cost = cost.predict(dense)
        found.append(PricedBudget(budget, told, budget.resolve(dense_cost), dense_cost))
    return tuple(found)


def test_every_limit_holds_its_own_margin_off(spec: NetworkSpec) -> None:
    budgets = priced(spec, ["80%", "50% of size", "70%macs"], [0.25, 0.0, 0.1])
    problem = problem_of(spec, budgets, seed=3)
    dense = spec.vector(spec.dense_widths())
    shares = [limit.bound / limit.cost.predict(dense) for limit in problem.limits]
    assert shares == pytest.approx([0.8 / 1.25, 0.5, 0.7 / 1.1])
    assert problem.seed == 3
    assert [limit.cost.metric for limit in problem.limits] == [ENERGY, SIZE, MACS]
    assert [profile.metric for profile in profiles_of(budgets)] == [ENERGY]


def test_a_result_tells_the_first_budget_as_ever_and_lists_all(spec: NetworkSpec) -> None:
    budgets = priced(spec, ["50%size", "80%"], [0.0, 0.05])
    widths = spec.vector(spec.least_widths())
    told = result_of(budgets, widths)
    one, other = told["budgets"]
    assert told["budget"] == {
        "value": one["value"], "unit": "B", "metric": "size", "text": "50%size",
    }  # fmt: skip
    assert [told[key] for key in ("cost", "meter", "device", "margin")] == [
        one["cost"], "exact count", "", 0.0,
    ]  # fmt: skip
    assert (one["cost"], other["cost"]) == (
        size_cost(spec).predict(widths),
        mac_cost(spec).predict(widths),
    )
    assert (other["unit"], other["device"], other["margin"]) == ("J", "virtual:tx2", 0.05)
    assert set(one) == set(other)


def test_the_identity_of_one_budget_is_as_it_was_and_every_other_changes_it(
    spec: NetworkSpec,
) -> None:
    alone = identity_of(priced(spec, ["80%"], [0.0]))
    assert set(alone) == {"budget", "metric", "bound", "device", "margin"}
    identities = [
        alone,
        identity_of(priced(spec, ["80%", "50%size"], [0.0, 0.0])),
        identity_of(priced(spec, ["80%", "60%size"], [0.0, 0.0])),
        identity_of(priced(spec, ["80%", "50%size"], [0.0, 0.1])),
        identity_of(priced(spec, ["80%", "50%size", "50%macs"], [0.0, 0.0, 0.0])),
    ]
    assert all(a != b for i, a in enumerate(identities) for b in identities[i + 1 :])


def test_the_budget_that_cannot_be_met_is_named(spec: NetworkSpec) -> None:
    budgets = priced(spec, ["80%", "1B", "90%macs"], [0.0, 0.0, 0.0])
    problem = problem_of(spec, budgets, 0)
    with pytest.raises(BudgetInfeasibleError, match=r"^size budget 1 B is below") as caught:
        check_feasible(problem, [each.price.margin for each in budgets])
    least = spec.vector(spec.least_widths())
    assert caught.value.lowest == size_cost(spec).predict(least)


def test_steps_tell_the_share_of_every_bound(spec: NetworkSpec) -> None:
    problem = problem_of(spec, priced(spec, ["80%", "50%size"], [0.1, 0.0]), 0)
    model, _ = zoo.build("residual")
    hooks = FixedPattern(problem, spec.keep_all())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    told = hooks.after_step(model, optimizer, 1, 1)
    assert told["load.energy"] == pytest.approx(1.1 / 0.8)
    assert told["load.size"] == pytest.approx(2.0)
    assert told["cost"] == pytest.approx(
        mac_cost(spec).predict(np.array(spec.vector(spec.dense_widths())))
    )
    widths = spec.vector(spec.least_widths())
    assert max(problem.loads(widths).values()) == problem.load(widths)


def test_a_request_takes_one_or_several() -> None:
    one, other = parse_budgets(["80%", "50%size"])
    single = PruneRequest(weights=Path("w"), budget=one, data="digits", device="virtual:tx2")
    assert (single.budgets, single.devices, single.profiles) == ((one,), ("virtual:tx2",), ())
    several = replace(single, budget=(one, other), device=("a", "b"), profile=(Path("p"),))
    assert (several.budgets, several.devices) == ((one, other), ("a", "b"))
    assert several.profiles == replace(single, profile=Path("p")).profiles == (Path("p"),)
    with pytest.raises(UnitError, match="both bound energy"):
        replace(single, budget=(one, one))
    with pytest.raises(ConfigError, match="needs a budget"):
        replace(single, budget=())
