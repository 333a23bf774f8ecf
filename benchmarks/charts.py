"""Small charts as SVG for the docs: lines and bars that are readable on light and dark pages, by nothing but SVG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Sequence, Tuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 150, 34, 44
#: Colours that differ for colour-blind eyes too (Okabe and Ito), mixed to stand out on white and on near-black.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56a4d9", "#8a6fd1", "#7a7a7a")
_STYLE = """<style>
.page{fill:#ffffff}.text{fill:#1f2430}.faint{stroke:#d5d9df}.axis{stroke:#5c6370}
@media (prefers-color-scheme:dark){.page{fill:#16181d}.text{fill:#e4e7ec}.faint{stroke:#343a44}.axis{stroke:#9aa2af}}
</style>"""

Points = Sequence[Tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Args:
        name: written at its end.
        points: x and y.
        colour: of COLOURS, by number.
        dashed: drawn so.
    """

    name: str
    points: Points
    colour: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Axes:
    """What is drawn in.

    Args:
        title, x, y: words.
        right, top: largest x and y; what is higher is drawn at the top.
        left: least x; y begins at 0.
    """

    title: str
    x: str
    y: str
    right: float
    top: float
    left: float = 0.0

    def at(self, x: float, y: float) -> Tuple[float, float]:
        """Return where a point lies on the page."""
        across = LEFT + (WIDTH - LEFT - RIGHT) * (x - self.left) / (self.right - self.left)
        return across, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(y, self.top) / self.top


def chart(axes: Axes, lines: Sequence[Line], bars: Sequence[Tuple[float, int]] = ()) -> str:
    """Return a chart of lines over bars.

    Args:
        axes: what they are drawn in.
        lines: one over the other.
        bars: height and colour of each; the first stands at the least x and 1.
    """
    parts = [*_frame(axes)]
    width = (WIDTH - LEFT - RIGHT) / (axes.right - axes.left) * 0.7
    for place, (height, colour) in enumerate(bars, 1):
        x, y = axes.at(axes.left + place, height)
        parts.append(
            f'<rect x="{x - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" height="{HEIGHT - BOTTOM - y:.1f}" '
            f'fill="{COLOURS[colour]}"/>'
        )
    for line in lines:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (axes.at(*point) for point in line.points))
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{COLOURS[line.colour]}" stroke-width="2"{dash}/>'
        )
    parts += _names(axes, lines)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
    head += f'font-family="sans-serif" font-size="12" role="img" aria-label="{escape(axes.title)}">'
    return "\n".join([head, _STYLE, *parts, "</svg>"]) + "\n"


def _frame(axes: Axes) -> List[str]:
    parts = [f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>']
    parts.append(_text(LEFT, 20, axes.title, "start", ' font-weight="bold"'))
    for value in _ticks(axes.top):
        x, y = axes.at(axes.left, value)
        parts.append(_rule(x, y, WIDTH - RIGHT, y, "faint"))
        parts.append(_text(x - 6, y + 4, f"{value:g}", "end"))
    for value in (axes.left + tick for tick in _ticks(axes.right - axes.left)):
        x, y = axes.at(value, 0)
        parts.append(_rule(x, y, x, y + 4, "axis"))
        parts.append(_text(x, y + 17, f"{value:g}", "middle"))
    left, bottom = axes.at(axes.left, 0)
    parts.append(_rule(left, bottom, WIDTH - RIGHT, bottom, "axis"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, axes.x, "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = f' transform="rotate(-90 14 {middle:.0f})"'
    parts.append(_text(14, middle, axes.y, "middle", turned))
    return parts


def _names(axes: Axes, lines: Sequence[Line]) -> List[str]:
    """Return the lines' names at their ends, moved apart where they would touch."""
    named = [line for line in lines if line.name]
    ends = [axes.at(*line.points[-1])[1] for line in named]
    parts, last = [], -100.0
    for y, line in sorted(zip(ends, named), key=lambda end: end[0]):
        last = max(y, last + 14)
        parts.append(
            f'<rect x="{WIDTH - RIGHT + 8}" y="{last - 4:.1f}" width="8" height="8" fill="{COLOURS[line.colour]}"/>'
        )
        parts.append(_text(WIDTH - RIGHT + 21, last + 4, line.name, "start"))
    return parts


def _ticks(top: float) -> List[float]:
    """Return four to eight round values from 0 on."""
    step = 10.0 ** (len(f"{int(top)}") - 1) if top >= 1 else 10.0 ** -(len(f"{int(1 / top)}"))
    for factor in (5.0, 2.0, 1.0, 0.5, 0.2, 0.1):
        if top / (step * factor) >= 4:
            step *= factor
            break
    return [round(step * place, 10) for place in range(int(top / step + 1e-9) + 1)]


def _rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, words: str, anchor: str, more: str = "") -> str:
    return f'<text class="text" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(words)}</text>'
