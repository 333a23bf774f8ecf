"""A pseudo-terminal, and a screen that understands as much of what is written to it as a progress display needs."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Sequence

#: A control sequence, a control character, or a letter.
_TOKEN = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])|\x1b\].*?(?:\x07|\x1b\\)|(.)", re.DOTALL)


class Screen:
    """Lines and cursor of a terminal that never scrolls.

    Args:
        width: columns; a letter beyond the last one goes on in the next line, as in a terminal.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._cells: List[List[str]] = [[]]
        self._row = self._column = 0
        self.cursor_visible = True
        self.wrapped = False

    def write(self, text: str) -> None:
        """Take in what a program wrote.

        Raises: ValueError for a control that it does not know.
        """
        for match in _TOKEN.finditer(text):
            private, numbers, command, letter = match.groups()
            if command:
                self._control(private, numbers, command)
            elif letter:
                self._put(letter)

    @property
    def lines(self) -> List[str]:
        """The lines, without what is empty at their ends."""
        found = ["".join(row).rstrip() for row in self._cells]
        while found and not found[-1]:
            found.pop()
        return found

    def _put(self, letter: str) -> None:
        if letter == "\r":
            self._column = 0
        elif letter == "\n":
            self._down()
        elif not letter.isprintable():
            raise ValueError(f"{letter!r} does what no screen here can do")
        else:
            if self._column >= self._width:
                self.wrapped = True
                self._column = 0
                self._down()
            row = self._cells[self._row]
            row.extend(" " * (self._column + 1 - len(row)))
            row[self._column] = letter
            self._column += 1

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self._cells):
            self._cells.append([])

    def _control(self, private: str, numbers: str, command: str) -> None:
        if command in "hl" and private and numbers == "25":
            self.cursor_visible = command == "h"
        elif command == "A":
            self._row = max(0, self._row - int(numbers or 1))
        elif command == "K" and numbers == "2":
            self._cells[self._row] = []
        elif command != "m":
            raise ValueError(f"control {private}{numbers}{command} is not known here")


@dataclass(frozen=True)
class Session:
    """What a program wrote to its terminal, and how it ended."""

    text: str
    code: int

    def screen(self, width: int) -> Screen:
        """Return the screen in the end."""
        screen = Screen(width)
        screen.write(self.text)
        return screen


def in_terminal(
    words: Sequence[str], *, width: int, environment: Mapping[str, str], stop: Callable[[str], Any] = lambda text: None
) -> Session:  # fmt: skip
    """Run a program with a pseudo-terminal for its stdin, stdout and stderr.

    Args:
        words: the program.
        width: columns.
        environment: of the program, whole.
        stop: told what was written so far, whenever there is more; what it returns, where that is text, is typed.
    """
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    process = subprocess.Popen(
        words, stdin=other, stdout=other, stderr=other, env=dict(environment), close_fds=True,
        preexec_fn=_own_session,
    )  # fmt: skip
    os.close(other)
    text = ""
    while True:
        if not select.select([main], [], [], 60.0)[0]:
            process.kill()
            raise TimeoutError(f"nothing was written for a minute after {text!r}")
        try:
            more = os.read(main, 65536)
        except OSError:  # nobody has the other end any more
            break
        if not more:
            break
        text += more.decode("utf-8", "replace")
        typed = stop(text)
        if typed:
            os.write(main, typed.encode())
    os.close(main)
    return Session(text, process.wait())


def plain_environment(root: str, **more: str) -> Dict[str, str]:
    """Return the environment of a program of ours in a common terminal, which no CI runs."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in ("CI", "NO_COLOR", "COLUMNS", "LINES")
    }
    return {**kept, "TERM": "xterm-256color", "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **more}


def _own_session() -> None:
    """Make the terminal that of a new session, so that Ctrl-C there is heard."""
    import signal

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
