"""The eyes of benchmarks/survival.py: what is half-written or other than it was does not escape them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeecc.artifacts import load_json, write_json, write_tensors
from tests.cli_runs import run
from tests.fleets import graph_folder

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.device


@pytest.fixture(scope="module")
def visible() -> Any:
    spec = importlib.util.spec_from_file_location("visible", ROOT / "benchmarks/visible.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["visible"] = module
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


@pytest.fixture
def workspace_there(tmp_path: Path) -> Path:
    """Return a folder with a file of every kind."""
    graph = graph_folder(tmp_path / "graph")
    run("calibrate", "--graph", graph, "--samples", "40", "--workspace", tmp_path)
    write_tensors(tmp_path / "w.safetensors", {"w": np.arange(9.0)}, {"done": "3"})
    return tmp_path


def test_whole_files_are_fine_and_read_once(visible: Any, workspace_there: Path) -> None:
    scanner = visible.Scanner(workspace_there)
    (workspace_there / ".x.json.tmp").write_text("{")
    scanner.look()
    assert scanner.faults == []
    count = scanner.read
    assert count == 7
    scanner.look()
    assert scanner.read == count
    assert visible.hidden(workspace_there) == [".x.json.tmp"]


@pytest.mark.parametrize(
    "name",
    ["w.safetensors", "graph/spec.json", "graph/dense.onnx", "calibration/virtual-tx2/small/samples.db",
     "calibration/virtual-tx2/small/profile.json", "calibration/virtual-tx2/small/PROTOCOL.md"],
)  # fmt: skip
def test_half_a_file_is_seen(visible: Any, workspace_there: Path, name: str) -> None:
    scanner = visible.Scanner(workspace_there)
    path = workspace_there / name
    whole = visible.content(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    scanner.look()
    assert [fault.partition(":")[0] for fault in scanner.faults] == [name]
    path.write_bytes(data)
    assert visible.content(path) == whole


def test_only_times_may_differ(visible: Any, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    contents = []
    for seconds, widths in ((1.0, [3, 4]), (2.0, [3, 4]), (2.0, [3, 5])):
        write_json(path, "edgeecc/result/1", {"seconds": seconds, "in": [{"widths": widths}]})
        contents.append(visible.content(path))
    assert contents[0] == contents[1] != contents[2]
    assert "seconds" in load_json(path)
    (tmp_path / "what.bin").write_bytes(b"?")
    scanner = visible.Scanner(tmp_path)
    scanner.look()
    assert scanner.faults == ["what.bin: '.bin'"]
