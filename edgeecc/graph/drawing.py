"""Draw the channel groups of a network: SVG that is laid out here, or text for Graphviz.

The SVG is a column of layers in forward order. Beside it every group has a lane in its colour, from the first layer
that touches it to the last: a dot where channels are made, a diamond where they are carried, a ring where they are
read. Two dots in one lane are a tie. Groups that stay whole are grey and say why. Layout: ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Sequence, Tuple
from xml.sax.saxutils import escape, quoteattr

from edgeecc.graph.spec import LayerSpec, NetworkSpec
from edgeecc.graph.ties import Ties, ties_of

#: Colours that stay apart for most kinds of colour blindness, on white.
_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#b0478f", "#b07c00", "#3a9bd9", "#8c564b", "#5b3c9d", "#6b8e23", "#c2185b",
)  # fmt: skip
_GREY, _INK, _PALE = "#8a8f98", "#1f2430", "#f3f5f8"
#: Pixels: of a row, of a lane, of a letter of the font, around the drawing.
_ROW, _LANE, _LETTER, _MARGIN = 22, 16, 7.2, 20
#: Letters of a reason that are drawn; the whole of it shows when the pointer rests on it.
_NOTE = 72
_HEADS = ("layer", "kind", "channels", "MACs")


def to_dot(spec: NetworkSpec) -> str:
    """Return the groups as text for Graphviz: boxes are layers, ellipses groups, arrows point forward."""
    lines = ["digraph groups {", "  rankdir=LR;", '  node [fontname="Helvetica", fontsize=11];']
    for layer in spec.layers:
        label = f"{layer.name}\n{layer.kind} {_channels(layer, spec)}"
        lines.append(f"  {_quoted('layer ' + layer.name)} [shape=box, label={_quoted(label)}];")
    for place, ties in enumerate(ties_of(spec)):
        group, colour = ties.group, _colour(ties, place)
        node = _quoted(f"group {group.name}")
        label = f"{group.name}\n{group.width}" + (f"\n{group.reason}" if group.reason else "")
        style = f'color="{colour}", fontcolor="{colour}"'
        lines.append(f"  {node} [shape=ellipse, {style}, label={_quoted(label)}];")
        lines += [
            f'  {_quoted("layer " + name)} -> {node} [color="{colour}"];' for name in ties.makers
        ]
        lines += [
            f'  {node} -> {_quoted("layer " + name)} [color="{colour}", style={style_}];'
            for names, style_ in ((ties.carriers, "dashed"), (ties.readers, "solid"))
            for name in names
        ]
    return "\n".join([*lines, "}", ""])


def to_svg(spec: NetworkSpec) -> str:
    """Return the groups as an SVG document."""
    found = ties_of(spec)
    rows = {layer.name: place for place, layer in enumerate(spec.layers)}
    lanes = _lanes(found, rows)
    texts = [_texts(layer, spec, found) for layer in spec.layers]
    columns = _columns(
        [_HEADS, *(text.cells for text in texts)], max(lanes.values(), default=0) + 1
    )
    longest = max((len(text.note) for text in texts), default=0)
    width = math.ceil(columns[-1] + _LETTER * max(_NOTE // 2, min(_NOTE, longest))) + _MARGIN
    height = 2 * _MARGIN + _ROW * (len(rows) + 3)
    prunable = sum(ties.group.prunable for ties in found)
    title = f"{spec.network or 'network'}: {prunable} of {len(found)} channel groups can be pruned"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(_MARGIN, _centre(-3), title, _INK, bold=True),
        *_legend(),
        *(_text(x, _centre(-1), head, _GREY) for x, head in zip(columns, _HEADS)),
    ]
    for place, text in enumerate(texts):
        parts += _row(place, text, columns, width)
    for place, ties in enumerate(found):
        if ties.layers:
            parts += _lane(
                ties, rows, _MARGIN + _LANE * (lanes[ties.group.name] + 0.5), _colour(ties, place)
            )
    return "\n".join([*parts, "</svg>", ""])


#: Ending of the file -> how it is drawn.
DRAWINGS: Mapping[str, Callable[[NetworkSpec], str]] = {".svg": to_svg, ".dot": to_dot}


@dataclass(frozen=True)
class _Text:
    """What is written in a layer's row: cells, and a note on the channels it makes in the group's colour."""

    cells: Tuple[str, ...]
    note: str
    colour: str


def _texts(layer: LayerSpec, spec: NetworkSpec, found: Sequence[Ties]) -> _Text:
    notes: List[str] = []
    tied: List[str] = []
    colour = _GREY
    for place, ties in enumerate(found):
        if layer.name not in ties.makers:
            continue
        first = ties.makers[0]
        colour = _INK if notes or tied else _colour(ties, place)
        if layer.name != first:
            tied.append(ties.group.name)
        elif ties.group.prunable:
            notes.append(f"{ties.group.width} prunable")
        else:
            notes.append(f"{ties.group.width} whole: {ties.group.reason}")
    if tied:
        notes.append(f"tied to {', '.join(tied)}")
    total = sum(item.dense_macs for item in spec.layers) or 1
    share = f"{layer.dense_macs / total:.1%}"
    cells = (layer.name, layer.kind, _channels(layer, spec), share)
    return _Text(cells, ", ".join(notes), colour)


def _lanes(found: Sequence[Ties], rows: Mapping[str, int]) -> Dict[str, int]:
    """Return group name -> lane; groups share a lane where they do not overlap."""
    ends: List[int] = []
    lanes: Dict[str, int] = {}
    spans = {ties.group.name: [rows[name] for name in ties.layers] for ties in found if ties.layers}
    for name, span in sorted(spans.items(), key=lambda item: (min(item[1]), max(item[1]))):
        free = [lane for lane, end in enumerate(ends) if end < min(span)]
        lane = free[0] if free else len(ends)
        ends[lane : lane + 1] = [max(span)]
        lanes[name] = lane
    return lanes


def _columns(cells: Sequence[Tuple[str, ...]], lanes: int) -> List[float]:
    """Return the left edge of each column of text, the notes' last."""
    edges = [float(2 * _MARGIN + _LANE * lanes)]
    for column in zip(*cells):
        edges.append(edges[-1] + _LETTER * (max(map(len, column)) + 2))
    return edges


def _row(place: int, text: _Text, columns: Sequence[float], width: int) -> List[str]:
    parts = []
    if place % 2 == 0:
        top = _centre(place) - _ROW / 2
        parts.append(f'<rect x="0" y="{top:g}" width="{width}" height="{_ROW}" fill="{_PALE}"/>')
    inks = (_INK, _GREY, _INK, _GREY)
    parts += [
        _text(edge, _centre(place), cell, ink) for edge, cell, ink in zip(columns, text.cells, inks)
    ]
    return [*parts, _text(columns[-1], _centre(place), text.note, text.colour)]


def _lane(ties: Ties, rows: Mapping[str, int], x: float, colour: str) -> List[str]:
    places = [rows[name] for name in ties.layers]
    top, bottom = _centre(min(places)), _centre(max(places))
    group = f"{ties.group.name}: {ties.group.width} {ties.group.reason or 'prunable'}"
    marks = [
        f'<line x1="{x:g}" y1="{top:g}" x2="{x:g}" y2="{bottom:g}" stroke="{colour}" stroke-width="2"/>'
    ]
    for names, mark in ((ties.readers, _ring), (ties.carriers, _diamond), (ties.makers, _dot)):
        marks += [mark(x, _centre(rows[name]), colour) for name in names]
    return [f"<g><title>{escape(_printable(group))}</title>", *marks, "</g>"]


def _dot(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:g}" cy="{y:g}" r="4.5" fill="{colour}"/>'


def _ring(x: float, y: float, colour: str) -> str:
    return (
        f'<circle cx="{x:g}" cy="{y:g}" r="3.5" fill="#ffffff" stroke="{colour}" stroke-width="2"/>'
    )


def _diamond(x: float, y: float, colour: str) -> str:
    points = f"{x:g},{y - 5:g} {x + 5:g},{y:g} {x:g},{y + 5:g} {x - 5:g},{y:g}"
    return f'<polygon points="{points}" fill="#ffffff" stroke="{colour}" stroke-width="2"/>'


def _legend() -> List[str]:
    parts: List[str] = []
    x = float(_MARGIN + 5)
    for mark, word in (
        (_dot, "makes"),
        (_diamond, "carries"),
        (_ring, "reads"),
        (None, "grey: stays whole"),
    ):
        if mark is not None:
            parts.append(mark(x, _centre(-2), _INK))
            x += 9
        parts.append(_text(x, _centre(-2), word, _GREY))
        x += _LETTER * (len(word) + 3)
    return parts


def _text(x: float, y: float, text: str, colour: str, *, bold: bool = False) -> str:
    text = _printable(text)
    shown = text if len(text) <= _NOTE else f"{text[: _NOTE - 1]}…"
    weight = ' font-weight="bold"' if bold else ""
    title = f"<title>{escape(text)}</title>" if shown != text else ""
    return f'<text x="{x:g}" y="{y + 4:g}" fill={quoteattr(colour)}{weight}>{escape(shown)}{title}</text>'


def _centre(place: int) -> float:
    """Return the middle of a row; title, legend and column heads are rows -3 to -1."""
    return _MARGIN + _ROW * (place + 3.5)


def _colour(ties: Ties, place: int) -> str:
    return _COLOURS[place % len(_COLOURS)] if ties.group.prunable else _GREY


def _channels(layer: LayerSpec, spec: NetworkSpec) -> str:
    dense = spec.dense_widths()
    return f"{layer.input.at(dense)}→{layer.output.at(dense)}"


def _printable(text: str) -> str:
    """Return the text with every character that XML or a terminal cannot show replaced."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _quoted(text: str) -> str:
    """Return a Graphviz string; only line breaks keep a meaning."""
    lines = (
        _printable(line).replace("\\", "\\\\").replace('"', '\\"') for line in text.split("\n")
    )
    return '"' + "\\n".join(lines) + '"'
