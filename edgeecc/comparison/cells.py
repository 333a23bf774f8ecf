"""The cells of a comparison: one pruning run each, in a folder that tells what was asked and what it took.

cell.json in the run folder holds the resolved request, the wall time of every process that worked on the cell,
its peak memory, and why it failed. A cell is finished when its run has a result.json.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Dict, List, Mapping, Optional, cast

from edgeecc.artifacts import read_json, write_json
from edgeecc.comparison.figures import Row, Status
from edgeecc.config import Accelerator
from edgeecc.errors import ArtifactError
from edgeecc.run_folder import RESULT_SCHEMA, RUN_SCHEMA, RunFolder, differing
from edgeecc.run_request import PruneRequest
from edgeecc.training.compute import compute_of

CELL_SCHEMA = "edgeecc/cell/1"
CELL_FILE = "cell.json"


@dataclass(frozen=True)
class Cell:
    """One method at one budget with one seed.

    Args:
        request: of its pruning run, with its run folder.
        asked: everything that its result depends on, JSON-ready.
    """

    request: PruneRequest
    asked: Mapping[str, object]

    @property
    def method(self) -> str:
        """The pruning method."""
        return self.request.pruning.method

    @property
    def budget(self) -> str:
        """The budget as it was written."""
        return self.request.budgets[0].text

    @property
    def seed(self) -> int:
        """Seed of the batch order, and of the dense network where there is one for each seed."""
        return self.request.training.seed

    @property
    def folder(self) -> RunFolder:
        """The run folder."""
        assert self.request.run is not None  # noqa: S101  # cells are made with one
        return RunFolder(self.request.run)

    @property
    def name(self) -> str:
        """How progress and tables call it."""
        return f"{self.method} {self.budget} seed {self.seed}"

    def is_finished(self) -> bool:
        """Return whether the run came to its end."""
        return self.folder.has("result.json")

    def placed(self) -> Cell:
        """Return the cell with the accelerator that trains it on this machine in place of "auto".

        Raises: RuntimeUnavailableError without the GPU that is asked for; ConfigError for a precision that the
            accelerator does not have.
        """
        compute = self.request.compute
        found = cast("Accelerator", compute_of(compute).device.type)
        request = replace(self.request, compute=replace(compute, accelerator=found))
        return replace(self, request=request)


@dataclass(frozen=True)
class Spent:
    """What a cell took so far.

    Args:
        seconds: wall time of its processes, each from its start to its last sign of life.
        parts: how many processes worked on it.
        peak_memory_bytes, cuda_peak_bytes: the most of any of them.
        threads: of the last.
        accelerator: of the last, "cpu" or "cuda"; None where an earlier version ran it, which did not tell.
        error: why the last one failed.
    """

    seconds: float = 0.0
    parts: int = 0
    peak_memory_bytes: int = 0
    cuda_peak_bytes: int = 0
    threads: int = 0
    accelerator: Optional[str] = None
    error: Optional[str] = None


def read_spent(folder: RunFolder) -> Spent:
    """Return what a cell took so far; nothing where it has not begun.

    Raises: ArtifactError when cell.json is damaged.
    """
    if not folder.has(CELL_FILE):
        return Spent()
    found = read_json(folder.file(CELL_FILE), CELL_SCHEMA).get("spent")
    try:
        return Spent(**cast("Dict[str, Any]", found))
    except TypeError as error:
        raise ArtifactError(
            f"{folder.file(CELL_FILE)} is damaged: no times; remove the folder to run the cell again"
        ) from error


def write_spent(folder: RunFolder, asked: Mapping[str, object], spent: Spent) -> None:
    """Write cell.json."""
    body = {"asked": dict(asked), "spent": asdict(spent)}
    write_json(folder.file(CELL_FILE), CELL_SCHEMA, body)


def json_ready(asked: Mapping[str, object]) -> Dict[str, object]:
    """Return a mapping as JSON gives it back: tuples as lists, keys as texts."""
    return cast("Dict[str, object]", json.loads(json.dumps(asked)))


def check_same(cell: Cell) -> None:
    """Refuse a cell whose folder holds a run that was asked for otherwise: a comparison never mixes settings.

    Raises: ArtifactError naming what differs.
    """
    folder = cell.folder
    if not folder.has(CELL_FILE):
        if folder.has("run.json"):
            raise ArtifactError(
                f"{folder.path} holds a run of its own, not a cell; give another --out"
            )
        return
    found = read_json(folder.file(CELL_FILE), CELL_SCHEMA).get("asked")
    told = differing(found if isinstance(found, dict) else {}, cell.asked)
    if told:
        raise ArtifactError(
            f"{folder.path} was made with {told}; one comparison has one set of settings: give the former ones, or "
            "another --out"
        )


def row_of(cell: Cell) -> Row:
    """Return the figures of a cell.

    Raises: ArtifactError when a file of it is damaged.
    """
    spent = read_spent(cell.folder)
    if not cell.is_finished():
        status: Status = "missing" if spent.error is None else "failed"
        return Row(cell.method, cell.budget, cell.seed, status, error=spent.error)
    result = read_json(cell.folder.file("result.json"), RESULT_SCHEMA)
    run = read_json(cell.folder.file("run.json"), RUN_SCHEMA)
    try:
        return _row(cell, result, run, spent)
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"{cell.folder.path} is damaged: its result lacks {error}; remove the folder to run the cell again"
        ) from error


def _row(
    cell: Cell, result: Mapping[str, object], run: Mapping[str, object], spent: Spent
) -> Row:  # fmt: skip
    document = cast("Dict[str, Dict[str, float]]", result)
    request = cast("Dict[str, Dict[str, float]]", run["request"])
    figures = cast("Dict[str, float]", result)
    return Row(
        cell.method,
        cell.budget,
        cell.seed,
        "finished",
        outcome=str(result["status"]),
        score=str(result["score"]),
        dense_accuracy=document["dense"]["accuracy"],
        pruned_accuracy=figures["pruned_accuracy"],
        accuracy=figures["accuracy"],
        judged_score=figures["judged_score"],
        dense_cost=document["dense"]["cost"],
        cost=figures["cost"],
        bound=document["budget"]["value"],
        meter=str(result["meter"]),
        widths=cast("Dict[str, List[int]]", result["widths"]),
        lr=request["training"]["lr"],
        steps=int(figures["steps"]),
        finetune_steps=int(figures["finetune_steps"]),
        seconds=spent.seconds,
        parts=spent.parts,
        peak_memory_bytes=spent.peak_memory_bytes,
        cuda_peak_bytes=spent.cuda_peak_bytes,
        threads=spent.threads,
        accelerator=spent.accelerator,
    )
