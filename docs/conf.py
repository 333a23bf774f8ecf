"""Settings of the site that `make docs` builds of docs/ and of the pages at the root of the repository."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from edgeecc import __version__  # noqa: E402  # after the path

project = "edgeecc"
copyright = "edgeecc contributors, MIT licence"  # Sphinx's name
version = release = __version__

extensions = ["myst_parser", "tools.docs_site"]
root_doc = "docs/index"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**.md"]
exclude_patterns = [".*", "build", "dist", "runs", "wheels", "shared"]
myst_heading_anchors = 4
pygments_style = "friendly"
pygments_dark_style = "monokai"

html_theme = "furo"
html_title = f"edgeecc {__version__}"
html_copy_source = html_show_sourcelink = html_show_sphinx = False
templates_path = ["_templates"]
html_additional_pages = {"index": "start.html"}
html_use_index = False
