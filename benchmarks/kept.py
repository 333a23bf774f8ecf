"""Finished cells of a comparison and its dense networks, kept in the repository: long tables are run piece by piece.

FOLDER/dense*.safetensors   the dense networks, byte for byte, as cells name them by their hash
FOLDER/cells.jsonl          one line a cell: what was asked, what it took, and what came out
FOLDER/ablation.jsonl       one line a run of `ecc_ablation.py`
FOLDER/settings.jsonl       one line a run of `peer_settings.py`
FOLDER/with/SETTINGS/       cells of `methods.py --set SETTINGS`, by the same dense networks

`edgeecc compare` finds restored cells finished and runs what is missing; it refuses them where anything that a result
depends on is asked for otherwise.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Dict, Iterator, List

from edgeecc.artifacts import read_json, write_bytes, write_json
from edgeecc.comparison.cells import CELL_FILE, CELL_SCHEMA
from edgeecc.comparison.rates import Trial
from edgeecc.run_folder import RESULT_SCHEMA, RUN_SCHEMA

DENSE = "dense*.safetensors"
#: What a table needs of a result.
FIGURES = (
    "status", "score", "dense", "pruned_accuracy", "accuracy", "judged_score", "cost", "budget", "meter", "widths",
    "steps", "finetune_steps",
)  # fmt: skip

Line = Dict[str, Any]


def restore(kept: Path, comparison: Path, data: str) -> None:
    """Bring finished cells back to where a comparison looks for them, where they are not there.

    Args:
        data: as `--data` names it here.
    """
    for line in lines_of(kept / "cells.jsonl"):
        folder = comparison / str(line["folder"])
        if not (folder / "result.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(
                folder / CELL_FILE,
                CELL_SCHEMA,
                {"asked": {**line["asked"], "data": data}, "spent": line["spent"]},
            )
            write_json(
                folder / "run.json",
                RUN_SCHEMA,
                {"request": {"training": line["asked"]["training"]}},
            )
            write_json(folder / "result.json", RESULT_SCHEMA, line["result"])


def keep(comparison: Path, kept: Path, data: str) -> None:
    """Write down the cells of a comparison that have finished since.

    Args:
        data: as `--data` names it, {data} for the folder: where that lies is no part of what was asked, nor is the
            digest of the images, which other decoders of JPEG and PNG may make otherwise.
    """
    lines = {line["folder"]: line for line in lines_of(kept / "cells.jsonl")}
    for line in _finished(comparison):
        asked = {**line["asked"], "data": data}
        asked.pop("data_sha256", None)
        lines.setdefault(line["folder"], {**line, "asked": asked})
    text = "".join(json.dumps(lines[name], sort_keys=True) + "\n" for name in sorted(lines))
    write_bytes(kept / "cells.jsonl", text.encode())


def trials(kept: Path) -> List[Trial]:
    """Return the trials of learning rates that have finished."""
    return [
        Trial(
            method=line["asked"]["method"],
            budget=line["asked"]["budget"],
            lr=line["asked"]["training"]["lr"],
            status="finished",
            judged_score=line["result"]["judged_score"],
            seconds=line["spent"]["seconds"],
            error=None,
        )
        for line in lines_of(kept / "cells.jsonl")
        if line["folder"].startswith("search/")
    ]


def restore_dense(kept: Path, out: Path) -> None:
    """Bring dense networks back, where they are not there."""
    for path in sorted(kept.glob(DENSE)):
        if not (out / path.name).exists():
            out.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / path.name)


def keep_dense(out: Path, kept: Path) -> None:
    """Keep the dense networks that are new."""
    for path in sorted(out.glob(DENSE)):
        if not (kept / path.name).exists():
            write_bytes(kept / path.name, path.read_bytes())


def add(path: Path, line: Line) -> None:
    """Write down and print one line more."""
    text = json.dumps(line)
    with path.open("a") as stream:
        stream.write(text + "\n")
    print(text, flush=True)


def _finished(comparison: Path) -> Iterator[Line]:
    for path in sorted(comparison.glob("*/*/result.json")):
        folder = path.parent
        cell, result = read_json(folder / CELL_FILE, CELL_SCHEMA), read_json(path, RESULT_SCHEMA)
        yield {
            "folder": folder.relative_to(comparison).as_posix(),
            "asked": cell["asked"],
            "spent": cell["spent"],
            "result": {name: result[name] for name in FIGURES},
        }


def lines_of(path: Path) -> List[Line]:
    """Return the lines of a file, none where it is not there."""
    return [json.loads(text) for text in path.read_text().splitlines()] if path.is_file() else []
