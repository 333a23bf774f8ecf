"""Keep Ctrl-C for the process that acts on it."""

from __future__ import annotations

import contextlib
import signal
from typing import Iterator


@contextlib.contextmanager
def no_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back: what is started meanwhile, threads or processes, never gets it, this thread gets it afterwards.

    A terminal sends it to all; only this process shall act on it, and then stop the others one by one.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
