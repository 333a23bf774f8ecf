"""Fleets of boards for tests: the small network's folder, and a fleet file whose boards are `tests/board.py`."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any, Dict, List

from edgeecc.artifacts import write_bytes, write_json
from edgeecc.fleet.board_process import Order
from edgeecc.fleet.boards import Board
from edgeecc.run_folder import SPEC_SCHEMA
from tests.unit.test_calibrate import small_network

ROOT = Path(__file__).resolve().parents[1]
KIND = "virtual:tx2"


def graph_folder(folder: Path) -> Path:
    """Write spec.json and dense.onnx of the small network."""
    spec, model = small_network()
    write_json(folder / "spec.json", SPEC_SCHEMA, {"spec": spec.to_json()})
    write_bytes(folder / "dense.onnx", model.SerializeToString())
    return folder


def command(**faults: Any) -> List[str]:
    return [sys.executable, str(ROOT / "tests" / "board.py"), json.dumps(faults)]


def board(name: str = "a", **faults: Any) -> Board:
    return Board(name, KIND, command=tuple(command(**faults)), env=(("PYTHONPATH", str(ROOT)),))


def order(graph: Path, **changes: Any) -> Order:
    spec, _ = small_network()
    fields = {"device": KIND, "fingerprint": spec.fingerprint(), "graph": str(graph), "seed": 0,
              "tolerance": 0.02, "window_s": 1.0, "start_s": 60.0, "sample_s": 60.0}  # fmt: skip
    return Order(**{**fields, **changes})


def fleet_file(path: Path, boards: Dict[str, Dict[str, Any]], **settings: Any) -> Path:
    """Write a fleet file of boards with their faults."""
    lines = ["[fleet]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items())]
    for name, faults in boards.items():
        lines += ["[[board]]", f"name = {json.dumps(name)}", f'kind = "{KIND}"']
        lines += [f"command = {json.dumps(command(**faults))}"]
        lines += [f"env = {{PYTHONPATH = {json.dumps(str(ROOT))}}}"]
    path.write_text("\n".join(lines) + "\n")
    return path


def stored(workspace: Path, what: str = "number, widths, value, standard_error") -> List[Any]:
    """Return columns of the samples of the small network, by number."""
    path = workspace / "calibration" / KIND.replace(":", "-") / "small" / "samples.db"
    with sqlite3.connect(path) as db:
        return db.execute(f"SELECT {what} FROM samples ORDER BY number").fetchall()  # noqa: S608
