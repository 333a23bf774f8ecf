"""Compare pruning methods on one network and data set: equal batches, held-out images, distillation, fine-tuning.

OUT/cells/METHOD-BUDGET-SEED   the run folder of each cell; finished ones are never run again
OUT/search/METHOD-BUDGET-RATE  the trials of a search of learning rates
OUT/profile.json               the cost model that prices all of them
OUT/search.json                seed and budgets of the search
OUT/results.json, results.csv, table.md, accuracy_vs_cost.svg
"""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Dict, List, Optional, Sequence, Tuple

from edgeecc.artifacts import exclusive
from edgeecc.comparison.cells import Cell, check_same, read_spent, row_of
from edgeecc.comparison.figures import Row, seconds_left
from edgeecc.comparison.files import Findings, write_findings
from edgeecc.comparison.plan import Ground, Planner, survey
from edgeecc.comparison.processes import run_cells
from edgeecc.comparison.rates import Rates, Trial, at_the_edge, chosen_rates, search_json, trial_of
from edgeecc.comparison.request import CompareRequest
from edgeecc.comparison.settled import keep_price, keep_search
from edgeecc.progress import OnProgress, Progress, silent

logger = logging.getLogger(__name__)


def compare(request: CompareRequest, on_progress: OnProgress = silent) -> Dict[str, object]:
    """Run the cells that have not finished, and write the results.

    A cell that fails is a row with its error; the others go on. The same request again runs only what has not
    finished, one with more methods, budgets or seeds what is new.

    Returns: what results.json holds.
    Raises: ArtifactError when a cell of the folder was made with other settings or another price, before any of them
        runs, but after the trials of a search, which chooses one of their settings; any EdgeeccError by which every
        cell would fail.
    """
    ground = survey(request)
    out = ground.out
    with exclusive(out, "wait for it or choose another with --out"):
        profile = keep_price(ground.price.profile, out)
        if request.search is not None:
            search = keep_search(request.search, request.budgets, request.seeds, out)
            request = replace(request, search=search)
        planner = Planner(request, ground, profile)
        runner = _Runner(request, on_progress)
        rates, trials = _rates(request, planner, runner, out)
        cells = planner.cells(out / "cells", rates)
        try:
            runner.run(cells)
        except KeyboardInterrupt:
            write_findings(_findings(request, ground, out, cells=cells, rates=rates, trials=trials))
            raise
        return write_findings(
            _findings(request, ground, out, cells=cells, rates=rates, trials=trials)
        )


class _Runner:
    """Runs cells that have not finished, and tells how far they are.

    Args:
        request: the comparison.
        on_progress: see `compare`.
    """

    def __init__(self, request: CompareRequest, on_progress: OnProgress) -> None:
        search = request.search
        trials = 0 if search is None else search.each * len(search.budgets_of(request.budgets))
        each = len(request.budgets) * len(request.seeds)
        self._request, self._on_progress = request, on_progress
        self._total = len(request.methods) * (trials + each)
        self._ended: List[str] = []
        self._took: List[Tuple[str, float]] = []
        self._end_s: Optional[float] = None

    def run(self, cells: Sequence[Cell]) -> None:
        """Run what has not finished.

        Raises: before any runs, ArtifactError when one of the cells was made with other settings; what `Cell.placed`
            raises where this machine lacks what is to train.
        """
        for cell in cells:
            check_same(cell, searched=self._request.search is not None)
        for cell in cells:
            if cell.is_finished():
                self._count(cell)
        waiting = [cell.placed() for cell in cells if not cell.is_finished()]
        run_cells(waiting, self._request.jobs, self._move, self._hear)

    def _move(self, cell: Cell, ended: bool) -> None:
        if ended:
            self._count(cell)
        left = seconds_left(self._took, self._waiting(), self._request.jobs)
        self._end_s = None if left is None else perf_counter() + left
        self._tell(Progress(""), f"{cell.name} {'ended' if ended else 'runs'}")

    def _hear(self, cell: Cell, word: Progress) -> None:
        count = f" {word.done}/{word.total}" if word.total else ""
        self._tell(word, f"{cell.name}: {word.phase}{count}")

    def _tell(self, word: Progress, note: str) -> None:
        """Tell how far the comparison is, with the figures of the cell that spoke last."""
        left = None if self._end_s is None else max(0.0, self._end_s - perf_counter())
        done = len(self._ended)
        self._on_progress(
            replace(
                word,
                phase="comparing",
                done=done,
                total=self._total,
                unit="cells",
                left_s=left,
                note=note,
            )
        )

    def _count(self, cell: Cell) -> None:
        self._ended.append(cell.method)
        if cell.is_finished():
            self._took.append((cell.method, read_spent(cell.folder).seconds))

    def _waiting(self) -> List[str]:
        """Return the method of each cell that has not ended."""
        each = self._total // len(self._request.methods)
        return [
            name
            for name in self._request.methods
            for _ in range(max(0, each - self._ended.count(name)))
        ]


def _rates(
    request: CompareRequest, planner: Planner, runner: _Runner, out: Path
) -> Tuple[Rates, List[Trial]]:
    """Return the learning rates, searched for where that is asked, and the trials of the search."""
    if request.search is None:
        return planner.rates(), []
    folder = out / "search"
    pairs = planner.trials(folder, request.search)
    trials = _tried(runner, pairs)
    for _ in range(request.search.refine):
        trials += _tried(runner, planner.further(folder, request.search, trials))
    chosen = chosen_rates(trials)
    for name in at_the_edge(trials, chosen):
        logger.warning(
            "the rate of %s is at the edge of --search-lr: a wider list may hold a better one", name
        )
    return planner.searched(chosen, request.search), trials


def _tried(runner: _Runner, pairs: Sequence[Tuple[Cell, float]]) -> List[Trial]:
    """Run the trials that have not finished; return what all came to."""
    runner.run([cell for cell, _ in pairs])
    return [trial_of(row_of(cell), rate) for cell, rate in pairs]


def _findings(  # keyword-only, what the cells came from
    request: CompareRequest, ground: Ground, out: Path, *, cells: Sequence[Cell], rates: Rates,
    trials: Sequence[Trial],
) -> Findings:  # fmt: skip
    known = {(cell.method, cell.budget, cell.seed): row_of(cell) for cell in cells}
    rows = [
        known.get((name, budget.text, seed)) or _without_rate(name, budget.text, seed)
        for name in request.methods
        for budget in request.budgets
        for seed in request.seeds
    ]
    metric = request.budgets[0].metric
    head = {
        "out": str(out),
        "network": ground.source.reference,
        "data": request.template.data,
        "methods": list(request.methods),
        "budgets": [
            {"text": budget.text, "value": budget.resolve(ground.dense_cost)}
            for budget in request.budgets
        ],
        "seeds": list(request.seeds),
        "weights": str(request.template.weights),
        "task": ground.task,
        "metric": metric.value,
        "unit": metric.unit,
        "meter": ground.price.cost.meter,
        "device": ground.price.device,
        "margin": ground.price.margin,
        "dense_cost": ground.dense_cost,
        "equal": {
            "steps": ground.steps + ground.finetune_steps,
            "training_images": ground.images - ground.held_out,
            "held_out_images": ground.held_out,
            "validation_images_apart": request.template.pruning.val_apart,
            **{key: value for key, value in asdict(ground.training).items() if key not in ("lr", "seed")},
        },
        "rates": dict(rates),
        "settings": {name: list(texts) for name, texts in request.settings.items()},
        "jobs": request.jobs,
        "search": _search(request, ground, trials),
    }  # fmt: skip
    return Findings(out, head, rows, metric, ground.dense_cost)


def _search(
    request: CompareRequest, ground: Ground, trials: Sequence[Trial]
) -> Optional[Dict[str, object]]:
    search = request.search
    if search is None:
        return None
    return search_json(
        search,
        trials,
        budgets=search.budgets_of(request.budgets),
        seed=search.seed_of(request.seeds),
        judged=request.template.pruning.val_apart or search.judged_of(ground.images),
        judged_on="validation" if request.template.pruning.val_apart else "training",
    )


def _without_rate(name: str, budget: str, seed: int) -> Row:
    return Row(name, budget, seed, "failed", error="no rate of --search-lr could be trained with")
