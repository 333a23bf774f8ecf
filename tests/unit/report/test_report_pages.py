"""What pages are made of: SVG in the page's own colours, text that is escaped, tables, and contrast in both modes."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.report import page as pages
from edgeecc.report.draw import Axis, Bar, Line, bars, lines, percent, steps
from edgeecc.report.run_tables import with_half
from edgeecc.report.style import DARK, LIGHT, STYLE
from edgeecc.report.svg import STANDS_FOR, Chart, plain
from edgeecc.units import Metric
from tests.report_runs import Page

pytestmark = pytest.mark.device
#: Text and what it stands on, in every mode.
TEXTS = [
    *((name, "page") for name in ("ink", "muted", "good", "bad", "unsure")),
    *((name, "card") for name in ("ink", "muted", "good", "bad", "unsure")),
    *((name, f"{name}-back") for name in ("good", "bad", "unsure")),
    *(("ink", f"{name}-back") for name in ("good", "bad", "unsure")),
]  # fmt: skip
ATTRIBUTES = (
    "lang charset http-equiv content name class scope tabindex role aria-label id hidden viewbox"
)
LINES = ["slim", "one", "two", "three", "four", "bad"]


def contrast(one: str, other: str) -> float:
    """Return the ratio of WCAG 2.1, by its own words."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255.0 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_lines_are_seen_in_both_modes(colours: dict) -> None:
    for text, back in TEXTS:
        assert contrast(colours[text], colours[back]) >= 4.5, (text, back)
    for line in LINES:
        assert contrast(colours[line], colours["card"]) >= 3.0, line
    assert contrast(colours["slim"], colours["dense"]) >= 2.0  # a bar on a bar


def test_every_variable_is_there_in_both_modes() -> None:
    assert list(LIGHT) == list(DARK)
    assert set(STANDS_FOR) <= set(LIGHT)
    used = set(re.findall(r"var\(--([a-z-]+)\)", STYLE))
    assert used <= set(LIGHT)


def drawn(name: str = "chart", label: str = "a <b> & c") -> str:
    pytest.importorskip("matplotlib")
    rows = [Bar(label, 4.0, 2.0, "2 of 4"), Bar("$x^2$", 3.0, 3.0, "3")]
    return bars(name, rows, ("all", "kept"), percent)


def test_a_drawing_takes_everything_from_the_page() -> None:
    svg = drawn()
    root = ET.fromstring(svg)  # noqa: S314  # our own
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert set(root.attrib) == {"viewBox", "role", "aria-labelledby"}
    assert "var(--slim)" in svg
    assert "var(--dense)" in svg
    assert not re.search(r"#[0-9a-f]{6}|font-family|<style|xlink|metadata|http://(?!www\.w3)", svg)
    texts = ["".join(element.itertext()) for element in root.iter() if element.tag.endswith("text")]
    assert {"a <b> & c", "$x^2$", "2 of 4", "kept"} <= set(texts)
    assert svg == drawn()


def test_ids_of_two_drawings_do_not_meet() -> None:
    one, other = drawn("one"), drawn("other")
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for svg, own in zip((one, other), ids):
        targets = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg))
        assert {name for pair in targets for name in pair if name} <= own


def test_lines_keep_their_ends_and_few_points() -> None:
    pytest.importorskip("matplotlib")
    x = range(100_000)
    svg = lines("long", [Line("loss", x, [math.sin(at / 50.0) for at in x])], Axis("step", "loss"))
    assert len(svg) < 300_000
    one = lines("one", [Line("only", [3.0], [1.0])], Axis("step", "loss", mark=(3.0, "here")))
    assert "<use" in one  # a point is seen


def test_a_fall_is_drawn_from_where_it_starts() -> None:
    pytest.importorskip("matplotlib")
    rows = [
        ("kept", 0.0, 0.5, "dense", "50 %"),
        ("gone", 0.5, -0.1, "one", "-60"),
        ("left", 0.0, -0.1, "slim", "-10 %"),
    ]
    svg = steps("fall", rows, "share")
    assert all(text in svg for text in ("50 %", "-60", "-10 %"))


@given(st.text(max_size=300))
def test_names_of_charts_are_short_ascii(name: str) -> None:
    shown = plain(name, 40)
    assert shown.isascii()
    assert shown.isprintable() or not shown
    assert len(shown) <= 40


@given(st.text(max_size=40))
def test_text_is_escaped_everywhere(text: str) -> None:
    columns = [pages.Column("name"), pages.Column(text, "n")]
    chart = Chart("c", text, text, text, '<svg viewBox="0 0 9 9"></svg>')
    body = [
        pages.section(text, pages.paragraph(text), pages.points([text]), pages.code(text)),
        pages.table(columns, [(text, text), (text, pages.colored("good", text))], text),
        pages.pairs({text: text}, text),
        pages.tiles([pages.Tile(text, text, text, text)]),
        pages.charts([chart]),
        pages.details(text, pages.verdict("bad", text, [text])),
        pages.beside(pages.with_meter(text, text)),
    ]  # fmt: skip
    found = Page(pages.document(text, [], body, text))
    known = (
        "html head meta title style body header h1 main section h2 p ul li pre code div table thead tbody tr th td "
        "span dl dt dd figure h3 svg details summary strong footer"
    )
    assert {tag for tag, _ in found.tags} <= set(known.split())
    for _, told in found.tags:
        assert set(told) <= set(ATTRIBUTES.split())


def test_nothing_is_made_of_nothing() -> None:
    assert pages.table([pages.Column("a")], [], "empty") == ""
    assert pages.charts([]) == pages.tiles([]) == pages.points([]) == ""
    assert pages.details("more", pages.Html("")) == ""


@given(st.floats(1e-9, 1e9), st.floats(0.0, 1.0))
def test_a_value_and_its_half_have_one_unit(value: float, share: float) -> None:
    number, sign, half, unit = with_half(value, share * value, Metric.ENERGY).split(" ")
    assert (sign, unit) in (("±", "J"), ("±", "mJ"), ("±", "uJ"))
    if share > 1e-6:
        assert float(half) / float(number) == pytest.approx(share, rel=0.06)
