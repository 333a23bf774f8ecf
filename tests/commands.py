"""Start an `edgeecc` command in a process of its own that can be interrupted and killed.

It is forked from a server that has imported all of edgeecc, so that it is at work at once; it has its own streams,
working directory and signals.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Sequence, Tuple

from tests.processes import CONTEXT, PATIENCE


class Command:
    """A command that runs.

    Args:
        arguments: after the word edgeecc.
        folder: working directory, where modules of the user's own lie too.
    """

    def __init__(self, arguments: Sequence[object], folder: Path) -> None:
        self._streams = tempfile.TemporaryDirectory(prefix="edgeecc-streams-")
        streams = Path(self._streams.name)
        words = ["edgeecc", *map(str, arguments)]
        self._process = CONTEXT.Process(target=_enter, args=(words, folder, streams))
        self._process.start()

    @property
    def running(self) -> bool:
        return self._process.is_alive()

    def until(self, true: Callable[[], object]) -> None:
        """Wait until something is true, or the command has ended."""
        deadline = time.monotonic() + PATIENCE
        while self.running and not true():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def ended(self) -> Tuple[int, str, str]:
        """Wait for its end; return the exit status, negative for a signal, and what it wrote to stdout and stderr."""
        self._process.join(PATIENCE)
        if self.running:
            self._process.kill()
            self._process.join()
            raise AssertionError(f"no end after {PATIENCE} s")
        streams = Path(self._streams.name)
        told = [(streams / name).read_text() for name in ("stdout", "stderr")]
        self._streams.cleanup()
        return self._process.exitcode, told[0], told[1]


def _enter(words: Sequence[str], folder: Path, streams: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in ((1, "stdout"), (2, "stderr")):
        with (streams / name).open("wb") as stream:
            os.dup2(stream.fileno(), number)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.argv = list(words)
    import torch

    torch.set_num_threads(1)  # as in the tests' own process: sums come out the same
    from edgeecc.cli.main import main

    main()
