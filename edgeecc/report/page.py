"""What a page of a report is made of: one HTML file with its charts inside, without scripts and without links.

Names come from files that may come from anywhere: every function here escapes what it is given as text, and returns
HTML, which `document` puts together.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Mapping, Sequence, Union

from edgeecc.report.style import STYLE
from edgeecc.report.svg import Chart

#: A page that is opened fetches and runs nothing, whatever is in it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
#: Height of a chart, in units of its view box, above which it gets a box of its own to scroll in.
_TALL = 900.0


class Html(str):
    """Text that is HTML already; other text is escaped."""


#: A cell of a table.
Cell = Union[str, Html]


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and whether it holds numbers or long words."""

    name: str
    kind: str = ""


@dataclass(frozen=True)
class Tile:
    """A figure that stands by itself: what it is, the figure, what it was made of, and who told it."""

    name: str
    big: str
    more: str
    meter: str


def document(title: str, head: Sequence[Html], body: Sequence[Html], foot: str) -> str:
    """Return the text of a page."""
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
            f"<header><h1>{escape(title)}</h1>",
            *head,
            "</header><main>",
            *body,
            f"</main><footer>{escape(foot)}</footer></body></html>\n",
        ]
    )


def section(heading: str, *parts: Html) -> Html:
    """Return a part of the page with its heading; empty parts are left out."""
    return Html(
        "\n".join([f"<section><h2>{escape(heading)}</h2>", *filter(None, parts), "</section>"])
    )


def paragraph(text: str, kind: str = "") -> Html:
    """Return a paragraph; `kind` is a class of the style sheet."""
    return Html(f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>")


def points(texts: Sequence[str]) -> Html:
    """Return a list of sentences; nothing where there is none."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return Html(f"<ul>{items}</ul>" if texts else "")


def verdict(kind: str, words: str, more: Sequence[str]) -> Html:
    """Return the banner: `kind` is good, bad or unsure."""
    below = "".join(f"<p>{escape(text)}</p>" for text in more)
    return Html(f'<div class="verdict {kind}"><strong>{escape(words)}</strong>{below}</div>')


def with_meter(text: str, meter: str) -> Html:
    """Return a figure with its meter below."""
    return Html(f'{escape(text)}<span class="meter">{escape(meter)}</span>')


def colored(kind: str, text: str) -> Html:
    """Return words in the colour of a verdict."""
    return Html(f'<span class="{kind}">{escape(text)}</span>')


def tiles(shown: Sequence[Tile]) -> Html:
    """Return figures side by side."""
    cells = "".join(
        f'<div><dt>{escape(one.name)}</dt><dd class="big">{escape(one.big)}</dd>'
        f'<dd>{escape(one.more)}</dd><dd class="meter">{escape(one.meter)}</dd></div>'
        for one in shown
    )
    return Html(f'<dl class="tiles">{cells}</dl>' if shown else "")


def pairs(rows: Mapping[str, str], what: str) -> Html:
    """Return a table of two columns: names and what they are."""
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in rows.items()
    )
    return _boxed(f"<table><tbody>{body}</tbody></table>", what)


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], what: str) -> Html:
    """Return a table in a box that scrolls by itself; nothing where it has no rows.

    Args:
        columns: the first one names the rows.
        rows: a cell for each column.
        what: the table is, for those who do not see it.
    """
    if not rows:
        return Html("")
    head = "".join(
        f'<th scope="col"{_class(column)}>{escape(column.name)}</th>' for column in columns
    )
    body = "".join(f"<tr>{_cells(columns, row)}</tr>" for row in rows)
    return _boxed(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", what)


def charts(shown: Sequence[Chart]) -> Html:
    """Return charts side by side where there is room; nothing where there is none."""
    return Html(f'<div class="charts">{"".join(map(_figure, shown))}</div>' if shown else "")


def beside(*parts: Html) -> Html:
    """Return parts side by side where there is room; empty ones are left out."""
    return Html(
        f'<div class="beside">{"".join(f"<div>{part}</div>" for part in parts if part)}</div>'
    )


def code(text: str) -> Html:
    """Return commands as they are."""
    return Html(f'<pre tabindex="0"><code>{escape(text)}</code></pre>')


def details(summary: str, inside: Html, *, is_open: bool = False) -> Html:
    """Return what opens and closes on a click; nothing where there is nothing inside."""
    if not inside:
        return Html("")
    mark = " open" if is_open else ""
    return Html(f"<details{mark}><summary>{escape(summary)}</summary>{inside}</details>")


def _figure(chart: Chart) -> str:
    drawing = chart.svg
    if _height(drawing) > _TALL:
        label = escape(f"{chart.title}, scrolls")
        drawing = (
            f'<div class="tall" tabindex="0" role="region" aria-label="{label}">{drawing}</div>'
        )
    return (
        f'<figure class="card" id="{chart.name}"><h3 id="{chart.name}-title">{escape(chart.title)}</h3>'
        f"<p>{escape(chart.words)}</p>{drawing}"
        f'<span id="{chart.name}-alt" hidden>{escape(chart.alt)}</span></figure>'
    )


def _height(svg: str) -> float:
    return float(svg.partition('viewBox="')[2].partition('"')[0].split()[3])


def _boxed(inside: str, what: str) -> Html:
    return Html(
        f'<div class="box" tabindex="0" role="region" aria-label="{escape(what)}">{inside}</div>'
    )


def _cells(columns: Sequence[Column], row: Sequence[Cell]) -> str:
    shown = [cell if isinstance(cell, Html) else escape(cell) for cell in row]
    first = f'<th scope="row">{shown[0]}</th>'
    return first + "".join(
        f"<td{_class(column)}>{cell}</td>" for column, cell in zip(columns[1:], shown[1:])
    )


def _class(column: Column) -> str:
    return f' class="{column.kind}"' if column.kind else ""
