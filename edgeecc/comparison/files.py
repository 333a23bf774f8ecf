"""The results of a comparison as files: JSON and CSV for programs, a table and a chart for people."""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, cast

from edgeecc.artifacts import write_bytes, write_json
from edgeecc.comparison.figures import Row, Spread, Summary, summaries
from edgeecc.comparison.leads import leads
from edgeecc.comparison.plots import Chart, Point, draw
from edgeecc.comparison.text import accuracy_table, cost_table, csv_text, lead_table, markdown
from edgeecc.errors import RuntimeUnavailableError
from edgeecc.units import UNITS, Metric, format_quantity

logger = logging.getLogger(__name__)

COMPARE_SCHEMA = "edgeecc/compare/1"
RESULTS, TABLE, CELLS, PLOT = "results.json", "table.md", "results.csv", "accuracy_vs_cost.svg"

Lines = List[Tuple[str, ...]]


@dataclass(frozen=True)
class Findings:
    """What a comparison came to.

    Args:
        out: its folder.
        head: what was compared and what was equal, JSON-ready.
        rows: one a cell.
        metric: of the budgets.
        dense_cost: SI.
    """

    out: Path
    head: Mapping[str, object]
    rows: Sequence[Row]
    metric: Metric
    dense_cost: float

    @property
    def score(self) -> str:
        """The name of the score that decides, as the cells tell it."""
        return next((row.score for row in self.rows if row.score is not None), "score")

    def word(self, name: str) -> str:
        """Return a text of the head."""
        return str(self.head[name])


def write_findings(findings: Findings) -> Dict[str, object]:
    """Write results.json, results.csv, table.md and, where matplotlib is here, the chart; return the first.

    Raises: ArtifactError when the folder cannot be written.
    """
    means = summaries(findings.rows)
    counts = Counter(row.status for row in findings.rows)
    files = [CELLS, TABLE, *_drawn(findings, means)]
    document = {
        **findings.head,
        "score": findings.score,
        "status": {status: counts[status] for status in ("finished", "failed", "missing")},
        "summary": [asdict(one) for one in means],
        "leads": [asdict(one) for one in leads(findings.rows)],
        "cells": [asdict(row) for row in findings.rows],
        "files": [RESULTS, *files],
    }
    write_bytes(findings.out / CELLS, csv_text(findings.rows).encode())
    write_bytes(findings.out / TABLE, page(findings, means).encode())
    write_json(findings.out / RESULTS, COMPARE_SCHEMA, document)
    return document


def as_tables(document: Mapping[str, object]) -> Tuple[Lines, Lines, Lines]:
    """Return the tables of accuracy, leads (maybe none) and cost of what `write_findings` returned, heads first."""
    rows = [Row(**row) for row in cast("List[Dict[str, Any]]", document["cells"])]
    means = summaries(rows)
    return (
        accuracy_table(means, bold=""),
        lead_table(means, leads(rows)),
        cost_table(means, Metric(document["metric"])),
    )


def page(findings: Findings, means: Sequence[Summary]) -> str:
    """Return table.md."""
    word = findings.word
    equal = cast("Dict[str, object]", findings.head["equal"])
    seeds = ", ".join(str(seed) for seed in cast("List[int]", findings.head["seeds"]))
    parts = [
        f"# {word('network')} on {word('data')}\n",
        f"{findings.score} on validation data, mean ± sample standard deviation over seeds {seeds}. Bold is the "
        "highest mean of a budget whose cells have all finished.\n",
        markdown(accuracy_table(means)),
        _behind(lead_table(means, leads(findings.rows))),
        f"Each cell trained {equal['steps']} batches of {equal['batch_size']}, pruning and fine-tuning together; "
        f"{equal['held_out_images']} training images were held out of all of them. {_apart(equal)}Dense: "
        f"{format_quantity(findings.dense_cost, findings.metric)}. Costs: {word('meter')}.\n",
        markdown(cost_table(means, findings.metric)),
        "".join(_notes(findings)),
    ]
    return "\n".join(part for part in parts if part)


def _apart(equal: Mapping[str, object]) -> str:
    count = equal.get("validation_images_apart", 0)
    return f"{count} validation images judged trials and score no cell here. " if count else ""


def chart(findings: Findings, means: Sequence[Summary]) -> Optional[Chart]:
    """Return accuracy against cost, one line a method; None where nothing has finished."""
    unit, factor = _scale(findings.dense_cost, findings.metric)
    lines: Dict[str, Tuple[Point, ...]] = {}
    dense: Optional[Point] = None
    for one in means:
        if one.accuracy is None or one.cost is None:
            continue
        point = Point(
            one.cost.mean / factor,
            one.accuracy.mean,
            one.accuracy.deviation,
            _level_bar(one.cost, factor),
        )
        lines[one.method] = tuple(
            sorted((*lines.get(one.method, ()), point), key=lambda point: point.x)
        )
        if one.dense_accuracy is not None and (dense is None or one.dense_accuracy.count > 1):
            own = one.dense_accuracy
            dense = Point(findings.dense_cost / factor, own.mean, own.deviation)
    if not lines:
        return None
    word = findings.word
    return Chart(
        title=f"{word('network')} on {word('data')}",
        x_label=f"{word('metric')}, {unit} ({word('meter')})",
        y_label=f"{findings.score}, mean ± sample standard deviation",
        lines=lines,
        dense=dense,
    )


def _level_bar(cost: Spread, factor: float) -> Optional[float]:
    """Return half the length of the bar for the spread of a cost, None where all seeds cost the same."""
    if cost.deviation is None or math.isclose(cost.mean + cost.deviation, cost.mean):
        return None  # the mean of equal costs may be off by a rounding
    return cost.deviation / factor


def _behind(lines: Lines) -> str:
    """Return the table of leads with how to read it, nothing of no lines."""
    if not lines:
        return ""
    return (
        "By how much the best mean of a budget leads, seed by seed: hundredths of the score, mean ± its standard "
        "error, and in how many seeds it is above. A lead of less than two or three errors may be chance.\n\n"
        + markdown(lines)
    )


def _drawn(findings: Findings, means: Sequence[Summary]) -> List[str]:
    """Draw the chart where that can be done; return its file's name."""
    wanted = chart(findings, means)
    if wanted is None:
        return []
    try:
        draw(wanted, findings.out / PLOT)
    except RuntimeUnavailableError as error:
        logger.warning("%s", error)
        return []
    return [PLOT]


def _notes(findings: Findings) -> List[str]:
    """Return what a reader of the tables must know beside."""
    notes = [
        f"- {row.method} {row.budget} seed {row.seed} {row.status}: {row.error or 'not run to its end'}\n"
        for row in findings.rows
        if row.status != "finished"
    ]
    again = sum(row.parts > 1 for row in findings.rows)
    if again:
        notes.append(
            f"- {again} cells were interrupted: their seconds hold what was done twice after the last checkpoint\n"
        )
    accelerators = sorted({row.accelerator for row in findings.rows if row.accelerator is not None})
    if len(accelerators) > 1:
        told = " and ".join(accelerators)
        notes.append(f"- cells trained on {told}: their seconds and peak memory do not compare\n")
    threads = sorted({row.threads for row in findings.rows if row.threads is not None})
    if len(threads) > 1:
        told = " and ".join(map(str, threads))
        notes.append(f"- cells ran with {told} threads: their seconds do not compare\n")
    return notes


def _scale(value: float, metric: Metric) -> Tuple[str, float]:
    """Return the unit in which a value is written, and its factor to SI."""
    unit = format_quantity(value, metric).rpartition(" ")[2]
    return unit, UNITS[unit][1]
