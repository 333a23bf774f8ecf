"""The kinds of charts that reports are made of, drawn on matplotlib's axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, List, Optional, Sequence, Tuple

from edgeecc.report.svg import STANDS_FOR, axes_of, plain
from edgeecc.units import Metric, format_quantity

#: Most rows of a bar chart; what is left out is said.
ROWS = 150
#: Units of the view box: a row of bars, and what legend and axis take.
_ROW, _FRAME = 20.0, 60.0
#: Characters of a row's name.
_NAME = 18
#: Points of all lines of a chart together: what a screen shows, in a file that stays small.
_POINTS = 8000
#: Colour of each series, by its place.
_COLOURS = ("slim", "one", "two", "three", "four")


@dataclass(frozen=True)
class Bar:
    """A row of a bar chart.

    Args:
        name: of the row.
        before, after: lengths of the pale bar and of the one before it.
        label: what is written at its end.
    """

    name: str
    before: float
    after: float
    label: str


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Args:
        label: in the legend; empty: none.
        x, y: as long as each other, at least one point.
        colour: variable of the style sheet; empty takes the next one.
        dashed, faint: how it is drawn.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str = ""
    dashed: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Axis:
    """Labels of a chart of lines.

    Args:
        x, y: what the axes tell.
        form: a value of the y axis -> text.
        zero: whether the y axis begins at nothing.
        mark: place on the x axis of a dotted line, and what it is.
    """

    x: str
    y: str
    form: Optional[Callable[[float], str]] = None
    zero: bool = False
    mark: Optional[Tuple[float, str]] = None


def bars(
    name: str, rows: Sequence[Bar], legend: Tuple[str, str], form: Callable[[float], str]
) -> str:
    """Draw for every row a pale bar and one before it, from above to below.

    Args:
        name: of the chart.
        rows: at least one.
        legend: what the pale and the other bars are.
        form: a length -> text, for the axis.
    """
    with axes_of(name, _FRAME + _ROW * len(rows)) as (axes, drawn):
        places = list(range(len(rows)))
        axes.barh(
            places,
            [row.before for row in rows],
            height=0.78,
            color=STANDS_FOR["dense"],
            label=legend[0],
        )
        axes.barh(
            places,
            [row.after for row in rows],
            height=0.42,
            color=STANDS_FOR["slim"],
            label=legend[1],
        )
        most = max((max(row.before, row.after) for row in rows), default=0.0) or 1.0
        for place, row in enumerate(rows):
            at = max(row.before, row.after)
            axes.text(
                at + 0.012 * most, place, row.label, va="center", fontsize=10.0, color=STANDS_FOR["muted"]
            )  # fmt: skip
        longest = max((len(row.label) for row in rows), default=0)
        axes.set_xlim(0.0, most * (1.03 + 0.027 * longest))
        named_rows(axes, [row.name for row in rows])
        values_on(axes.xaxis, form, 4)
        axes.grid(visible=False, axis="y")
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)
        return drawn()


def steps(name: str, rows: Sequence[Tuple[str, float, float, str, str]], label: str) -> str:
    """Draw how a sum comes about, a floating bar for each part: name, from, to, colour, what is written at its end."""
    with axes_of(name, 40.0 + 26.0 * len(rows)) as (axes, drawn):
        most = max(max(start, end) for _, start, end, _, _ in rows)
        for place, (_, start, end, colour, text) in enumerate(rows):
            left, width = min(start, end), abs(end - start)
            axes.barh(place, width, left=left, height=0.62, color=STANDS_FOR[colour])
            axes.text(max(start, end) + 0.015 * most, place, text, va="center", fontsize=10.0)
            if place + 1 < len(rows):
                axes.vlines(end, place, place + 1, color=STANDS_FOR["muted"], linewidth=0.8)
        axes.set_xlim(min(0.0, *(min(row[1], row[2]) for row in rows)), 1.22 * most)
        named_rows(axes, [row[0] for row in rows], 24)
        values_on(axes.xaxis, percent, 5)
        axes.set_xlabel(label)
        axes.grid(visible=False, axis="y")
        return drawn()


def lines(name: str, series: Sequence[Line], axis: Axis, height: float = 250.0) -> str:
    """Draw lines over a common x axis."""
    shown = [one for one in series if one.label]
    with axes_of(name, height) as (axes, drawn):
        most = max(2, _POINTS // max(1, len(series)))
        place = 0
        for one in series:
            colour = one.colour or _COLOURS[place % len(_COLOURS)]
            place += 0 if one.colour else 1
            x, y = _thinned(one, most)
            axes.plot(
                x, y, color=STANDS_FOR[colour], label=one.label or None, linestyle="--" if one.dashed else "-",
                alpha=0.45 if one.faint else 1.0, linewidth=0.9 if one.faint else 1.8,
                marker="o" if len(x) < 2 else None,
            )  # fmt: skip
        if axis.mark is not None:
            axes.axvline(
                axis.mark[0],
                color=STANDS_FOR["muted"],
                linestyle=":",
                label=axis.mark[1],
                linewidth=1.3,
            )
        axes.set(xlabel=axis.x, ylabel=axis.y)
        if axis.zero:
            axes.set_ylim(bottom=0.0)
        if axis.form is not None:
            values_on(axes.yaxis, axis.form, 5)
        if shown or axis.mark is not None:
            axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)
        return drawn()


def named_rows(axes: Any, names: Sequence[str], most: int = _NAME) -> None:
    """Write names of rows at the y axis, the first one above."""
    shown = [plain(name, most) for name in names]
    axes.set_yticks(range(len(names)), shown, fontsize=10.0)
    axes.tick_params(axis="y", length=0.0)
    axes.set_ylim(len(names) - 0.4, -0.6)


def values_on(axis: Any, form: Callable[[float], str], most: int) -> None:
    """Write values at an axis as `form` does, at so many places at most."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(most))
    axis.set_major_formatter(FuncFormatter(lambda value, _: form(value)))


def quantity(metric: Metric) -> Callable[[float], str]:
    """Return how values of a metric are written at axes."""
    return lambda value: format_quantity(value, metric, 3) if value else "0"


def percent(value: float) -> str:
    """Return a share as axes tell it."""
    return f"{100.0 * value:.4g} %"


def costliest(rows: Sequence[Bar]) -> List[Bar]:
    """Return as many rows as can be drawn, those with the longest bars, in their order."""
    ranked = sorted(range(len(rows)), key=lambda at: -max(rows[at].before, rows[at].after))
    return [rows[at] for at in sorted(ranked[:ROWS])]


def _thinned(line: Line, most: int) -> Tuple[List[float], List[float]]:
    """Return evenly so many of the points of a line, its last one among them."""
    every = math.ceil(len(line.x) / most)
    return [*line.x[:-1:every], *line.x[-1:]], [*line.y[:-1:every], *line.y[-1:]]
