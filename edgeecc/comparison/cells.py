"""The cells of a comparison: one pruning run each, in a folder that tells what was asked and what it took.

cell.json in the run folder holds the resolved request, the wall time of every process that worked on the cell,
its peak memory, and why it failed. A cell is finished when its run has a result.json.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Dict, Mapping, Optional, cast

from edgeecc.artifacts import read_json, write_json
from edgeecc.comparison.figures import Row, Status
from edgeecc.config import Accelerator
from edgeecc.errors import ArtifactError, cause_of
from edgeecc.report.fields import Fields
from edgeecc.run_folder import RESULT_SCHEMA, RUN_SCHEMA, RunFolder, differing, leaves
from edgeecc.run_request import PruneRequest
from edgeecc.training.compute import compute_of

CELL_SCHEMA = "edgeecc/cell/1"
CELL_FILE = "cell.json"
#: What cells of earlier versions do not tell: they are believed where None stands, and else were made with this.
LATER: Mapping[str, object] = {
    "data_sha256": None,
    "price.half_cost": None,
    "price.thin_cost": None,
    "settings.carry": False,
    "settings.course": "load",
    "settings.pace": 0,
}
_RATE = "training.lr"


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
    try:
        spent = Fields.read(folder.file(CELL_FILE), CELL_SCHEMA).under("spent")
        return Spent(
            seconds=spent.number("seconds"),
            parts=int(spent.number("parts")),
            peak_memory_bytes=int(spent.number("peak_memory_bytes")),
            cuda_peak_bytes=int(spent.number("cuda_peak_bytes")),
            threads=int(spent.number("threads")),
            accelerator=spent.text("accelerator") if spent.has("accelerator") else None,
            error=spent.text("error") if spent.has("error") else None,
        )
    except ArtifactError as error:
        raise _to_remove(error) from error


def write_spent(folder: RunFolder, asked: Mapping[str, object], spent: Spent) -> None:
    """Write cell.json."""
    body = {"asked": dict(asked), "spent": asdict(spent)}
    write_json(folder.file(CELL_FILE), CELL_SCHEMA, body)


def json_ready(asked: Mapping[str, object]) -> Dict[str, object]:
    """Return a mapping as JSON gives it back: tuples as lists, keys as texts."""
    return cast("Dict[str, object]", json.loads(json.dumps(asked)))


def check_same(cell: Cell, *, searched: bool = False) -> None:
    """Refuse a cell whose folder holds a run that was asked for otherwise: a comparison never mixes settings.

    Args:
        searched: whether a search chose its learning rate.

    Raises: ArtifactError naming what differs.
    """
    folder = cell.folder
    if not folder.has(CELL_FILE):
        if folder.has("run.json"):
            raise ArtifactError(
                f"{folder.path} holds a run of its own, not a cell; give another --out"
            )
        return
    document = read_json(folder.file(CELL_FILE), CELL_SCHEMA).get("asked")
    found = leaves(document if isinstance(document, dict) else {})
    asked = {
        name: value
        for name, value in leaves(cell.asked).items()
        if name in found or name not in LATER or LATER[name] not in (None, value)
    }
    told = differing(found, asked)
    if not told:
        return
    if searched and not differing({**found, _RATE: None}, {**asked, _RATE: None}):
        raise ArtifactError(
            f"{folder.path} was made with {told}, and the search now chooses another rate; remove the folder to run "
            "it again, or give the former --search-lr, --search-budget and --search-refine"
        )
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
    try:
        result = Fields.read(cell.folder.file("result.json"), RESULT_SCHEMA)
        run = Fields.read(cell.folder.file("run.json"), RUN_SCHEMA)
        return _row(cell, result, run, spent)
    except ArtifactError as error:
        raise _to_remove(error) from error


def _to_remove(error: ArtifactError) -> ArtifactError:
    """Return the error of a file of a cell with what to do about it."""
    return ArtifactError(f"{cause_of(error)}; remove its folder to run the cell again")


def _row(cell: Cell, result: Fields, run: Fields, spent: Spent) -> Row:
    dense, widths = result.under("dense"), result.under("widths")
    return Row(
        cell.method,
        cell.budget,
        cell.seed,
        "finished",
        outcome=result.text("status"),
        score=result.text("score"),
        dense_accuracy=dense.number("accuracy"),
        pruned_accuracy=result.number("pruned_accuracy"),
        accuracy=result.number("accuracy"),
        judged_score=result.maybe("judged_score"),
        dense_cost=dense.number("cost"),
        cost=result.number("cost"),
        bound=result.under("budget").number("value"),
        meter=result.text("meter"),
        widths={name: [int(width) for width in widths.numbers(name)] for name in widths.data},
        lr=run.under("request").under("training").number("lr"),
        steps=int(result.number("steps")),
        finetune_steps=int(result.number("finetune_steps")),
        seconds=spent.seconds,
        parts=spent.parts,
        peak_memory_bytes=spent.peak_memory_bytes,
        cuda_peak_bytes=spent.cuda_peak_bytes,
        threads=spent.threads,
        accelerator=spent.accelerator,
    )
