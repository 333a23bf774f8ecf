"""Charts of matplotlib as SVG elements that follow the page: its colours in light and dark, its font, ids of their own.

A chart is drawn with colours that stand for variables of the style sheet; in the SVG these take their place. Names come
from files that may come from anywhere: they are drawn as they are, never as mathematics, and what is not ASCII as its
escape.
"""

from __future__ import annotations

import contextlib
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Callable, Dict, Iterator, Tuple

from edgeecc.errors import RuntimeUnavailableError

#: Width of every chart, in units of its view box: on a telephone it is shown at about four fifths of that.
WIDTH = 380.0
#: Variable of the style sheet -> the colour that stands for it while matplotlib draws.
STANDS_FOR: Dict[str, str] = {
    name: f"#01{place:02x}fd"
    for place, name in enumerate(
        ("ink", "muted", "line", "card", "dense", "slim", "one", "two", "three", "four", "bad")
    )
}
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
#: Units of matplotlib's sizes in an inch.
_POINTS = 72.0
_FONT = re.compile(r"font-family:[^;]*;?\s*")
_DECIMALS = re.compile(r"(\d+\.\d\d)\d+")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


@dataclass(frozen=True)
class Chart:
    """A chart of a page.

    Args:
        name: its id in the page: letters, digits and hyphens.
        title: its heading.
        words: what it shows and where its numbers come from.
        alt: what it says, for those who do not see it.
        svg: the drawing.
    """

    name: str
    title: str
    words: str
    alt: str
    svg: str


def check_here() -> None:
    """Check that charts can be drawn.

    Raises: RuntimeUnavailableError when matplotlib is not here.
    """
    try:
        import matplotlib.figure
        import matplotlib.ticker  # noqa: F401  # found, to be used by charts
    except ImportError as error:
        raise RuntimeUnavailableError(
            "a report needs matplotlib, which is not here; pip install 'edgeecc[report]'"
        ) from error


@contextlib.contextmanager
def axes_of(name: str, height: float) -> Iterator[Tuple[Any, Callable[[], str]]]:
    """Yield axes to draw on, and what returns them as SVG, to be called before the context ends.

    Args:
        name: of the chart; the ids in the SVG begin with it.
        height: in units of the view box.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_settings(name)):
        figure = Figure(figsize=(WIDTH / _POINTS, height / _POINTS), layout="constrained")
        axes = figure.add_subplot()
        axes.set_axisbelow(True)

        def drawn() -> str:
            stream = BytesIO()
            figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
            return inlined(stream.getvalue(), name)

        yield axes, drawn


def inlined(data: bytes, name: str) -> str:
    """Return what matplotlib wrote as an element for a page: no fonts, no colours and no ids but the page's own.

    Args:
        data: an SVG file.
        name: that its ids are to begin with.
    """
    root = ET.fromstring(data)  # noqa: S314  # written a line ago, by matplotlib
    for child in list(root):
        if child.tag == f"{{{_SVG}}}metadata" or child.find(f"{{{_SVG}}}style") is not None:
            root.remove(child)
    for element in root.iter():
        _adapt_(element, name)
    box = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib.update(
        {"viewBox": box, "role": "img", "aria-labelledby": f"{name}-title {name}-alt"}
    )
    ET.register_namespace("", _SVG)
    return ET.tostring(root, encoding="unicode")


def plain(name: str, most: int = 60) -> str:
    """Return a name that every font can write, its end where it is long."""
    text = "".join(one if one.isprintable() else " " for one in name)
    text = text.encode("ascii", "backslashreplace").decode()
    return text if len(text) <= most else f"...{text[3 - most :]}"


def _adapt_(element: ET.Element, name: str) -> None:
    """Change an element in place."""
    target = element.attrib.pop(f"{{{_XLINK}}}href", None)
    if target is not None:
        element.set("href", f"#{name}-{target[1:]}")
    for key, value in element.attrib.items():
        if key == "id":
            element.set(key, f"{name}-{value}")
        elif key == "style":
            element.set(key, _in_colours_of_page(_FONT.sub("", value)))
        elif key in ("d", "x", "y", "points"):
            element.set(key, " ".join(_DECIMALS.sub(r"\1", value).split()))
        else:
            element.set(key, _REFERENCE.sub(rf"url(#{name}-\1)", value))
    if element.text is not None and not element.text.strip():
        element.text = None
    element.tail = None


def _in_colours_of_page(style: str) -> str:
    for variable, colour in STANDS_FOR.items():
        style = style.replace(colour, f"var(--{variable})")
    return style


def _settings(name: str) -> Any:
    ink, muted, line = (STANDS_FOR[key] for key in ("ink", "muted", "line"))
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
        "text.usetex": False,
        "font.family": "sans-serif",
        "font.size": 11.0,
        "text.color": ink,
        "axes.labelcolor": muted,
        "axes.labelsize": 11.0,
        "axes.edgecolor": line,
        "axes.linewidth": 1.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": line,
        "grid.linewidth": 0.7,
        "xtick.color": line,
        "ytick.color": line,
        "xtick.labelcolor": muted,
        "ytick.labelcolor": muted,
        "legend.frameon": False,
        "legend.fontsize": 11.0,
        "lines.linewidth": 1.8,
    }
