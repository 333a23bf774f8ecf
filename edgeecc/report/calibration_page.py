"""The page of a calibration."""

from __future__ import annotations

from typing import Dict, List, Sequence

from edgeecc.cost.terms import GROUP
from edgeecc.report.figures import Figures, Owned
from edgeecc.report.page import Cell, Column, charts, document, pairs, paragraph, section, table
from edgeecc.report.svg import Chart
from edgeecc.units import format_quantity

_TERMS = (
    Column("layer"), Column("kind"), Column("term"), Column("cost when dense", "n"), Column("from", "n"),
    Column("to", "n"),
)  # fmt: skip
_BOARDS = (Column("board"), Column("samples", "n"), Column("offset"))


def page(figures: Figures, shown: Sequence[Chart]) -> str:
    """Return the HTML text.

    Args:
        figures: the numbers.
        shown: the charts.
    """
    profile = figures.evidence.profile
    body = [section("What was measured", pairs(summary(figures), "the calibration"))]
    if profile.boards:
        body.append(section("Boards", table(_BOARDS, _boards(figures), "boards")))
    rows: List[Sequence[Cell]] = [row for part in figures.parts for row in _terms(part, figures)]
    body.append(section("Charts", charts(shown)))
    body.append(section("What each term costs", table(_TERMS, rows, "terms of the cost model")))
    title = f"Calibration of {profile.network} on {profile.device}"
    return document(
        title, [paragraph(profile.meter, "muted")], body, f"Every figure is of {profile.meter}."
    )


def summary(figures: Figures) -> Dict[str, str]:
    """Return what the calibration is, in words."""
    profile, margin = figures.evidence.profile, figures.evidence.profile.margin()
    error, confidence = profile.heldout, figures.config.confidence
    told = {
        "network": profile.network,
        "device": profile.device,
        "meter": profile.meter,
        "samples": f"{profile.samples['train']} fitted, {profile.samples['heldout']} held out",
        "design": f"{profile.design or 'not told'}, seed {profile.seed}",
        "model": f"{profile.form} by {profile.fit}",
    }
    if error is not None:
        told["held-out error"] = f"mean {error.mean:.2%}, p95 {error.p95:.2%}, max {error.max:.2%}"
        told["mean at most"] = f"{figures.curve[-1].upper:.2%}, for {confidence:.3g} confidence"
    known = "" if margin.confidence is None else f", for {margin.confidence:.3g} confidence"
    told["held off a budget"] = f"{margin.share:.2%}{known}"
    for name, value in figures.predicted_anchors.items():
        told[f"{name} network"] = _anchor(name, value, figures)
    return told


def _anchor(name: str, predicted: float, figures: Figures) -> str:
    """Return what an anchor was measured at, which no fit saw, beside its prediction."""
    profile = figures.evidence.profile
    said = f"{format_quantity(predicted, profile.metric)} predicted"
    measured = profile.anchors.get(name, 0.0)
    if measured <= 0.0:
        return said
    share = predicted / measured - 1.0
    return f"{format_quantity(measured, profile.metric)} measured, {said} ({share:+.1%})"


def _boards(figures: Figures) -> List[Sequence[Cell]]:
    return [
        (
            name or "(no fleet)",
            f"{one['samples']:.0f}",
            f"{one['offset']:.4f} ± {one['standard_error']:.4f}, divided out",
        )
        for name, one in figures.evidence.profile.boards.items()
    ]


def _terms(part: Owned, figures: Figures) -> List[Sequence[Cell]]:
    """Return a row for each term of a part, and one for their sum where there are several."""
    metric = figures.evidence.profile.metric
    kind = "" if part.kind == part.name else part.kind
    rows = [(one.term, one.value, one.interval) for one in part.terms]
    if len(rows) > 1:
        rows.append(("sum", part.value, part.interval))
    name = f"{part.name}, its channels" if part.kind == GROUP else part.name
    return [
        (name, kind, term, *(format_quantity(x, metric) for x in (value, interval.low, interval.high)))
        for term, value, interval in rows
    ]  # fmt: skip
