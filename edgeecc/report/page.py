"""The page of a report: one HTML file with its charts inside, without scripts and without links.

Names come from files that may come from anywhere, so that all text is escaped.
"""

from __future__ import annotations

import base64
from html import escape
from typing import Dict, List, Mapping, Sequence

from edgeecc.cost.terms import GROUP
from edgeecc.report.figures import Figures, Owned
from edgeecc.units import format_quantity

_STYLE = (
    "body{font-family:sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}"
    "th,td{text-align:left;padding:.2em .9em .2em 0;border-bottom:1px solid #ddd;vertical-align:top}"
    "td.n{text-align:right}img{max-width:100%}"
)
#: A page that is opened fetches and runs nothing, whatever is in it.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
#: File -> heading and what the chart says.
_CHARTS = {
    "predicted.png": (
        "Predicted against measured",
        "Each dot is a width variant. The band is the margin that prune holds off a budget.",
    ),
    "samples.png": (
        "Error against number of samples",
        "The same form and fit on the first samples alone, judged by all that were held out.",
    ),
    "coefficients.png": (
        "Cost of each layer when dense",
        "Intervals are percentiles of fits to resampled samples: they tell scatter, not what the form lacks.",
    ),
}


def page(figures: Figures, charts: Mapping[str, bytes]) -> str:
    """Return the HTML text.

    Args:
        figures: the numbers.
        charts: file name -> PNG.
    """
    profile = figures.evidence.profile
    title = f"Calibration of {profile.network} on {profile.device}"
    body = [f"<h1>{escape(title)}</h1>", _pairs(summary(figures))]
    if profile.boards:
        body += ["<h2>Boards</h2>", _table(("board", "samples", "offset"), _boards(figures))]
    for name, (heading, words) in _CHARTS.items():
        image = base64.b64encode(charts[name]).decode()
        source = f"data:image/png;base64,{image}"
        body += [f"<h2>{escape(heading)}</h2>", f"<p>{escape(words)}</p>"]
        body.append(f'<p><img alt="{escape(heading)}" src="{source}"></p>')
    columns = ("layer", "kind", "term", "cost when dense", "from", "to")
    rows = [row for part in figures.parts for row in _terms(part, figures)]
    body.append(_table(columns, rows))
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            *body,
            "</body></html>\n",
        ]
    )


def summary(figures: Figures) -> Dict[str, str]:
    """Return what the calibration is, in words."""
    profile, margin = figures.evidence.profile, figures.evidence.profile.margin()
    error, confidence = profile.heldout, figures.config.confidence
    pairs = {
        "network": profile.network,
        "device": profile.device,
        "meter": profile.meter,
        "samples": f"{profile.samples['train']} fitted, {profile.samples['heldout']} held out",
        "design": f"{profile.design or 'not told'}, seed {profile.seed}",
        "model": f"{profile.form} by {profile.fit}",
    }
    if error is not None:
        pairs["held-out error"] = f"mean {error.mean:.2%}, p95 {error.p95:.2%}, max {error.max:.2%}"
        pairs["mean at most"] = f"{figures.curve[-1].upper:.2%}, for {confidence:.3g} confidence"
    known = "" if margin.confidence is None else f", for {margin.confidence:.3g} confidence"
    pairs["held off a budget"] = f"{margin.share:.2%}{known}"
    for name, value in figures.predicted_anchors.items():
        pairs[f"{name} network"] = _anchor(name, value, figures)
    return pairs


def _anchor(name: str, predicted: float, figures: Figures) -> str:
    """Return what an anchor was measured at, which no fit saw, beside its prediction."""
    profile = figures.evidence.profile
    said = f"{format_quantity(predicted, profile.metric)} predicted"
    measured = profile.anchors.get(name, 0.0)
    if measured <= 0.0:
        return said
    share = predicted / measured - 1.0
    return f"{format_quantity(measured, profile.metric)} measured, {said} ({share:+.1%})"


def _boards(figures: Figures) -> List[Sequence[str]]:
    return [
        (
            name or "(no fleet)",
            f"{one['samples']:.0f}",
            f"{one['offset']:.4f} ± {one['standard_error']:.4f}, divided out",
        )
        for name, one in figures.evidence.profile.boards.items()
    ]


def _terms(part: Owned, figures: Figures) -> List[Sequence[str]]:
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


def _pairs(pairs: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in pairs.items()
    )
    return f"<table>{rows}</table>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
