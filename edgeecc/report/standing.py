"""Where a run stands: what was asked, what was found by whom, and what can honestly be said of its budgets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

from edgeecc.errors import ArtifactError
from edgeecc.report.fields import Fields
from edgeecc.report.run_files import RunFiles
from edgeecc.units import Metric
from edgeecc.verdict import HALF_WIDTH, Bound

#: What a finding rests on, the strongest first.
COUNTED, MEASURED, SIMULATED, PREDICTED = "counted", "measured", "simulated", "predicted"
#: Metrics that are told by counting, whatever the device.
_COUNTED = (Metric.MACS, Metric.SIZE, Metric.ACCESSES)
#: Metric -> names of its value, its standard error and its meter in what export and verify write.
_NAMES = {
    Metric.ENERGY: ("energy_j", "energy_se_j", "meter"),
    Metric.LATENCY: ("latency_s", "latency_se_s", "latency_meter"),
}


@dataclass(frozen=True)
class Figure:
    """A value with its meter.

    Args:
        value: SI.
        meter: who told it.
        low, high: of its 95 % interval, None where nobody says.
        error: its standard error, None where nobody says.
        iqr: range of the middle half of the windows, None where nobody says.
    """

    value: float
    meter: str
    low: Optional[float] = None
    high: Optional[float] = None
    error: Optional[float] = None
    iqr: Optional[float] = None


@dataclass(frozen=True)
class Finding:
    """What one command found for a budget.

    Args:
        by: the command, or the engine.
        figure: the value; None where no meter here tells it.
        within: whether it holds the budget.
        basis: what it rests on.
    """

    by: str
    figure: Optional[Figure]
    within: Optional[bool]
    basis: str


@dataclass(frozen=True)
class Asked:
    """One budget: what was asked and what was found.

    Args:
        bound: the budget.
        dense: cost of the dense network by the cost model, SI; None where an old run does not tell.
        predicted: cost of the pruned network by the cost model.
        margin: share by which pruning held the model off the budget.
        confidence: with which that is enough; None: nobody can say.
        findings: what decides first.
    """

    bound: Bound
    dense: Optional[float]
    predicted: Figure
    margin: float
    confidence: Optional[float]
    findings: Tuple[Finding, ...]

    @property
    def deciding(self) -> Finding:
        """The finding that the verdict rests on."""
        return self.findings[0]


@dataclass(frozen=True)
class Standing:
    """What can be said of a run.

    Args:
        asked: its budgets.
        within: whether all are held: false where one is missed, None where one is not known.
        basis: the weakest that the verdict rests on.
    """

    asked: Tuple[Asked, ...]
    within: Optional[bool]
    basis: str


def standing_of(files: RunFiles) -> Standing:
    """Return where a run stands.

    Raises: ArtifactError for fields that are wrong.
    """
    listed = files.result.objects("budgets")
    entries = listed if len(listed) == len(files.bounds) else [files.result] * len(files.bounds)
    asked = tuple(
        _asked(files, place, bound, entry)
        for place, (bound, entry) in enumerate(zip(files.bounds, entries))
    )
    within = [each.deciding.within for each in asked]
    known: Optional[bool] = None if None in within else True
    order = (COUNTED, MEASURED, SIMULATED, PREDICTED)
    basis = max((each.deciding.basis for each in asked), key=order.index)
    return Standing(asked, False if False in within else known, basis)


def figure_of(row: Fields, metric: Metric) -> Optional[Figure]:
    """Return the energy or latency of a row as export and verify write them, None where nothing was measured.

    Raises: ArtifactError when it stands there without its meter.
    """
    key, error_key, meter_key = _NAMES[metric]
    if not row.has(key):
        return None
    value, error = row.number(key), row.maybe(error_key)
    iqr = row.maybe("latency_iqr_s") if metric is Metric.LATENCY else None
    low, high = _ends(value, error)
    return Figure(value, row.text(meter_key), low, high, error, iqr)


def engine_figure(manifest: Fields, metric: Metric) -> Optional[Figure]:
    """Return the energy or latency of an engine's manifest, None where its board has no meter."""
    key, _, _ = _NAMES[metric]
    if not manifest.has(key):
        return None
    interval = manifest.under(
        "energy_interval_j" if metric is Metric.ENERGY else "latency_interval_s"
    )
    low, high = interval.maybe("low"), interval.maybe("high")
    return Figure(manifest.number(key), manifest.text("meter"), low, high)


def _asked(files: RunFiles, place: int, bound: Bound, entry: Fields) -> Asked:
    predicted = Figure(entry.number("cost"), entry.text("meter", "the cost model"))
    dense = entry.maybe("dense") if not isinstance(entry.data.get("dense"), dict) else None
    if dense is None and place == 0:
        dense = files.result.under("dense").maybe("cost")
    own, others = _engine_findings(files, bound)
    verified = [] if files.verified is None else [_verified(files.verified, bound)]
    findings = [*own, *verified, *others]
    if not findings:
        findings.append(_unverified(bound, predicted))
    findings.sort(key=lambda each: each.within is None)  # what is known decides
    margin, confidence = entry.maybe("margin") or 0.0, entry.maybe("confidence")
    return Asked(bound, dense, predicted, margin, confidence, tuple(findings))


def _unverified(bound: Bound, predicted: Figure) -> Finding:
    """Return what pruning says alone: counts are what they are, costs of a model are only predicted."""
    counted = bound.metric in (Metric.MACS, Metric.SIZE)
    within = predicted.value <= bound.value if counted else None
    return Finding("prune", predicted, within, COUNTED if counted else PREDICTED)


def _verified(verified: Fields, bound: Bound) -> Finding:
    """Return what verify found for a budget."""
    entry = _entry(verified, bound)
    if entry is None or not entry.has("found"):
        return Finding("verify", None, None, PREDICTED)
    figure = Figure(entry.number("found"), entry.text("meter"))
    if bound.metric in _NAMES:
        told = figure_of(verified, bound.metric)
        figure = figure if told is None or told.meter != figure.meter else told
    return Finding("verify", figure, entry.flag("within"), _basis(bound, figure.meter))


def _engine_findings(files: RunFiles, bound: Bound) -> Tuple[List[Finding], List[Finding]]:
    """Return what engines measured for a budget: those of the device that it was priced on, and the others."""
    own: List[Finding] = []
    others: List[Finding] = []
    for name, manifest in files.engines:
        entry = _entry(manifest, bound)
        if entry is None or not entry.has("found") or bound.metric not in _NAMES:
            continue  # what is counted is the same in every engine
        told = engine_figure(manifest, bound.metric)
        figure = told or Figure(entry.number("found"), entry.text("meter"))
        finding = Finding(f"engine {name}", figure, entry.flag("within"), MEASURED)
        (own if manifest.text("device", "") == bound.device else others).append(finding)
    return own, others


def _entry(fields: Fields, bound: Bound) -> Optional[Fields]:
    """Return what a file says of a budget.

    Raises: ArtifactError when it is about another budget of that metric.
    """
    for entry in fields.objects("budgets"):
        if entry.text("metric") == bound.metric.value:
            if entry.number("value") != bound.value:
                raise ArtifactError(
                    f"{fields.source} judges another {bound.metric.value} budget than result.json; run edgeecc export "
                    "again"
                )
            return entry
    return None


def _basis(bound: Bound, meter: str) -> str:
    if bound.metric in _COUNTED:
        return COUNTED
    return SIMULATED if "(simulated)" in meter else MEASURED


def _ends(value: float, error: Optional[float]) -> Tuple[Optional[float], Optional[float]]:
    if error is None or not math.isfinite(value + HALF_WIDTH * error):
        return None, None
    return max(0.0, value - HALF_WIDTH * error), value + HALF_WIDTH * error


def words_of(standing: Standing) -> Tuple[str, str]:
    """Return the kind of the verdict, good, bad or unsure, and the verdict in words."""
    budgets = "budget" if len(standing.asked) == 1 else "budgets"
    if standing.within is False:
        missed = [one.bound.metric.value for one in standing.asked if one.deciding.within is False]
        return "bad", f"Missed: the {' and the '.join(missed)} budget does not hold"
    if standing.within is None:
        return "unsure", f"Not verified: the {budgets} should hold, as the cost model predicts"
    how = {
        MEASURED: ("good", f"Met: the {budgets} held when measured"),
        SIMULATED: ("good", "Met on the simulated device: no board has measured it"),
        COUNTED: ("good", f"Met: the {budgets} held by count"),
    }
    return how[standing.basis]


def as_json(standing: Standing) -> Dict[str, object]:
    """Return it as JSON; SI."""
    return {
        "within_budget": standing.within,
        "basis": standing.basis,
        "budgets": [
            {
                "metric": one.bound.metric.value,
                "unit": one.bound.metric.unit,
                "text": one.bound.text,
                "value": one.bound.value,
                "device": one.bound.device,
                "dense": one.dense,
                "predicted": vars(one.predicted),
                "margin": one.margin,
                "confidence": one.confidence,
                "findings": [
                    {**vars(each), "figure": None if each.figure is None else vars(each.figure)}
                    for each in one.findings
                ],
            }
            for one in standing.asked
        ],
    }
