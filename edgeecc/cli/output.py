"""Results on stdout."""

from __future__ import annotations

import json
import sys
from typing import Any, Dict, Iterator, Mapping, Sequence

import click
from rich.console import Console
from rich.table import Table

from edgeecc.units import Metric, format_quantity


def emit_json(result: Mapping[str, object]) -> None:
    """Print one JSON object on stdout."""
    click.echo(json.dumps(result, allow_nan=False))


def events_pairs(result: Mapping[str, Any]) -> Dict[str, str]:
    """Return the line on single inferences by the device's clock; none where it told nothing."""
    told = result.get("latency_events_s")
    if told is None:
        return {}
    parts = [
        f"{name} {format_quantity(told[name], Metric.LATENCY)}"
        for name in ("median", "p95", "p99")
        if told[name] is not None
    ]
    return {"single inferences": f"{', '.join(parts)} of {told['runs']} ({told['clock']})"}


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout; the first column is text, the others are numbers.

    Where stdout is no terminal the table is as wide as it needs to be.
    """
    # Cells are names of files that may come from anywhere: brackets in them are no markup.
    console = Console(
        file=sys.stdout,
        width=None if sys.stdout.isatty() else 160,
        highlight=False,
        markup=False,
        emoji=False,
    )
    table = Table(title=title, title_justify="left", title_style="bold")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if not place else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def key_values(pairs: Mapping[str, str]) -> Iterator[str]:
    """Yield aligned `key  value` lines."""
    width = max(len(key) for key in pairs)
    for key, value in pairs.items():
        yield f"{key:<{width}}  {value}"
