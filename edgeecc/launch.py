"""Which process of a job this is, as torchrun tells it; known without torch."""

from __future__ import annotations

import contextlib
import os
from typing import Iterator

#: Set by torchrun for every process that it starts.
_JOB = "TORCHELASTIC_RUN_ID"


def processes() -> int:
    """Return how many processes the job has, 1 where torchrun did not start this one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if _JOB in os.environ else 1


def rank() -> int:
    """Return the number of this process in its job, counted from 0; the first one speaks and writes for all."""
    return int(os.environ.get("RANK", "0")) if processes() > 1 else 0


def local_rank() -> int:
    """Return the number of this process among those of its job on this machine, counted from 0."""
    return int(os.environ.get("LOCAL_RANK", "0")) if processes() > 1 else 0


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Keep what all processes but the first print from stdout and stderr while the context is open."""
    if not rank():
        yield
        return
    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield
