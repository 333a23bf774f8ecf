"""Results on stdout, progress and logs on stderr."""

from __future__ import annotations

import json
import sys
from typing import Iterator, Mapping, Optional, Sequence

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

#: Plain progress lines are at least this many seconds apart when stderr is no terminal.
PLAIN_INTERVAL_S = 10.0


def emit_json(result: Mapping[str, object]) -> None:
    """Print one JSON object on stdout."""
    click.echo(json.dumps(result, allow_nan=False))


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


class ProgressLine:
    """Progress of one long job: a bar in a terminal, sparse lines elsewhere, nothing when quiet."""

    def __init__(self, label: str, *, quiet: bool) -> None:
        self._label = label
        self._quiet = quiet
        self._bar: Optional[Progress] = None
        self._task: Optional[TaskID] = None
        self._last = float("-inf")

    def __enter__(self) -> ProgressLine:
        if not self._quiet and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int, note: str = "", label: Optional[str] = None) -> None:
        """Show that `done` of `total` is done, with a short note of live numbers."""
        if self._quiet:
            return
        label = label or self._label
        if self._bar is None:
            self._plain(done, total, f"{label} {done}/{total} {note}".rstrip())
        elif self._task is None:
            self._task = self._bar.add_task(label, total=total, completed=done, note=note)
        else:
            self._bar.update(self._task, description=label, total=total, completed=done, note=note)

    def _plain(self, done: int, total: int, line: str) -> None:
        from time import perf_counter

        now = perf_counter()
        if done >= total or now - self._last >= PLAIN_INTERVAL_S:
            self._last = now
            click.echo(line, err=True)


def key_values(pairs: Mapping[str, str]) -> Iterator[str]:
    """Yield aligned `key  value` lines."""
    width = max(len(key) for key in pairs)
    for key, value in pairs.items():
        yield f"{key:<{width}}  {value}"
