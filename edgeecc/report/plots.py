"""Charts of a calibration as PNG, drawn by matplotlib, which is loaded on use.

Names come from files: they are drawn as they are, never as mathematics, and what is not ASCII as its escape.
"""

from __future__ import annotations

import contextlib
import math
from io import BytesIO
from typing import Any, Dict, Iterator, List, Sequence

from edgeecc.cost.terms import GROUP
from edgeecc.errors import RuntimeUnavailableError
from edgeecc.report.figures import Figures, Owned
from edgeecc.units import Metric, format_quantity

#: Inches; the height of a row of bars; and most rows, beyond which those that cost least are left out.
_WIDTH, _HEIGHT, _ROW, _ROWS = 8.0, 5.5, 0.24, 150
#: Prefix of a term's name -> its colour and what it multiplies.
_TERMS = {
    "": ("tab:blue", "channels in x out"),
    "tiles": ("tab:orange", "whole tiles of channels"),
    "width": ("tab:green", "channels of a group"),
    "span": ("tab:olive", "part of a group's channels"),
    "fixed": ("tab:gray", "fixed cost"),
}


def check_here() -> None:
    """Check that charts can be drawn.

    Raises: RuntimeUnavailableError when matplotlib is not here.
    """
    try:
        import matplotlib.figure
        import matplotlib.ticker  # noqa: F401  # found, to be used below
    except ImportError as error:
        raise RuntimeUnavailableError(
            "a report needs matplotlib, which is not here; pip install 'edgeecc[report]'"
        ) from error


def draw(figures: Figures) -> Dict[str, bytes]:
    """Return file name -> PNG of every chart; the same figures give the same bytes.

    Raises: RuntimeUnavailableError when matplotlib is not here.
    """
    check_here()
    return {
        "predicted.png": _predicted(figures),
        "samples.png": _samples(figures),
        "coefficients.png": _coefficients(figures),
    }


@contextlib.contextmanager
def _axes(stream: BytesIO, title: str, height: float = _HEIGHT) -> Iterator[Any]:
    """Yield axes to draw on; then they are written."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"text.parse_math": False, "text.usetex": False}):
        figure = Figure(figsize=(_WIDTH, height), dpi=110, layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title)
        axes.grid(visible=True, alpha=0.3)
        yield axes
        figure.savefig(stream, format="png", metadata={"Software": None})


def _predicted(figures: Figures) -> bytes:
    evidence, profile, stream = figures.evidence, figures.evidence.profile, BytesIO()
    with _axes(
        stream, f"Predicted and measured {profile.metric.value}\n{_source(figures)}"
    ) as axes:
        axes.scatter(evidence.told, figures.predicted, s=10, alpha=0.5, label="fitted")
        axes.scatter(
            evidence.truth, figures.predicted_held, s=18, marker="s", alpha=0.8, label="held out"
        )
        ends = [0.0, 1.05 * max(float(evidence.told.max()), float(evidence.truth.max()))]
        axes.plot(ends, ends, color="black", linewidth=1.0, label="predicted = measured")
        margin = profile.margin()
        held = (
            "held-out p95" if margin.confidence is None else f"{margin.confidence:.3g} of variants"
        )
        axes.fill_between(
            ends, [end / (1.0 + margin.share) for end in ends], ends, color="black", alpha=0.12, linewidth=0.0,
            label=f"margin {margin.share:.1%}: {held} at or above its lower edge",
        )  # fmt: skip
        axes.set(xlabel="measured", ylabel="predicted", xlim=ends, ylim=(0.0, None))
        _quantities(axes.xaxis, profile.metric)
        _quantities(axes.yaxis, profile.metric)
        axes.legend()
    return stream.getvalue()


def _samples(figures: Figures) -> bytes:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    curve, confidence, stream = figures.curve, figures.config.confidence, BytesIO()
    sizes = [point.samples for point in curve]
    with _axes(stream, f"Held-out error by number of samples\n{_source(figures)}") as axes:
        axes.plot(sizes, [point.error for point in curve], marker="o", label="mean held-out error")
        if all(math.isfinite(point.upper) for point in curve):
            label = f"at most, with {confidence:.3g} confidence"
            axes.plot(sizes, [point.upper for point in curve], "--", marker="v", label=label)
        target_error = figures.evidence.profile.target_error
        if target_error:
            label = f"target error {target_error:.3g}"
            axes.axhline(target_error, color="black", linestyle=":", label=label)
        axes.set_xscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        if min(point.error for point in curve) > 0.0:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100.0 * value:.4g} %"))
        axes.set(xlabel="fitted samples", ylabel="relative error")
        axes.legend()
    return stream.getvalue()


def _coefficients(figures: Figures) -> bytes:
    metric, stream = figures.evidence.profile.metric, BytesIO()
    parts = _costliest(figures.parts)
    few = f", the {len(parts)} that cost most" if len(parts) < len(figures.parts) else ""
    title = f"Cost when dense, intervals of {figures.config.confidence:.3g} confidence{few}\n{_source(figures)}"
    with _axes(stream, title, height=1.8 + _ROW * len(parts)) as axes:
        named: List[str] = []
        for row, part in enumerate(parts):
            left = 0.0
            for one in part.terms:
                kind = "fixed" if part.kind == part.name else one.term.partition(":")[0]
                colour, label = _TERMS.get(kind, _TERMS[""])
                axes.barh(
                    row, one.value, left=left, color=colour, edgecolor="white", linewidth=0.5,
                    label=None if label in named else label,
                )  # fmt: skip
                named.append(label)
                left += one.value
        rows = list(range(len(parts)))
        ends = [[part.interval.low for part in parts], [part.interval.high for part in parts]]
        axes.hlines(rows, *ends, color="black", linewidth=1.2, label="interval of the sum")
        for end in ends:
            axes.plot(end, rows, "|", color="black", markersize=5.0)
        axes.set_yticks(rows, [_row_name(part) for part in parts], fontsize=8)
        axes.set_ylim(len(parts) - 0.4, -0.6)
        axes.set_xlim(0.0, None)
        _quantities(axes.xaxis, metric)
        axes.legend()
    return stream.getvalue()


def _costliest(parts: Sequence[Owned]) -> List[Owned]:
    """Return as many parts as can be drawn, in their order."""
    ranked = sorted(range(len(parts)), key=lambda at: -parts[at].value)
    return [parts[at] for at in sorted(ranked[:_ROWS])]


def _quantities(axis: Any, metric: Metric) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(6))
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: format_quantity(value, metric) if value else "0")
    )


def _source(figures: Figures) -> str:
    """Return network and meter: no figure goes without its meter."""
    profile = figures.evidence.profile
    return f"{_plain(profile.network)}, {_plain(profile.meter)}"


def _row_name(part: Owned) -> str:
    return _plain(part.name, 40) + (" (group)" if part.kind == GROUP else "")


def _plain(name: str, most: int = 60) -> str:
    """Return a name that fonts can write, its end where it is long."""
    text = "".join(one if one.isprintable() else " " for one in name)
    text = text.encode("ascii", "backslashreplace").decode()
    return text if len(text) <= most else f"...{text[3 - most :]}"
