"""Run a function in the processes of a job, which meet in a file; what each returns comes back."""

from __future__ import annotations

import multiprocessing
import traceback
from pathlib import Path
from typing import Any, Callable, List

from edgeecc.training.parallel import World, job

#: A server that has imported all this forks the processes, so that each starts at once.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.parallel_work", "torch._dynamo", "tests.warm"])
#: Seconds that a job may take.
PATIENCE = 100.0


class JobFailedError(Exception):
    """What a process raised, in words."""


def run_job(
    work: Callable[..., Any], folder: Path, *arguments: Any, size: int = 2, device: str = "cpu"
) -> List[Any]:
    """Return what `work(world, *arguments)` returned in each process.

    Args:
        work: a function of a module.
        folder: where processes meet.
        arguments: can be pickled.
        size: number of processes.
        device: that they use; a process with a GPU starts from nothing, for a forked one may not have it.
    Raises: JobFailedError with the errors of all processes, one a line, when one fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    meeting = folder / "meeting"
    meeting.unlink(missing_ok=True)
    context = CONTEXT if device == "cpu" else multiprocessing.get_context("spawn")
    inboxes, processes = [], []
    for rank in range(size):
        inbox, outbox = context.Pipe(duplex=False)
        url = f"file://{meeting}?rank={rank}&world_size={size}"
        process = context.Process(target=_enter, args=(outbox, url, work, arguments))
        process.start()
        outbox.close()
        inboxes.append(inbox)
        processes.append(process)
    found = [_received(inbox) for inbox in inboxes]
    for process in processes:
        process.join(PATIENCE)
        process.kill()
    errors = [text for kind, text in found if kind == "error"]
    if errors:
        raise JobFailedError("\n".join(errors))
    return [value for _, value in found]


def _received(inbox: Any) -> Any:
    if not inbox.poll(PATIENCE):
        return "error", "Silent: no answer"
    try:
        return inbox.recv()
    except EOFError:
        return "error", "Gone: ended without an answer"


def _enter(outbox: Any, url: str, work: Callable[..., Any], arguments: Any) -> None:
    import torch

    torch.set_num_threads(1)
    try:
        with job(url) as world:
            found = ("value", work(world, *arguments))
    except BaseException as error:
        traceback.print_exc()
        found = ("error", f"{type(error).__name__}: {error}")
    outbox.send(found)


__all__ = ["JobFailedError", "World", "run_job"]
