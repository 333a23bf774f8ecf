"""Keep Ctrl-C for the process that acts on it."""

from __future__ import annotations

import contextlib
import signal
from multiprocessing import resource_tracker
from typing import Iterator


@contextlib.contextmanager
def no_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back: what is started meanwhile, threads or processes, never gets it, this thread gets it afterwards.

    A terminal sends it to all; only this process shall act on it, and then stop the others one by one.
    """
    resource_tracker.ensure_running()  # its start lets Ctrl-C through again, so it comes first
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
