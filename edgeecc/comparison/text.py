"""A comparison as people read it: the tables of table.md and the rows of results.csv. Everything here is pure."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, fields
from typing import List, Optional, Sequence, Tuple

from edgeecc.comparison.figures import Row, Spread, Summary
from edgeecc.comparison.leads import Lead
from edgeecc.units import Metric, format_quantity

#: Columns of results.csv: the fields of a row, in their order.
COLUMNS = tuple(field.name for field in fields(Row))


def csv_text(rows: Sequence[Row]) -> str:
    """Return one line a cell; widths as `group:kept/dense`, nothing where there is no figure."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        values = asdict(row)
        values["widths"] = " ".join(
            f"{name}:{kept}/{dense}" for name, (kept, dense) in row.widths.items()
        )
        writer.writerow(["" if values[name] is None else values[name] for name in COLUMNS])
    return stream.getvalue()


def accuracy_table(summaries: Sequence[Summary], bold: str = "**") -> List[Tuple[str, ...]]:
    """Return the accuracies, dense on top: a column of names, then one a budget; the first line is the head.

    Args:
        summaries: of methods and budgets.
        bold: what surrounds the best of a budget.
    """
    budgets = list(dict.fromkeys(one.budget for one in summaries))
    methods = list(dict.fromkeys(one.method for one in summaries))
    cell = {(one.method, one.budget): one for one in summaries}
    dense = spread_text(_dense(summaries))
    lines = [("method", *budgets), ("dense", *(dense for _ in budgets))]
    for method in methods:
        own = (cell.get((method, budget)) for budget in budgets)
        lines.append((method, *(_accuracy(one, bold) for one in own)))
    return lines


def lead_table(summaries: Sequence[Summary], leads: Sequence[Lead]) -> List[Tuple[str, ...]]:
    """Return by how many points the best of each budget leads the others; no line where no budget has a best.

    A point is a hundredth of a score of 1. With the mean comes its standard error, and in how many seeds the best one
    is above.
    """
    if not leads:
        return []
    budgets = list(dict.fromkeys(one.budget for one in summaries))
    methods = list(dict.fromkeys(one.method for one in summaries))
    cell = {(one.method, one.budget): _lead(one) for one in leads}
    cell.update({(one.best, one.budget): "best" for one in leads})
    return [
        ("behind the best, points", *budgets),
        *((method, *(cell.get((method, budget), "-") for budget in budgets)) for method in methods),
    ]


def cost_table(summaries: Sequence[Summary], metric: Metric) -> List[Tuple[str, ...]]:
    """Return what each method and budget came to and took; the first line is the head.

    Memory of GPUs has a column where any was used.
    """
    head = (
        "method", "budget", metric.value, "before fine-tuning", "after fine-tuning", "seconds", "peak memory",
    )  # fmt: skip
    on_gpus = any(one.cuda_peak_bytes for one in summaries)
    lines: List[Tuple[str, ...]] = [(*head, *(["peak GPU memory"] if on_gpus else []))]
    for one in summaries:
        lines.append(
            (
                one.method,
                one.budget,
                "" if one.cost is None else format_quantity(one.cost.mean, metric),
                spread_text(one.pruned_accuracy),
                spread_text(one.accuracy),
                spread_text(one.seconds, digits=1),
                _memory(one.peak_memory_bytes),
                *([_memory(one.cuda_peak_bytes)] if on_gpus else []),
            )
        )
    return lines


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; the first line is the head."""
    head, *rows = ["| " + " | ".join(line) + " |" for line in lines]
    rule = "|" + "---|" + "---:|" * (len(lines[0]) - 1)
    return "\n".join([head, rule, *rows]) + "\n"


def spread_text(spread: Optional[Spread], digits: int = 4) -> str:
    """Return `mean ± sample standard deviation`, the mean alone where one value has none."""
    if spread is None:
        return "-"
    deviation = "" if spread.deviation is None else f" ± {spread.deviation:.{digits}f}"
    return f"{spread.mean:.{digits}f}{deviation}"


def _memory(size: Optional[int]) -> str:
    return "" if size is None else format_quantity(size, Metric.SIZE, 3)


def _lead(lead: Lead) -> str:
    error = "" if lead.error is None else f" ± {100.0 * lead.error:.2f}"
    return f"{100.0 * lead.lead.mean:.2f}{error} ({lead.ahead} of {lead.lead.count})"


def _accuracy(summary: Optional[Summary], bold: str) -> str:
    """Return the accuracy of a cell; over fewer seeds than asked for it says over how many."""
    if summary is None or summary.accuracy is None:
        return "-"
    mark = bold if summary.best else ""
    few = summary.accuracy.count < summary.asked
    share = f" ({summary.accuracy.count} of {summary.asked} seeds)" if few else ""
    return f"{mark}{spread_text(summary.accuracy)}{mark}{share}"


def _dense(summaries: Sequence[Summary]) -> Optional[Spread]:
    """Return the dense network's accuracy over the most seeds that are known: a method or budget changes nothing."""
    found = [one.dense_accuracy for one in summaries if one.dense_accuracy is not None]
    return max(found, key=lambda spread: spread.count, default=None)
