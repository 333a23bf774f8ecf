"""The guide of docs/own_model.md, block by block: what it says is done, and its drawing is the one that is drawn."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch

from tests.cli_runs import run

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCKS = re.findall(
    r"```(python|sh)\n(.*?)```", (DOCS / "own_model.md").read_text(), flags=re.DOTALL
)


def test_the_guide_works_as_written(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(workspace), *sys.path])
    monkeypatch.delitem(sys.modules, "tiny", raising=False)
    scripts = [text for kind, text in BLOCKS if kind == "python"]
    for name, text in zip(("tiny.py", "train.py"), scripts):
        (workspace / name).write_text(text)
    with torch.random.fork_rng():
        runpy.run_path("train.py")
    commands = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if line]
    assert len(commands) >= 8
    for command in commands:
        run(*shlex.split(command)[1:])
        if command.startswith("edgeecc prune"):
            (workspace / "tiny.pt2").unlink()  # from here on the run stands alone
    assert (workspace / "groups.svg").read_text() == (DOCS / "own_model.svg").read_text()
    assert (workspace / "groups.dot").read_text().startswith("digraph")
    assert (workspace / "runs" / "tiny-ecc-60pct" / "slim.onnx").is_file()
