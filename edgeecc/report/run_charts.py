"""The charts of a run."""

from __future__ import annotations

from typing import Callable, List, Mapping, Optional, Sequence, Tuple

from edgeecc.report.calibration_charts import scatter
from edgeecc.report.course import VALUES, Course, Groups, Track
from edgeecc.report.draw import (
    ROWS,
    Axis,
    Bar,
    Line,
    bars,
    costliest,
    lines,
    percent,
    quantity,
    steps,
)
from edgeecc.report.run_evidence import Near
from edgeecc.report.svg import Chart, plain
from edgeecc.report.weights import WeightLayer
from edgeecc.report.why import CAUSES, Gap
from edgeecc.units import Metric, format_quantity

#: Lines of groups that get a name of their own; more are one bundle.
_NAMED = 5
#: Steps over which a loss is averaged for its smooth line, as a share of all.
_SMOOTH = 0.04


def widths_chart(widths: Mapping[str, Tuple[int, int]]) -> List[Chart]:
    """Return the channels of every group, dense and kept: the paper's Figure 6. Nothing without groups."""
    rows = [Bar(name, dense, kept, f"{kept} of {dense}") for name, (kept, dense) in widths.items()]
    if not rows:
        return []
    shown = costliest(rows)
    kept, dense = (sum(pair[at] for pair in widths.values()) for at in (0, 1))
    words = f"Channels that stay of those that layers had (as Figure 6 of the ECC paper).{_left_out(shown, rows)}"
    alt = f"{kept} of {dense} channels stay in {len(rows)} groups. " + _told(shown)
    svg = bars("widths", shown, ("dense", "kept"), lambda value: f"{value:g}")
    return [Chart("widths", "Width of every layer", words, alt, svg)]


def costs_chart(gap: Gap) -> Chart:
    """Return the cost of every layer, dense and slim, by the model that the run was pruned by."""
    metric = gap.metric
    rows = [
        Bar(
            part.name + (" (channels)" if part.kind == "group" else ""),
            part.dense,
            part.slim,
            f"{format_quantity(part.dense, metric, 3)} → {format_quantity(part.slim, metric, 3)}",
        )
        for part in gap.layers
        if part.dense > 0.0
    ]
    if gap.fixed > 0.0:
        rows.append(Bar("fixed cost", gap.fixed, gap.fixed, format_quantity(gap.fixed, metric, 3)))
    shown = costliest(rows)
    words = f"Modelled, not measured layer by layer: {gap.meter}.{_left_out(shown, rows)}"
    name = f"costs-{metric.value}"
    svg = bars(name, shown, ("dense", "pruned"), quantity(metric))
    return Chart(name, f"{metric.value.capitalize()} of every layer", words, _told(shown), svg)


def gap_chart(gap: Gap) -> Chart:
    """Return how the share of the MACs that stays becomes that of the cost, cause by cause."""
    rows = [("MACs kept", 0.0, gap.mac_share, "dense", percent(round(gap.mac_share, 3)))]
    at = gap.mac_share
    for name, points in sorted(gap.causes.items(), key=lambda each: -each[1]):
        if abs(points) < 0.05:
            continue
        end = at + points / 100.0
        rows.append(
            (CAUSES[name][0], at, end, "one" if points > 0.0 else "three", f"{points:+.1f}")
        )
        at = end
    kept = f"{gap.metric.value} kept"
    rows.append((kept, 0.0, gap.share, "slim", percent(round(gap.share, 3))))
    name = f"gap-{gap.metric.value}"
    alt = "; ".join(f"{row[0]} {row[4]}" for row in rows)
    words = f"From the share of MACs that stays to that of the {gap.metric.value}, in points ({gap.meter})."
    svg = steps(name, rows, "share of the dense network")
    return Chart(name, f"From MACs to {gap.metric.value}", words, alt, svg)


def course_charts(course: Course, method: str) -> List[Chart]:
    """Return the course of the solver and of training: of each what the history keeps."""
    found = [_loss(course), _phi(course), *_bounds(course), _duals(course, method)]
    shown = [chart for chart in found if chart is not None]
    values = enumerate(course.values.items())
    return shown + [_value(f"value-{at}", name, track) for at, (name, track) in values]


def density_chart(layers: Sequence[WeightLayer]) -> Chart:
    """Return the share of weights that stay in every layer of a run that removed single weights."""
    rows = [Bar(layer.name, 1.0, layer.density, f"{layer.density:.1%}") for layer in layers]
    shown = costliest(rows)
    words = f"Share of the weights that are not zero.{_left_out(shown, rows)}"
    svg = bars("density", shown, ("all weights", "not zero"), percent)
    return Chart("density", "Weights that stay in every layer", words, _told(shown), svg)


def array_chart(layers: Sequence[WeightLayer], meter: str) -> Chart:
    """Return the energy of every layer on the analytic array, dense and with its zeros."""
    metric = Metric.ACCESSES
    rows = [
        Bar(
            layer.name, layer.dense, layer.energy,
            f"{format_quantity(layer.dense, metric, 3)} → {format_quantity(layer.energy, metric, 3)}",
        )
        for layer in layers
        if layer.energy is not None
    ]  # fmt: skip
    shown = costliest(rows)
    words = f"Counted by the array's model, in accesses of a register file: {meter}.{_left_out(shown, rows)}"
    svg = bars("costs-accesses", shown, ("dense", "with its zeros"), quantity(metric))
    return Chart("costs-accesses", "Energy of every layer", words, _told(shown), svg)


def calibration_chart(metric: Metric, near: Near) -> List[Chart]:
    """Return predicted against measured where the samples are at hand."""
    if near.evidence is None:
        return []
    return [scatter(near.evidence, f"predicted-{metric.value}")]


def _loss(course: Course) -> Optional[Chart]:
    parts = [
        ("pruning", course.loss, "slim"),
        ("fine-tuning", course.finetuning, "two"),
        ("fitting to the measured", course.fitting, "one"),
    ]
    series: List[Line] = []
    for label, track, colour in parts:
        if track is not None:
            series.append(Line("", track.x, track.y, colour, faint=True))
            series.append(Line(label, track.x, _smooth(track.y), colour))
    if not series:
        return None
    last = series[-1]
    alt = f"Over {last.x[-1]:g} steps the mean loss goes from {series[1].y[0]:.3g} to {last.y[-1]:.3g}."
    words = "Loss of each training batch, pale, and its moving mean."
    svg = lines("loss", series, Axis("step", "loss", zero=True))
    return Chart("loss", "Loss of training", words, alt, svg)


def _phi(course: Course) -> Optional[Chart]:
    if not course.phi:
        return None
    series = [Line(plain(name, 18), track.x, track.y) for name, track in course.phi.items()]
    end = max(track.x[-1] for track in course.phi.values())
    start = min(track.x[0] for track in course.phi.values())
    series.append(Line("budget", (start, end), (1.0, 1.0), "bad", dashed=True))
    alt = "; ".join(
        f"{name} from {track.y[0]:.1%} to {track.y[-1]:.1%} of its budget"
        for name, track in course.phi.items()
    )
    words = "φ of the paper: predicted cost of the present widths as a share of the budget."
    svg = lines("phi", series, Axis("step", "cost / budget", percent))
    return Chart("phi", "Cost against budget (φ)", words, alt, svg)


def _bounds(course: Course) -> List[Chart]:
    """Return s and y, by group where they are kept, in sums where not."""
    if course.groups is not None:
        return [_bounds_by_group(course.groups), _duals_by_group(course.groups)]
    return [_total(name, track) for name, track in course.total.items()]


def _bounds_by_group(groups: Groups) -> Chart:
    shares = [tuple(value / (max(line) or 1.0) for value in line) for line in groups.s]
    first, last = (sum(line[at] for line in groups.s) for at in (0, -1))
    words = "Channels that each group may keep, as a share of what it began with; those that fall furthest are named."
    alt = f"Over {groups.step[-1]:g} steps the sum of the bounds goes from {first:g} to {last:g} channels."
    axis = Axis("step", "share of channels", percent, zero=True)
    svg = lines("bounds", _bundle(groups, shares, lambda line: line[-1]), axis)
    return Chart("bounds", "Bounds of the widths (s)", words, alt, svg)


def _duals_by_group(groups: Groups) -> Chart:
    words = (
        "What a channel of each group must be worth to stay: half the importance of the last one inside its bound. The "
        "dearest groups are named."
    )
    alt = f"The largest dual at the end is {max(line[-1] for line in groups.y):.3g}."
    series = _bundle(groups, groups.y, lambda line: -line[-1])
    svg = lines("prices", series, Axis("step", "y", zero=True))
    return Chart("prices", "Duals of the widths (y)", words, alt, svg)


def _total(name: str, track: Track) -> Chart:
    title, label = {"s": ("Sum of the bounds (s)", "channels"), "y": ("Largest dual (y)", "y")}[
        name
    ]
    alt = f"From {track.y[0]:.4g} to {track.y[-1]:.4g} in {track.x[-1]:g} steps."
    svg = lines(f"total-{name}", [Line("", track.x, track.y)], Axis("step", label, zero=True))
    return Chart(f"total-{name}", title, "Over all groups, step by step.", alt, svg)


def _bundle(
    groups: Groups, tracks: Sequence[Sequence[float]], rank: Callable[[Sequence[float]], float]
) -> List[Line]:
    """Return a line for each group; some that rank first are named, where there are many the others are pale."""
    order = sorted(range(len(tracks)), key=lambda at: rank(tracks[at]))
    named = set(order[:_NAMED])
    others = [at for at in range(len(tracks)) if at not in named]
    pale = [Line("", groups.step, tracks[at], "muted", faint=True) for at in others]
    front = [Line(plain(groups.names[at], 18), groups.step, tracks[at]) for at in order[:_NAMED]]
    return pale + front


def _duals(course: Course, method: str) -> Optional[Chart]:
    if not course.duals or method != "ecc":
        return None
    series = [Line(plain(name, 18), track.x, track.y) for name, track in course.duals.items()]
    ends = (f"{name or 'z'} ends at {track.y[-1]:.3g}" for name, track in course.duals.items())
    words = "What the method pays in importance for a share of each budget; it rises as long as the cost is above it."
    svg = lines("duals", series, Axis("step", "z", zero=True))
    return Chart("duals", "Dual of the budget (z)", words, "; ".join(ends), svg)


def _value(ident: str, name: str, track: Track) -> Chart:
    known = VALUES.get(name)
    alt = f"From {track.y[0]:.4g} to {track.y[-1]:.4g}."
    svg = lines(ident, [Line("", track.x, track.y)], Axis("step", plain(name, 24)))
    return Chart(ident, known or name, "As the method told it, step by step.", alt, svg)


def _smooth(values: Sequence[float]) -> Tuple[float, ...]:
    """Return moving means that look back only."""
    length = max(1, round(_SMOOTH * len(values)))
    sums, total = [0.0], 0.0
    for value in values:
        total += value
        sums.append(total)
    return tuple(
        (sums[at + 1] - sums[max(0, at + 1 - length)]) / min(at + 1, length)
        for at in range(len(values))
    )


def _left_out(shown: Sequence[Bar], rows: Sequence[Bar]) -> str:
    return f" The {ROWS} largest of {len(rows)}." if len(shown) < len(rows) else ""


def _told(rows: Sequence[Bar]) -> str:
    """Return rows in words, for those who do not see them; tables tell all."""
    few = sorted(rows, key=lambda row: row.after - row.before)[:3]
    return "Most goes of " + "; ".join(f"{row.name}: {row.label}" for row in few) + "."
