"""The site of docs/: every page is in it, commands are complete, it is built without a warning and loads nothing."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Dict, List, Set, Tuple
from urllib.parse import unquote, urlsplit

import click
import pytest

from edgeecc.cli.main import cli
from tools.command_pages import MARK, command_text, filled
from tools.docs_site import beside, sections

pytestmark = pytest.mark.device

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
#: Packages that only the site needs.
NEEDED = ("sphinx", "furo", "myst_parser")


def listed(page: Path) -> Set[Path]:
    """Return the pages that a list of pages leads to, further lists of theirs included."""
    text = page.read_text()
    links = [link for _, pages in sections(text) for link in pages]
    if page.name == "README.md":
        links = beside(text)
    found = {(page.parent / f"{link}.md").resolve() for link in links}
    for folder in [path for path in found if path.name == "README.md" and path.parent != ROOT]:
        found |= listed(folder)
    return found


def test_every_page_is_listed_and_there() -> None:
    pages = {path.resolve() for path in DOCS.rglob("*.md")} - {DOCS / "index.md"}
    roots = {ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")}
    assert listed(DOCS / "index.md") == pages | roots


def test_lists_of_pages_are_read_in_order_and_once() -> None:
    text = "# T\n[no](x.md)\n## A\n- [b](b.md), [a](../a.md)\n- [b](b.md#c)\n## B\nnone\n"
    assert sections(text) == [("A", ["b", "../a"])]
    assert beside("[a](a.md) [b](../b.md) [a](a.md)") == ["a"]


# ---- commands


def test_every_command_has_its_place() -> None:
    text = (DOCS / "commands.md").read_text()
    assert MARK.findall(text) == ["edgeecc", *re.findall(r"(?m)^## (\w+)$", text)]
    assert set(MARK.findall(text)) == {"edgeecc", *cli.commands}


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_option_is_on_the_page(name: str) -> None:
    text = command_text(name)
    for parameter in cli.commands[name].params:
        if isinstance(parameter, click.Option):
            assert all(
                f"{option}" in text for option in (*parameter.opts, *parameter.secondary_opts)
            )
        else:
            assert (parameter.metavar or str(parameter.name).upper()).strip("[]") in text
    assert f"edgeecc {name}" in text
    assert "Example" not in text


def test_a_mark_without_a_command_is_a_fault() -> None:
    with pytest.raises(KeyError):
        filled("<!-- options of nothing -->")
    assert "--json" in filled("a\n<!-- options of verify -->\nb")


def test_help_is_no_markup() -> None:
    @click.command()
    @click.option("--a", help="<b> [c](d) *e* `f` $g$ | h_i_j")
    def probe(a: str) -> None:
        """Say it."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cli.commands, "probe", probe)
        text = command_text("probe")
    assert r"- `--a TEXT`: \<b\> \[c\](d) \*e\* \`f\` \$g\$ \| h\_i\_j" in text


# ---- the built site


class Page(HTMLParser):
    """What a page of HTML loads, where it leads, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: List[str] = []
        self.links: List[str] = []
        self.anchors: Set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, object]]) -> None:
        given: Dict[str, object] = dict(attrs)
        self.anchors |= {str(given["id"])} if "id" in given else set()
        if tag == "a" and "href" in given:
            self.links.append(str(given["href"]))
        elif tag == "link" and given.get("rel") not in ("canonical", "next", "prev", "index", "search"):  # fmt: skip
            self.loads.append(str(given["href"]))
        self.loads += [str(given[name]) for name in ("src", "data", "poster") if name in given]


def from_elsewhere(text: str) -> List[str]:
    """Return the addresses that a style sheet or a page loads over the network by its styles."""
    return re.findall(r"(?:@import\s+|url\()[\"']?((?:https?:)?//[^\"')\s;]+)", text)


def test_what_comes_from_elsewhere_would_be_seen() -> None:
    page = Page("<script src='https://a/b.js'></script><link rel='stylesheet' href='//c/d.css'>")
    assert page.loads == ["https://a/b.js", "//c/d.css"]
    style = '@import "https://a"; b{c:url(//d/e.woff2)} f{g:url(h.png)}'
    assert from_elsewhere(style) == ["https://a", "//d/e.woff2"]


@pytest.mark.slow
def test_the_site_is_whole(tmp_path: Path) -> None:
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        pytest.skip("the packages of the site are not here; make docs installs them")
    site = tmp_path / "site"
    places = ["-c", "docs", "-d", str(tmp_path / "cache"), ".", str(site)]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", *places],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    pages = {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    assert len(pages) >= len(list(DOCS.rglob("*.md")))
    for path, page in pages.items():
        assert not [address for address in page.loads if urlsplit(address).netloc], path
        for link in page.links:
            check_link(path, link, pages)
    for path in (*site.rglob("*.css"), *pages):
        assert not from_elsewhere(path.read_text()), path


def check_link(page: Path, link: str, pages: Dict[Path, Page]) -> None:
    """Check that a link of a page leads to a file of the site, and to an anchor of it."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return
    there = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    assert there.is_file(), (page.name, link)
    if parts.fragment and there in pages:
        assert unquote(parts.fragment) in pages[there].anchors, (page.name, link)
