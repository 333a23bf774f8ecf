"""A Sphinx extension that reads the pages of docs/ as GitHub shows them.

Tables of contents are the lists of links of docs/index.md and of the README.md of each folder, so that no page needs
directives. docs/commands.md gets the text of its commands from click while the site is built.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Tuple

from tools.command_pages import filled

#: The page of commands, as Sphinx names it.
COMMANDS = "docs/commands"
#: The page whose headings are the site's.
INDEX = "docs/index"
_HEADING = re.compile(r"^## (.+)$", flags=re.MULTILINE)
_LINK = re.compile(r"\]\(([\w./-]+)\.md\)")


def setup(app: Any) -> Dict[str, object]:  # sphinx.application.Sphinx
    """Take part in the reading of pages."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}


def _read(_: Any, name: str, source: List[str]) -> None:
    if name == COMMANDS:
        source[0] = filled(source[0])
    elif name == INDEX:
        source[0] += "".join(_toctree(*section) for section in sections(source[0]))
    elif name.startswith("docs/") and name.endswith("/README"):
        source[0] += _toctree("", beside(source[0]))


def sections(text: str) -> List[Tuple[str, List[str]]]:
    """Return the headings of an index and the pages that are linked below each, where there are any."""
    _, *parts = _HEADING.split(text)
    found = [(head, _once(_LINK.findall(body))) for head, body in zip(parts[::2], parts[1::2])]
    return [(head, pages) for head, pages in found if pages]


def beside(text: str) -> List[str]:
    """Return the pages of the same folder that a page links to."""
    return _once([page for page in _LINK.findall(text) if "/" not in page])


def _once(pages: List[str]) -> List[str]:
    return list(dict.fromkeys(pages))


def _toctree(caption: str, pages: List[str]) -> str:
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n\n" + "\n".join(["```{toctree}", *options, "", *pages, "```"]) + "\n"
