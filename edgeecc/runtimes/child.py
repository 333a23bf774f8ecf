"""A program that runs beside us, whose output is read line by line and which never outlives us."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections import deque
from pathlib import Path
from time import perf_counter
from typing import Callable, Deque, Sequence

from edgeecc.errors import RuntimeUnavailableError

#: Seconds between asking a program to end and ending it.
GRACE_S = 2.0
#: Lines that are kept, the last ones.
_KEPT_LINES = 2000
#: Longest line that is read whole; a longer one arrives in pieces.
_LINE_CHARACTERS = 2**16


class Child:
    """A program in a process group of its own, as a context manager, which ends the whole group.

    Ctrl-C in the terminal does not reach it; it is ended when the context is left, however that happens.

    Args:
        command: program and arguments.
        limit_s: seconds that it may take.
    Raises: RuntimeUnavailableError when it cannot be started.
    """

    def __init__(self, command: Sequence[str], limit_s: float) -> None:
        self._title = Path(command[0]).name
        self._limit_s, self._end = limit_s, perf_counter() + limit_s
        self._news = threading.Condition()
        self._lines: Deque[str] = deque(maxlen=_KEPT_LINES)
        self._silent = False
        try:
            self._process = subprocess.Popen(  # noqa: S603  # a list, no shell
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise RuntimeUnavailableError(
                f"cannot start {command[0]}: {error.strerror}; check the path and that it may be executed"
            ) from error
        self._reader = threading.Thread(target=self._read, name=self._title, daemon=True)
        self._reader.start()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._process.poll() is None:  # once reaped, its number may be another's
                self._signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(GRACE_S)
        finally:
            if self._process.poll() is None:
                self._signal(signal.SIGKILL)
                self._process.wait()
        self._reader.join(GRACE_S)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()

    def text(self) -> str:
        """Return what it has printed, the last lines of it."""
        with self._news:
            return "\n".join(self._lines)

    def wait_for(self, words: str) -> None:
        """Return when it has printed a line with `words`.

        Raises: RuntimeUnavailableError when it ends before, or takes longer than it may.
        """
        self._wait(lambda: self._silent or self._has(words))
        if not self.printed(words):
            raise RuntimeUnavailableError(
                f"{self._title} ended before {words!r}: {last_words(self.text())}; run it by hand"
            )

    def printed(self, words: str) -> bool:
        """Return whether it has printed a line with `words`."""
        with self._news:
            return self._has(words)

    def finish(self) -> int:
        """Wait until it ends; return its status.

        Raises: RuntimeUnavailableError when it takes longer than it may.
        """
        self._wait(lambda: self._silent)
        try:
            return self._process.wait(max(0.0, self._end - perf_counter()) + GRACE_S)
        except subprocess.TimeoutExpired:
            raise self._late() from None

    def _has(self, words: str) -> bool:
        return any(words in line for line in self._lines)

    def _wait(self, happened: Callable[[], bool]) -> None:
        with self._news:
            if self._news.wait_for(happened, max(0.0, self._end - perf_counter())):
                return
        raise self._late()

    def _late(self) -> RuntimeUnavailableError:
        return RuntimeUnavailableError(
            f"{self._title} was stopped after {self._limit_s:.3g} s: {last_words(self.text())}; allow it more time"
        )

    def _read(self) -> None:
        stream = self._process.stdout
        if stream is not None:
            with contextlib.suppress(ValueError, OSError):
                for line in iter(lambda: stream.readline(_LINE_CHARACTERS), ""):
                    with self._news:
                        self._lines.append(line.rstrip())
                        self._news.notify_all()
        with self._news:
            self._silent = True
            self._news.notify_all()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def last_words(text: str) -> str:
    """Return in one line why a program failed, as far as its output says: its lines with "[E]", else its last one."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "[E]" in line]
    chosen = [errors[0], errors[-1]] if errors else lines[-1:]
    told = "; ".join(dict.fromkeys(line[:200] for line in chosen))
    return " ".join(told.split())[:400] or "it says nothing"
