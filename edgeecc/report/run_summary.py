"""The top of a run's page: what its verdict rests on, its figures at a glance, and what is still to be done."""

from __future__ import annotations

from typing import List, Optional

from edgeecc.report.page import Tile
from edgeecc.report.reproduce import command
from edgeecc.report.run_files import RunFiles
from edgeecc.report.run_numbers import Row
from edgeecc.report.standing import Asked, Figure, Standing
from edgeecc.units import Metric, format_quantity
from edgeecc.verdict import Bound

#: What a figure that was counted stands beside.
_COUNT = "exact count"


def asked_words(bound: Bound) -> str:
    """Return a budget in words."""
    text = bound.text or format_quantity(bound.value, bound.metric)
    return f"{text} of {name_of(bound.metric)}" if text.endswith("%") else text


def name_of(metric: Metric) -> str:
    """Return what people call a metric: accesses are the energy of an analytic model."""
    return "energy" if metric is Metric.ACCESSES else metric.value


def ground(one: Asked) -> str:
    """Return what the verdict on a budget rests on, a sentence."""
    metric, found = one.bound.metric, one.deciding.figure
    name = name_of(metric).capitalize()
    bound = format_quantity(one.bound.value, metric)
    if one.dense and "%" not in one.bound.text:
        bound += f", {one.bound.value / one.dense:.1%} of dense"
    if found is None or (one.deciding.by == "prune" and one.deciding.within is None):
        device = f" on {one.bound.device}" if one.bound.device else ""
        predicted = format_quantity(one.predicted.value, metric)
        said = f"{name} {predicted} is only predicted ({one.predicted.meter})"
        return f"{said}, budget {bound}: nothing was measured{device}."
    off = found.value / one.bound.value - 1.0
    side = "under" if off <= 0.0 else "over"
    return f"{name} {_with_ends(found, metric)} by {found.meter}, {abs(off):.1%} {side} the budget of {bound}."


def tiles_of(standing: Standing, first: Row, last: Row, kind: str) -> List[Tile]:
    """Return the figures that stand at the top.

    Args:
        standing: of the run.
        first, last: the dense network, and the last one that the run made.
        kind: what the run removed.
    """
    shown = [_budget_tile(one) for one in standing.asked if _stands_alone(one, first, last)]
    for metric, before, after in (
        (Metric.ENERGY, first.energy, last.energy),
        (Metric.LATENCY, first.latency, last.latency),
    ):
        if before is not None and after is not None and before.meter == after.meter:
            shown.append(_tile(metric, before.value, after.value, after.meter))
    shown.append(_score_tile(first, last))
    return shown + (_counts(first, last) if kind == "channels" else [])


def open_ends(files: RunFiles, standing: Standing) -> List[str]:
    """Return what is not known of a run, and the commands that tell it."""
    words: List[str] = []
    path = files.folder.path
    if files.outdated:
        words.append(
            f"Left aside, as of an earlier result of this run: {', '.join(files.outdated)}."
        )
    if files.exported is None:
        words.append(
            f"The run is pruned but not exported: {command('export', path=path)} slims it, writes ONNX and verifies it."
        )
    elif files.verified is None:
        words.append(
            f"The exported network is not verified: {command('verify', path=path)} measures it."
        )
    for one in standing.asked:
        if files.verified is not None and one.deciding.within is None:
            words.append(
                f"No meter told the {one.bound.metric.value} of {one.bound.device or 'this budget'}: on that device "
                f"{command('verify', path=path)} measures it, and {command('export', '--trt', path=path)} builds and "
                "measures its engine."
            )
    if files.verified is not None and files.verified.flag("outputs_agree") is False:
        words.append(
            "The outputs of the exported network DIFFER from the pruned one's by more than is tolerated."
        )
    return words


def _with_ends(figure: Figure, metric: Metric) -> str:
    said = format_quantity(figure.value, metric)
    if figure.low is None or figure.high is None:
        return said
    ends = " to ".join(format_quantity(end, metric) for end in (figure.low, figure.high))
    return f"{said} (95 %: {ends})"


def _stands_alone(one: Asked, first: Row, last: Row) -> bool:
    """Return whether no network of the run has a measured figure of a budget's metric beside the dense one's."""
    if one.bound.metric is Metric.ENERGY:
        return first.energy is None or last.energy is None
    if one.bound.metric is Metric.LATENCY:
        return first.latency is None or last.latency is None
    return one.bound.metric is Metric.ACCESSES


def _budget_tile(one: Asked) -> Tile:
    """Return what is known of a budget's cost: against the dense network's where one model tells both."""
    figure = one.deciding.figure or one.predicted
    same = figure.meter == one.predicted.meter
    return _tile(one.bound.metric, one.dense if same else None, figure.value, figure.meter)


def _tile(metric: Metric, dense: Optional[float], slim: float, meter: str, name: str = "") -> Tile:
    ends = [
        format_quantity(value, metric, 3).replace(" ", "\u00a0") for value in (dense, slim) if value
    ]
    big = f"{slim / dense - 1.0:+.1%}" if dense else ends[-1]
    return Tile(name or name_of(metric).capitalize(), big, " → ".join(ends) if dense else "", meter)


def _counts(first: Row, last: Row) -> List[Tile]:
    found = []
    before, after = first.params, last.params
    if before and after:
        found.append(
            Tile("Parameters", f"{after / before - 1.0:+.1%}", f"{before:,.0f} → {after:,.0f}", _COUNT)
        )  # fmt: skip
    for metric, name, old, new in (
        (Metric.MACS, "MACs", first.macs, last.macs),
        (Metric.SIZE, "Size, float32", first.size_b, last.size_b),
    ):
        if old and new:
            found.append(_tile(metric, old, new, _COUNT, name))
    return found


def _score_tile(first: Row, last: Row) -> Tile:
    name, value = next(iter(last.scores.items()), ("accuracy", 0.0))
    before = first.scores.get(name)
    images = "validation images" if last.images is None else f"{last.images} validation images"
    if before is None:
        return Tile(name.capitalize(), f"{value:.2%}", "", images)
    points = f"{100.0 * (value - before):+.2f} points"
    return Tile(name.capitalize(), points, f"{before:.2%} → {value:.2%}", images)
