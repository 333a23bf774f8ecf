"""The guide of docs/compare.md, block by block."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch

from tests.cells_inside import run_inside
from tests.cli_runs import run

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "compare.md").read_text()


def test_the_guide_works_as_written(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(workspace), *sys.path])
    monkeypatch.delitem(sys.modules, "dense", raising=False)
    run_inside(monkeypatch)
    blocks = dict(re.findall(r"```(python|sh)\n(.*?)```", PAGE, flags=re.DOTALL))
    (workspace / "dense.py").write_text(blocks["python"])
    with torch.random.fork_rng():
        runpy.run_path("dense.py", run_name="__main__")
    (command,) = blocks["sh"].splitlines()
    shown = run(*shlex.split(command)[1:]).stdout
    assert "±" in shown
    files = re.findall(r"^\| `([\w.]+)` \|", PAGE, flags=re.MULTILINE)
    assert files[:3] == ["results.json", "results.csv", "table.md"]
    assert all((workspace / "small" / name).is_file() for name in files[:3])
    again = run(*shlex.split(command)[1:]).stdout
    assert again == shown
