"""Charts of results, drawn by matplotlib, which is loaded on use."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import List, Mapping, Optional, Sequence, Tuple

from edgeecc.artifacts import atomic_path
from edgeecc.errors import RuntimeUnavailableError

#: Line styles beside colours, so that a chart reads without colours too.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Point:
    """A mean at a cost.

    Args:
        x: cost, in the unit of the axis.
        y: mean.
        deviation: half the length of its upright bar; None has none.
        x_deviation: half the length of its level bar, in the unit of the axis; None has none.
    """

    x: float
    y: float
    deviation: Optional[float] = None
    x_deviation: Optional[float] = None


@dataclass(frozen=True)
class Chart:
    """What is drawn.

    Args:
        title: of the chart.
        x_label, y_label: with unit and source of the figures.
        lines: name -> its points from left to right.
        dense: the network that was not pruned.
    """

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Tuple[Point, ...]]
    dense: Optional[Point] = None


def draw(chart: Chart, path: Path) -> None:
    """Draw a chart to a file whose ending, .svg or .png, tells the format; the same chart gives the same file.

    Raises: RuntimeUnavailableError when matplotlib is not here; ArtifactError when the file cannot be written.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RuntimeUnavailableError(
            "a chart needs matplotlib, which is not here; pip install 'edgeecc[report]'"
        ) from error
    kind = path.suffix[1:]
    with mpl.rc_context({"svg.hashsalt": "edgeecc"}):
        figure = Figure(figsize=(7.0, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for place, (name, points) in enumerate(chart.lines.items()):
            axes.errorbar(
                [point.x for point in points],
                [point.y for point in points],
                xerr=_level_bars(points),
                yerr=[point.deviation or 0.0 for point in points],
                label=name,
                marker=_MARKERS[place % len(_MARKERS)],
                capsize=3.0,
            )
        if chart.dense is not None:
            dense = chart.dense
            axes.errorbar(
                [dense.x], [dense.y], yerr=[dense.deviation or 0.0], label="dense", marker="*",
                color="black", linestyle="none", markersize=10.0, capsize=3.0,
            )  # fmt: skip
        axes.set(title=chart.title, xlabel=chart.x_label, ylabel=chart.y_label)
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
        with atomic_path(path) as temporary:
            figure.savefig(
                temporary, format=kind, metadata={"Date": None} if kind == "svg" else None
            )


def _level_bars(points: Sequence[Point]) -> Optional[List[float]]:
    """Return half the lengths of the level bars, None where no point has one; one that has none is not a number."""
    if all(point.x_deviation is None for point in points):
        return None
    # A bar of no length would still have its two ends drawn.
    return [math.nan if point.x_deviation is None else point.x_deviation for point in points]
