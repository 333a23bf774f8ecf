"""Reports in a real browser: at two widths, in light and dark, on paper; skipped where there is no Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

from edgeecc.cost.forms import Form
from edgeecc.report.run_job import run
from edgeecc.run_folder import RunFolder
from tests.chains import chain_spec
from tests.report_runs import engine, exported, made_run, profile_of
from tools.browser import PROGRAMS, Browser, program

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(program() is None, reason=f"no browser here: none of {', '.join(PROGRAMS)}"),
]
#: Faults of a page, as the page itself counts them.
CHARTS = """[...document.querySelectorAll("figure")].map(figure => {
    const box = figure.querySelector("svg").getBoundingClientRect();
    const shapes = [...figure.querySelectorAll("path, use")].filter(one =>
        one.getBoundingClientRect().width + one.getBoundingClientRect().height > 0);
    return [figure.id, box.width, box.height, shapes.length];
})"""
WIDE = """[...document.querySelectorAll("body *")].filter(one =>
    !one.closest(".box, .tall, pre, svg") && one.getBoundingClientRect().right > innerWidth + 1
).map(one => one.outerHTML.slice(0, 90))"""
CUT = """[...document.querySelectorAll("svg")].flatMap(svg => {
    const frame = svg.getBoundingClientRect();
    return [...svg.querySelectorAll("text")].filter(text => {
        const box = text.getBoundingClientRect();
        return box.left < frame.left - 2 || box.right > frame.right + 2 || box.bottom > frame.bottom + 2;
    }).map(text => text.textContent);
})"""
COLOURS = """["body", ".card", ".verdict"].map(name =>
    getComputedStyle(document.querySelector(name)).backgroundColor)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = program()
    assert path is not None
    with Browser(path) as found:
        yield found


def reported(path: Path, widths: list, groups: str) -> Path:
    """Return the page of a run with an engine, of a network of these widths and names."""
    pytest.importorskip("matplotlib")
    spec = chain_spec(widths, groups=groups)
    left = {group.name: 1 + group.width // 2 for group in spec.prunable}
    folder = made_run(path, spec, left, profile=profile_of(spec, Form(linear=True, tile=8), 0.01))
    exported(folder, spec, left, energy_j=0.05)
    engine(folder, "fp16", "somewhere", 0.06)
    run(RunFolder(path), path)
    return path / "report.html"


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reported(tmp_path_factory.mktemp("usual") / "run", [32, 64, 64], "conv")


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a network of many layers whose names have no place to break."""
    return reported(tmp_path_factory.mktemp("deep") / "run", [16] * 110, "features" + "_block" * 20)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("name", ["usual", "deep"])
def test_a_page_shows_all_and_asks_for_nothing(
    browser: Browser, name: str, width: int, dark: bool, request: pytest.FixtureRequest
) -> None:
    browser.open(request.getfixturevalue(name), width, dark=dark)
    charts = browser.evaluate(CHARTS)
    assert [chart[0] for chart in charts] == [
        "widths", "costs-energy", "gap-energy", "loss", "phi", "bounds", "prices", "duals",
    ]  # fmt: skip
    for ident, wide, high, shapes in charts:
        assert wide > 250.0, ident
        assert high > 100.0, ident
        assert shapes > 8, ident
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(WIDE) == []
    assert browser.evaluate(CUT) == []
    assert browser.seen.console == []
    assert browser.seen.requests == []


def test_colours_follow_the_mode(browser: Browser, usual: Path) -> None:
    seen = []
    for dark in (False, True):
        browser.open(usual, 1280, dark=dark)
        seen.append(browser.evaluate(COLOURS))
    assert all(light != dark for light, dark in zip(*seen))


def test_paper_shows_what_scrolls_on_screen(browser: Browser, deep: Path) -> None:
    browser.open(deep, 1280, dark=True, media="print")
    assert (
        browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    )
    scrolls = browser.evaluate(
        "[...document.querySelectorAll('.tall, .box')].map(one => getComputedStyle(one).overflowY)"
    )
    assert set(scrolls) == {"visible"}


def test_a_page_that_does_wrong_is_seen(browser: Browser, tmp_path: Path) -> None:
    """The checks above can fail: a page that is too wide, logs and fetches is found out."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<body><div style='width:2000px'>x</div><img src='http://127.0.0.1:9/x.png'><script>console.log('hi')</script>"
    )
    browser.open(bad, 360)
    assert browser.evaluate(WIDE) != []
    assert any("hi" in message for message in browser.seen.console)
    assert browser.seen.requests == ["http://127.0.0.1:9/x.png"]
