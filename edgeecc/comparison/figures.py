"""The mathematics of a comparison: from one row a run to means, their spread, and the best method of a budget.

A cell of a comparison is one method at one budget with one seed. Everything here is pure.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Literal, Mapping, Optional, Sequence, Tuple

Status = Literal["finished", "failed", "missing"]
Key = Tuple[str, str]


@dataclass(frozen=True)
class Row:
    """What is known of one cell; a cell that did not finish has no figures.

    Args:
        method, budget, seed: which cell; the budget as it was written.
        status: "missing" has not been run to its end.
        error: why it failed.
        outcome: how the solver ended, in its words.
        score: name of the score.
        dense_accuracy, pruned_accuracy, accuracy: score of the dense network, of the masked one before and after
            fine-tuning, on validation data, 0..1.
        judged_score: after fine-tuning, on images that no method sees and that score nothing else; trials have one.
        dense_cost, cost, bound: SI.
        widths: group -> channels kept and dense.
        lr: learning rate.
        steps, finetune_steps: batches.
        seconds: wall time of all processes that worked on it.
        parts: how many these were; after a kill, what came after the last checkpoint was done twice.
        peak_memory_bytes: most resident memory of its process, the interpreter and its libraries included.
        cuda_peak_bytes: most memory allocated on GPUs, 0 where none was used.
        threads: of its process.
        accelerator: that trained, "cpu" or "cuda"; None where that is not known.
    """

    method: str
    budget: str
    seed: int
    status: Status
    error: Optional[str] = None
    outcome: Optional[str] = None
    score: Optional[str] = None
    dense_accuracy: Optional[float] = None
    pruned_accuracy: Optional[float] = None
    accuracy: Optional[float] = None
    judged_score: Optional[float] = None
    dense_cost: Optional[float] = None
    cost: Optional[float] = None
    bound: Optional[float] = None
    meter: Optional[str] = None
    widths: Mapping[str, Sequence[int]] = field(default_factory=dict)
    lr: Optional[float] = None
    steps: Optional[int] = None
    finetune_steps: Optional[int] = None
    seconds: Optional[float] = None
    parts: int = 0
    peak_memory_bytes: Optional[int] = None
    cuda_peak_bytes: Optional[int] = None
    threads: Optional[int] = None
    accelerator: Optional[str] = None


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) of some values; one value has no deviation."""

    mean: float
    deviation: Optional[float]
    count: int


@dataclass(frozen=True)
class Summary:
    """One method at one budget, over its seeds.

    Args:
        method, budget: which.
        asked: seeds asked for; every spread tells how many of them are in it.
        accuracy, pruned_accuracy, dense_accuracy, cost, seconds: None where no cell has finished.
        peak_memory_bytes, cuda_peak_bytes: the largest.
        best: whether its mean accuracy is the highest of its budget, see `best_method`.
    """

    method: str
    budget: str
    asked: int
    accuracy: Optional[Spread] = None
    pruned_accuracy: Optional[Spread] = None
    dense_accuracy: Optional[Spread] = None
    cost: Optional[Spread] = None
    seconds: Optional[Spread] = None
    peak_memory_bytes: Optional[int] = None
    cuda_peak_bytes: Optional[int] = None
    best: bool = False


def spread(values: Sequence[float]) -> Optional[Spread]:
    """Return mean and sample standard deviation, None of no values."""
    if not values:
        return None
    mean, count = statistics.fmean(values), len(values)
    # Not statistics.stdev: in Python 3.8 it fails on a sum of squares that is too small for a float.
    squares = math.fsum((value - mean) ** 2 for value in values)
    return Spread(mean, math.sqrt(squares / (count - 1)) if count > 1 else None, count)


def summaries(rows: Sequence[Row]) -> List[Summary]:
    """Return one summary for each method and budget, in the order in which the rows bring them."""
    cells: Dict[Key, List[Row]] = {}
    for row in rows:
        cells.setdefault((row.method, row.budget), []).append(row)
    winners = {
        budget: best_method({m: _accuracies(own) for (m, b), own in cells.items() if b == budget})
        for budget in {budget for _, budget in cells}
    }
    return [_summary(key, own, winners[key[1]] == key[0]) for key, own in cells.items()]


def best_method(scores: Mapping[str, Sequence[Optional[float]]]) -> Optional[str]:
    """Return the method whose mean is above that of every other, None where no method is shown to be.

    Nobody is best of one, in a tie, or before all cells have finished: a mean over fewer seeds is of another
    sample. It says nothing about significance; the spread does.

    Args:
        scores: method -> its scores over the seeds, None for a cell that has not finished.
    """
    whole: Dict[str, List[float]] = {
        method: [score for score in own if score is not None] for method, own in scores.items()
    }
    if len(whole) < 2 or any(not own or len(own) < len(scores[m]) for m, own in whole.items()):
        return None
    means = {method: statistics.fmean(own) for method, own in whole.items()}
    most = max(means.values())
    leaders = [method for method, mean in means.items() if mean == most]
    return leaders[0] if len(leaders) == 1 else None


def seconds_left(
    finished: Sequence[Tuple[str, float]], waiting: Sequence[str], jobs: int
) -> Optional[float]:
    """Return the wall time that is left, None before a cell has finished.

    A waiting cell is taken to last as long as the finished ones of its method did on average, or as long as any.

    Args:
        finished: method and seconds of each finished cell.
        waiting: method of each cell that has not finished.
        jobs: cells at once.
    """
    if not finished:
        return None
    overall = statistics.fmean(seconds for _, seconds in finished)

    def expected(method: str) -> float:
        own = [seconds for name, seconds in finished if name == method]
        return statistics.fmean(own) if own else overall

    return sum(expected(method) for method in waiting) / max(1, min(jobs, len(waiting)))


def _accuracies(rows: Sequence[Row]) -> List[Optional[float]]:
    return [row.accuracy for row in rows]


def _summary(key: Key, rows: Sequence[Row], best: bool) -> Summary:
    method, budget = key
    memory = [row.peak_memory_bytes for row in rows if row.peak_memory_bytes is not None]
    on_gpus = [row.cuda_peak_bytes for row in rows if row.cuda_peak_bytes is not None]

    def of(figure: Callable[[Row], Optional[float]]) -> Optional[Spread]:
        values = (figure(row) for row in rows if row.status == "finished")
        return spread([value for value in values if value is not None])

    return Summary(
        method=method,
        budget=budget,
        asked=len(rows),
        accuracy=of(lambda row: row.accuracy),
        pruned_accuracy=of(lambda row: row.pruned_accuracy),
        dense_accuracy=of(lambda row: row.dense_accuracy),
        cost=of(lambda row: row.cost),
        seconds=of(lambda row: row.seconds),
        peak_memory_bytes=max(memory, default=None),
        cuda_peak_bytes=max(on_gpus, default=None),
        best=best,
    )
