"""Progress on stderr: two lines that stay in place in a terminal, sparse lines elsewhere, nothing when quiet."""

from __future__ import annotations

import logging
import os
import re
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import Optional, Tuple

import click
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from edgeecc.cli.pace import Pace
from edgeecc.cli.progress_words import View, lines, plain_interval_s, plain_line
from edgeecc.progress import Progress

#: Redraws a second.
REFRESH_HZ = 4.0


@dataclass(frozen=True)
class _Shown:
    """What was told last: another thread draws it again and again.

    Args:
        progress: what it was.
        rate_hz: where it can be told.
        end_s: when the work will end by then, by this process's clock.
    """

    progress: Progress
    rate_hz: Optional[float]
    end_s: Optional[float]


class ProgressDisplay:
    """Shows the progress of one command; call it with each `Progress`.

    Args:
        quiet: whether it shows nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._started = perf_counter()
        self._pace = Pace()
        self._shown: Optional[_Shown] = None
        self._stack = ExitStack()
        self._live = False
        self._printed_s = float("-inf")
        self._printed: Tuple[str, int] = ("", -1)

    def __enter__(self) -> ProgressDisplay:
        if not self._quiet and is_animated():
            console = Console(stderr=True, highlight=False, soft_wrap=True)
            live = Live(
                self,
                console=console,
                refresh_per_second=REFRESH_HZ,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
            )
            self._stack.enter_context(live)
            console.show_cursor(True)  # a kill that nothing can catch shall leave one too
            self._live = True
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, progress: Progress) -> None:
        """Show where the work stands."""
        if self._quiet:
            return
        now_s = perf_counter()
        if self._shown is None or self._shown.progress.phase != progress.phase:
            self._pace = Pace()
        self._pace.look(progress.done, now_s)
        left_s = progress.left_s
        if left_s is None and progress.unit:
            left_s = self._pace.left_s(progress.total, now_s)
        rate_hz = self._pace.rate_hz() if progress.unit else None
        self._shown = _Shown(progress, rate_hz, None if left_s is None else now_s + left_s)
        if not self._live:
            self._plain(self._view(self._shown))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines of this moment, each narrower than the terminal."""
        if self._shown is None:
            return
        view, width = self._view(self._shown), max(1, options.max_width - 1)
        for line in lines(view, width, ascii_only=options.ascii_only):
            text = Text(line, no_wrap=True, overflow="crop")
            text.highlight_regex(re.escape(view.progress.phase), "bold")
            text.highlight_regex("\u2501+", "cyan")
            text.highlight_regex("\u2500+", "dim")
            yield text

    def _view(self, shown: _Shown) -> View:
        now_s = perf_counter()
        left_s = None if shown.end_s is None else max(0.0, shown.end_s - now_s)
        return View(shown.progress, now_s - self._started, shown.rate_hz, left_s)

    def _plain(self, view: View) -> None:
        progress = view.progress
        place = (progress.phase, progress.done)
        ended = bool(progress.total) and progress.done >= progress.total
        waited_s = view.elapsed_s - self._printed_s
        is_due = progress.phase != self._printed[0] or waited_s >= plain_interval_s(view.elapsed_s)
        if place != self._printed and (is_due or ended):
            self._printed_s, self._printed = view.elapsed_s, place
            click.echo(plain_line(view), err=True)


class StderrHandler(logging.Handler):
    """Writes logs to what stderr is at the moment, so that they come out above a display."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:  # as logging's own handlers do
            self.handleError(record)


def is_animated() -> bool:
    """Return whether stderr is a terminal in which lines can stay in place, and a person looks at it."""
    is_dumb = os.environ.get("TERM", "").lower() in ("", "dumb", "unknown")
    return sys.stderr.isatty() and not is_dumb and not os.environ.get("CI")
