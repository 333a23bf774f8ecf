"""The budgets of a finished run, read back from its result, and the verdict on each: needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Mapping, Optional, Sequence, Tuple

from edgeecc.artifacts import number
from edgeecc.errors import ArtifactError
from edgeecc.units import Metric, format_quantity

#: Standard errors on both sides of a mean that hold it with 95 % confidence.
HALF_WIDTH = 1.96
#: What was found for a budget: SI value and meter; None where nothing here can tell it.
Found = Optional[Tuple[float, str]]


@dataclass(frozen=True)
class Bound:
    """One budget of a run.

    Args:
        metric: what it bounds.
        value: the most allowed, SI.
        text: as the user wrote it.
        device: device that it was priced on; empty for exact counts.
    """

    metric: Metric
    value: float
    text: str
    device: str


def bounds_of(result: Mapping[str, object], source: Path) -> Tuple[Bound, ...]:
    """Return the budgets of a result: one is told as `budget`, as runs of 0.1.0 do, several as `budgets`.

    Args:
        result: what result.json holds.
        source: its path, for messages.
    Raises: ArtifactError when it names none or a damaged one.
    """
    listed = result.get("budgets")
    if isinstance(listed, list) and len(listed) > 1:
        return tuple(_bound(entry, source) for entry in listed)
    entry = result.get("budget")
    if isinstance(entry, dict):
        entry = {**entry, "device": result.get("device", "")}
    return (_bound(entry, source),)


def energy_device(bounds: Sequence[Bound]) -> str:
    """Return the device on which energy is told: that of the energy budget, or else of the first."""
    for bound in bounds:
        if bound.metric is Metric.ENERGY:
            return bound.device
    return bounds[0].device


def judged(bound: Bound, found: Found) -> Dict[str, object]:
    """Return the verdict on one budget, as verify.json lists it."""
    within = None if found is None else found[0] <= bound.value
    return {
        "metric": bound.metric.value,
        "unit": bound.metric.unit,
        "text": bound.text,
        "value": bound.value,
        "found": None if found is None else found[0],
        "meter": None if found is None else found[1],
        "device": bound.device,
        "within": within,
        "verdict": _words(bound, found),
    }


def overall(verdicts: Sequence[Mapping[str, object]]) -> Dict[str, object]:
    """Return the verdict on all budgets: missed if one is missed, not known if one is not known, else met."""
    within = [verdict["within"] for verdict in verdicts]
    missed = [str(verdict["metric"]) for verdict in verdicts if verdict["within"] is False]
    words = "; ".join(str(verdict["verdict"]) for verdict in verdicts)
    if missed and len(verdicts) > 1:
        words = f"{' and '.join(missed)} missed: {words}"
    known = None if None in within else True
    return {
        "within_budget": False if missed else known,
        "verdict": words,
        "missed": missed,
        "budgets": list(verdicts),
    }


def _words(bound: Bound, found: Found) -> str:
    if found is None:
        return f"no meter for {bound.device} on this machine; the model predicts it"
    value, meter = format_quantity(found[0], bound.metric), found[1]
    return f"{value} by {meter}, budget {format_quantity(bound.value, bound.metric)}"


def _bound(entry: object, source: Path) -> Bound:
    if not isinstance(entry, dict):
        raise ArtifactError(f"{source} is damaged: it names no budget; run edgeecc prune again")
    metrics = {metric.value: metric for metric in Metric}
    metric = metrics.get(str(entry.get("metric")))
    if metric is None:
        raise ArtifactError(
            f"{source} is damaged: a budget bounds {entry.get('metric')!r}; run edgeecc prune again"
        )
    value = number(entry.get("value"), "budget", source)
    return Bound(metric, value, str(entry.get("text", "")), str(entry.get("device", "")))
