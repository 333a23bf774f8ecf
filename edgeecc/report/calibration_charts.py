"""The charts of a calibration."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Sequence, Set, Tuple

from edgeecc.cost.terms import GROUP
from edgeecc.report.draw import ROWS, named_rows, quantity, values_on
from edgeecc.report.evidence import Evidence
from edgeecc.report.figures import Figures, Owned
from edgeecc.report.svg import STANDS_FOR, Chart, axes_of
from edgeecc.units import format_quantity

#: Prefix of a term's name -> its colour and what it multiplies.
_TERMS: Dict[str, Tuple[str, str]] = {
    "": ("slim", "channels in x out"),
    "tiles": ("one", "whole tiles of channels"),
    "width": ("two", "channels of a group"),
    "span": ("three", "part of a group's channels"),
    "fixed": ("muted", "fixed cost"),
}


def calibration_charts(figures: Figures) -> List[Chart]:
    """Return the charts of a calibration; the same figures give the same text."""
    return [scatter(figures.evidence, "predicted"), _samples(figures), _coefficients(figures)]


def scatter(evidence: Evidence, name: str) -> Chart:
    """Return predicted against measured for the samples of a calibration.

    Args:
        evidence: the samples and the profile.
        name: of the chart.
    """
    profile, margin = evidence.profile, evidence.profile.margin()
    known = profile.model.predict_many(evidence.known)
    held = profile.model.predict_many(evidence.held)
    end = 1.05 * max(float(evidence.told.max()), float(evidence.truth.max()))
    with axes_of(name, 330.0) as (axes, drawn):
        axes.fill_between(
            [0.0, end], [0.0, end / (1.0 + margin.share)], [0.0, end], color=STANDS_FOR["dense"], alpha=0.6,
            linewidth=0.0, label=f"margin {margin.share:.1%}",
        )  # fmt: skip
        axes.plot([0.0, end], [0.0, end], color=STANDS_FOR["muted"], linewidth=1.0, label="equal")
        axes.scatter(
            evidence.told,
            known,
            s=9,
            alpha=0.55,
            color=STANDS_FOR["slim"],
            label="fitted",
            linewidths=0.0,
        )
        axes.scatter(
            evidence.truth,
            held,
            s=14,
            marker="s",
            alpha=0.85,
            color=STANDS_FOR["one"],
            label="held out",
            linewidths=0.0,
        )
        axes.set(xlabel="measured", ylabel="predicted", xlim=(0.0, end), ylim=(0.0, end))
        values_on(axes.xaxis, quantity(profile.metric), 4)
        values_on(axes.yaxis, quantity(profile.metric), 5)
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)
        svg = drawn()
    told = "held-out p95" if margin.confidence is None else f"{margin.confidence:.3g} of variants"
    words = (
        "Each dot is a width variant. The band is the margin that prune holds off a budget: "
        f"{told} at or above its lower edge. {profile.meter}."
    )
    return Chart(name, "Predicted against measured", words, _errors(profile.heldout), svg)


def _errors(heldout: Any) -> str:
    if heldout is None:
        return "The profile keeps no held-out error."
    return f"Held-out samples lie {heldout.mean:.2%} from their predictions in the mean, {heldout.max:.2%} at most."


def _samples(figures: Figures) -> Chart:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    curve, confidence = figures.curve, figures.config.confidence
    sizes = [point.samples for point in curve]
    target = figures.evidence.profile.target_error
    with axes_of("samples", 280.0) as (axes, drawn):
        axes.plot(
            sizes,
            [point.error for point in curve],
            marker="o",
            color=STANDS_FOR["slim"],
            label="mean held-out error",
        )
        if all(math.isfinite(point.upper) for point in curve):
            axes.plot(
                sizes, [point.upper for point in curve], "--", marker="v", color=STANDS_FOR["one"],
                label=f"at most ({confidence:.3g} conf.)",
            )  # fmt: skip
        if target:
            axes.axhline(
                target, color=STANDS_FOR["bad"], linestyle=":", label=f"target {target:.3g}"
            )
        axes.set_xscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.tick_params(axis="x", labelrotation=45.0 if len(sizes) > 6 else 0.0)
        axes.xaxis.set_minor_locator(NullLocator())
        if min(point.error for point in curve) > 0.0:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100.0 * value:.4g} %"))
        axes.set(xlabel="fitted samples", ylabel="relative error")
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)
        svg = drawn()
    words = "The same form and fit on the first samples alone, judged by all that were held out."
    alt = f"The error goes from {curve[0].error:.2%} with {sizes[0]} samples to {curve[-1].error:.2%} with {sizes[-1]}."
    return Chart("samples", "Error against number of samples", words, alt, svg)


def _coefficients(figures: Figures) -> Chart:
    metric, parts = figures.evidence.profile.metric, costliest_parts(figures.parts)
    few = f" The {len(parts)} that cost most." if len(parts) < len(figures.parts) else ""
    with axes_of("coefficients", 76.0 + 19.0 * len(parts)) as (axes, drawn):
        named: Set[str] = set()
        for row, part in enumerate(parts):
            _bar(axes, row, part, named)
        rows = list(range(len(parts)))
        ends = [[part.interval.low for part in parts], [part.interval.high for part in parts]]
        axes.hlines(
            rows, *ends, color=STANDS_FOR["ink"], linewidth=1.2, label="interval of the sum"
        )
        for end in ends:
            axes.plot(end, rows, "|", color=STANDS_FOR["ink"], markersize=5.0)
        named_rows(axes, [_row_name(part) for part in parts])
        axes.set_xlim(0.0, None)
        values_on(axes.xaxis, quantity(metric), 4)
        axes.grid(visible=False, axis="y")
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)
        svg = drawn()
    words = (
        f"Intervals of {figures.config.confidence:.3g} confidence are percentiles of fits to resampled samples: they "
        f"tell scatter, not what the form lacks.{few}"
    )
    dearest = sorted(parts, key=lambda part: -part.value)[:3]
    alt = "Most costs " + ", ".join(
        f"{part.name}: {format_quantity(part.value, metric)}" for part in dearest
    )
    return Chart("coefficients", "Cost of each layer when dense", words, alt, svg)


def _bar(axes: Any, row: int, part: Owned, named: Set[str]) -> None:
    left = 0.0
    for one in part.terms:
        kind = "fixed" if part.kind == part.name else one.term.partition(":")[0]
        colour, label = _TERMS.get(kind, _TERMS[""])
        axes.barh(
            row, one.value, left=left, height=0.7, color=STANDS_FOR[colour],
            label=None if label in named else label,
        )  # fmt: skip
        named.add(label)
        left += one.value


def costliest_parts(parts: Sequence[Owned]) -> List[Owned]:
    """Return as many parts as can be drawn, in their order."""
    ranked = sorted(range(len(parts)), key=lambda at: -parts[at].value)
    return [parts[at] for at in sorted(ranked[:ROWS])]


def _row_name(part: Owned) -> str:
    return part.name + (" (group)" if part.kind == GROUP else "")
