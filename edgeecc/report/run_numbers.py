"""The networks of a run side by side, the calibrations behind its costs, and its rounds of fitting."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Dict, List, Mapping, Optional, Tuple

from edgeecc.cost.exact import mac_cost, parameter_count, size_cost
from edgeecc.cost.profile import Profile
from edgeecc.errors import ArtifactError
from edgeecc.graph.spec import Widths
from edgeecc.report.fields import Fields
from edgeecc.report.run_files import RunFiles
from edgeecc.report.standing import Figure, engine_figure, figure_of
from edgeecc.run_profiles import METERED, profile_of
from edgeecc.units import Metric


@dataclass(frozen=True)
class Row:
    """A network of the run.

    Args:
        name: dense, pruned (as prune left it), slim (as it was exported), or an engine.
        scores: name -> value, 0..1, the deciding one first.
        images: validation images that scored it, None where nobody says.
        energy, latency: with their meters, None where nothing was measured.
        params, macs: counts, None where this is another network's row.
        size_b: bytes of its tensors in float32, or of an engine's file.
    """

    name: str
    scores: Mapping[str, float]
    images: Optional[int]
    energy: Optional[Figure]
    latency: Optional[Figure]
    params: Optional[float]
    macs: Optional[float]
    size_b: Optional[float]


@dataclass(frozen=True)
class Calibration:
    """How good the cost model of a budget is.

    Args:
        metric: of the budget.
        profile: the profile that the run keeps.
        margin, confidence: what pruning held off the budget, and with which confidence that is enough.
    """

    metric: Metric
    profile: Profile
    margin: float
    confidence: Optional[float]


def rows_of(files: RunFiles) -> Tuple[Row, ...]:
    """Return the networks of a run: dense, masked and slim where it was exported, dense and pruned where not.

    Raises: ArtifactError for fields that are wrong.
    """
    listed = [] if files.exported is None else files.exported.objects("networks")
    rows = [_exported(row) for row in listed]
    if not rows:
        rows = _pruned(files)
    return (*rows, *(_engine(name, manifest) for name, manifest in files.engines))


def calibrations_of(files: RunFiles) -> Tuple[Calibration, ...]:
    """Return the profiles behind the budgets of a run; counted costs have none.

    Raises: ArtifactError when one is missing or damaged.
    """
    if files.kind == "weights":
        return ()
    listed = files.result.objects("budgets") or [files.result]
    found = []
    for bound, entry in zip(files.bounds, listed):
        if bound.metric in METERED:
            profile = profile_of(files.folder, bound.metric)
            margin = entry.maybe("margin") or 0.0
            found.append(Calibration(bound.metric, profile, margin, entry.maybe("confidence")))
    return tuple(found)


def rounds_of(files: RunFiles) -> List[Dict[str, object]]:
    """Return what every round of export --fit-budget measured, a row for each budget; none where there were none."""
    fit = files.result.under("fit_budget")
    return [
        {
            "round": int(told.number("round")),
            "metric": _metric(row).value,
            "measured": row.positive("measured"),
            "standard_error": row.number("standard_error"),
            "meter": row.text("meter"),
            "budget": row.positive("budget"),
            "accuracy": told.maybe("accuracy"),
            "removed": int(told.number("removed")),
            "returned": int(told.number("returned")),
            "chosen": told.number("round") == fit.number("chosen"),
        }
        for told in fit.objects("rounds")
        for row in told.objects("budgets")
    ]


def as_json(rows: Tuple[Row, ...], calibrations: Tuple[Calibration, ...]) -> Dict[str, object]:
    """Return both as JSON; SI."""
    return {
        "networks": [asdict(row) for row in rows],
        "calibrations": [
            {
                "metric": one.metric.value,
                "meter": one.profile.model.meter,
                "model": one.profile.form,
                "fit": one.profile.fit,
                "samples": dict(one.profile.samples),
                "heldout_error": None if one.profile.heldout is None else asdict(one.profile.heldout),
                "margin": one.margin,
                "confidence": one.confidence,
            }
            for one in calibrations
        ],
    }  # fmt: skip


def _metric(row: Fields) -> Metric:
    known = {metric.value: metric for metric in Metric}
    found = known.get(row.text("metric"))
    if found is None:
        raise ArtifactError(
            f"a round in {row.source} is of {row.text('metric')[:40]!r}; the file is damaged"
        )
    return found


def _exported(row: Fields) -> Row:
    return Row(
        row.text("network"),
        _scores(row),
        int(row.number("images")),
        figure_of(row, Metric.ENERGY),
        figure_of(row, Metric.LATENCY),
        row.number("params"),
        row.number("macs"),
        row.maybe("size_b"),
    )


def _engine(name: str, manifest: Fields) -> Row:
    energy, latency = (engine_figure(manifest, m) for m in (Metric.ENERGY, Metric.LATENCY))
    size = manifest.under("build").maybe("engine_bytes")
    images = int(manifest.number("images"))
    return Row(f"engine {name}", _scores(manifest), images, energy, latency, None, None, size)


def _pruned(files: RunFiles) -> List[Row]:
    """Return what prune and, of single weights, verify tell, and what can be counted."""
    scores = files.result.under("scores")
    counts = {"dense": files.spec.dense_widths(), "pruned": _widths(files)}
    found = [
        Row(name, scores.under(name).all_numbers(), None, None, None, *_counts(files, widths))
        for name, widths in counts.items()
    ]
    if files.verified is not None and files.kind == "weights":
        one = files.verified
        images = int(one.number("images"))
        latency = figure_of(one, Metric.LATENCY)
        counted = _counts(files, counts["pruned"])
        found.append(Row("exported", _scores(one), images, None, latency, *counted))
    return found


def _counts(files: RunFiles, widths: Widths) -> Tuple[float, float, float]:
    spec = files.spec
    vector = spec.vector(widths)
    params = float(parameter_count(spec, widths))
    return params, mac_cost(spec).predict(vector), size_cost(spec).predict(vector)


def _widths(files: RunFiles) -> Widths:
    if files.explained is None:
        return files.spec.dense_widths()
    return {name: int(kept) for name, (kept, _) in files.explained["widths"].items()}


def _scores(row: Fields) -> Dict[str, float]:
    told = row.under("scores").all_numbers()
    return told or {row.text("score", "accuracy"): row.number("accuracy")}
