"""Budgets that hold together: what prices each, the problem that they make, and how a result tells them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, List, Mapping, Sequence, Tuple, TypeVar

from edgeecc.calibration_folder import device_metric
from edgeecc.cost.profile import Profile
from edgeecc.errors import ConfigError
from edgeecc.graph.spec import FloatArray, NetworkSpec
from edgeecc.pricing import DEFAULT_DEVICE, Price, PriceQuery, price
from edgeecc.run_request import PruneRequest
from edgeecc.solvers.base import Limit, Problem
from edgeecc.sources import NetworkSource, Traced
from edgeecc.units import Budget, Metric

logger = logging.getLogger(__name__)

#: How a device or a profile is named.
Name = TypeVar("Name", str, Path)


@dataclass(frozen=True)
class PricedBudget:
    """A budget with the cost model that it is held by.

    Args:
        budget: as the user wrote it.
        price: the cost model of its metric.
        bound: the most that the network may cost, SI.
        dense_cost: what the dense network costs, SI.
    """

    budget: Budget
    price: Price
    bound: float
    dense_cost: float

    @property
    def limit(self) -> Limit:
        """What the solver is to hold: the cost model's error is held off the user's bound."""
        return Limit(self.price.cost, self.bound / (1.0 + self.price.margin))

    def to_json(self, widths: FloatArray) -> Dict[str, object]:
        """Return what a result tells of this budget at widths (G,)."""
        return {
            "metric": self.budget.metric.value,
            "unit": self.budget.metric.unit,
            "text": self.budget.text,
            "value": self.bound,
            "dense": self.dense_cost,
            "cost": self.price.cost.predict(widths),
            "meter": self.price.cost.meter,
            "device": self.price.device,
            "margin": self.price.margin,
            "confidence": self.price.confidence,
        }


def price_budgets(
    request: PruneRequest, traced: Traced, source: NetworkSource
) -> Tuple[PricedBudget, ...]:
    """Return every budget of a request with its cost model, in the request's order.

    Raises: ConfigError as `sources_by_metric`; ArtifactError when a metric has no profile.
    """
    metrics = [budget.metric for budget in request.budgets]
    devices, profiles = sources_by_metric(metrics, request.devices, request.profiles)
    priced = []
    for budget in request.budgets:
        query = PriceQuery(
            budget.metric,
            devices.get(budget.metric),
            profiles.get(budget.metric),
            request.workspace,
            request.pruning.margin,
            request.pruning.confidence,
        )
        found = price(traced, source, query)
        dense = found.cost.predict(traced.spec.vector(traced.spec.dense_widths()))
        priced.append(PricedBudget(budget, found, budget.resolve(dense), dense))
    return tuple(priced)


def sources_by_metric(
    metrics: Sequence[Metric], devices: Sequence[str], profiles: Sequence[Path]
) -> Tuple[Dict[Metric, str], Dict[Metric, Path]]:
    """Match devices and profile files to the metrics of the budgets by what they predict.

    Where no budget needs a device, as for MACs and bytes, devices are left aside with a warning: they are often a
    default of the workplace.

    Raises: ConfigError for two of one metric, and for one that predicts what no budget bounds; ArtifactError for a
        file that is no profile.
    """
    by_device = _by_metric("devices", ((device_metric(device), device) for device in devices))
    by_profile = _by_metric("profiles", ((Profile.load(path).metric, path) for path in profiles))
    _check_bounded("profile", by_profile, metrics)
    if not set(metrics) & set(DEFAULT_DEVICE):
        for device in by_device.values():
            logger.warning("MACs and bytes are counted; %s prices no budget of this run", device)
        return {}, {}
    _check_bounded("device", by_device, metrics)
    return by_device, by_profile


def problem_of(spec: NetworkSpec, priced: Sequence[PricedBudget], seed: int) -> Problem:
    """Return what a solver is to solve."""
    return Problem(spec, tuple(each.limit for each in priced), seed)


def profiles_of(priced: Iterable[PricedBudget]) -> Tuple[Profile, ...]:
    """Return the profiles behind the budgets; counted costs have none."""
    found = (each.price.profile for each in priced)
    return tuple(profile for profile in found if profile is not None)


def identity_of(priced: Sequence[PricedBudget]) -> Dict[str, object]:
    """Return what makes a run another one: every budget; a single one is told as it always was."""
    first, *others = (_identity(each) for each in priced)
    return {**first, **({"further_budgets": others} if others else {})}


def result_of(priced: Sequence[PricedBudget], widths: FloatArray) -> Dict[str, object]:
    """Return what a result tells of the budgets at widths (G,): the first by itself, as ever, and all in a list."""
    told: List[Dict[str, object]] = [each.to_json(widths) for each in priced]
    first = told[0]
    return {
        "budget": {key: first[key] for key in ("value", "unit", "metric", "text")},
        "cost": first["cost"],
        "meter": first["meter"],
        "device": first["device"],
        "margin": first["margin"],
        "budgets": told,
    }


def refitted(
    result: Mapping[str, object], costs: Sequence[Mapping[str, object]]
) -> Dict[str, object]:
    """Return what a result tells of its budgets once measurements, not margins, hold them.

    Args:
        result: as `result_of` made it; one budget may stand alone, as in runs of 0.1.0.
        costs: of each budget: "cost", "dense" and "meter" by its corrected model.
    """
    first = {**costs[0], "margin": 0.0}
    told: Dict[str, object] = {name: first[name] for name in ("cost", "meter", "margin")}
    dense, listed = result.get("dense"), result.get("budgets")
    if isinstance(dense, dict):
        told["dense"] = {**dense, "cost": first["dense"]}
    if isinstance(listed, list):
        told["budgets"] = [
            {**entry, **cost, "margin": 0.0, "confidence": None}
            for entry, cost in zip(listed, costs)
        ]
    return told


def _identity(priced: PricedBudget) -> Dict[str, object]:
    return {
        "budget": priced.budget.text,
        "metric": priced.budget.metric.value,
        "bound": priced.bound,
        "device": priced.price.device,
        "margin": priced.price.margin,
    }


def _by_metric(kind: str, named: Iterable[Tuple[Metric, Name]]) -> Dict[Metric, Name]:
    found: Dict[Metric, Name] = {}
    for metric, name in named:
        if metric in found:
            both = f"{found[metric]} and {name}"
            raise ConfigError(f"{kind} {both} both predict {metric.value}; give one of them")
        found[metric] = name
    return found


def _check_bounded(kind: str, named: Mapping[Metric, Name], metrics: Sequence[Metric]) -> None:
    for metric, name in named.items():
        if metric not in metrics:
            raise ConfigError(
                f"{kind} {name} predicts {metric.value}, which no budget bounds; leave it out, or add a --budget in "
                f"{metric.unit}"
            )
