"""The processes in which cells run: one each, so that wall time and peak memory are the cell's own.

A cell's process writes down what it took as it goes, so that the time of a killed one counts. It stops when it
is told to and when the process that started it is gone.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import resource
import signal
import sys
import threading
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Sequence, Tuple

from edgeecc.comparison.cells import Cell, Spent, read_spent, write_spent
from edgeecc.comparison.voice import Voice, heard
from edgeecc.data.prefetch import usable_cores
from edgeecc.errors import ArtifactError, EdgeeccError, brief
from edgeecc.interrupts import no_interrupts
from edgeecc.progress import OnProgress, Progress, silent

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

#: Seconds between notes of what a cell took: a kill loses no more than this.
TICK_S = 1.0
#: Seconds that a process has to stop in, before it is killed.
STOP_S = 10.0
EXIT_STOPPED = 130
#: What Linux tells of a process; VmHWM is the peak of its resident memory.
_STATUS = Path("/proc/self/status")

#: Called when a cell starts (False) and when its process has ended (True).
OnCell = Callable[[Cell, bool], None]
#: Called with what a cell's run tells.
OnWord = Callable[[Cell, Progress], None]


@dataclass(frozen=True)
class Job:
    """A cell with what its process must know.

    Args:
        cell: to run.
        threads: that torch may use.
        log_level: of its log.
    """

    cell: Cell
    threads: int
    log_level: int


class Clock:
    """What a cell took, kept in its folder while it runs.

    Args:
        job: the cell's.
    """

    def __init__(self, job: Job) -> None:
        self._cell, self._threads = job.cell, job.threads
        self._before = read_spent(job.cell.folder)
        self._started = self._told = perf_counter()
        self.note()

    def tick(self) -> None:
        """Note what was spent so far, where the last note is old enough."""
        if perf_counter() - self._told >= TICK_S:
            self.note()

    def note(self, error: Optional[str] = None) -> None:
        """Note what was spent so far."""
        before, self._told = self._before, perf_counter()
        spent = Spent(
            seconds=before.seconds + self._told - self._started,
            parts=before.parts + 1,
            peak_memory_bytes=max(before.peak_memory_bytes, peak_memory()),
            cuda_peak_bytes=max(before.cuda_peak_bytes, cuda_peak_memory()),
            threads=self._threads,
            accelerator=self._cell.request.compute.accelerator,
            error=error,
        )
        write_spent(self._cell.folder, self._cell.asked, spent)


def threads_each(jobs: int) -> int:
    """Return the threads of each of so many processes: no more than torch would take, nor than there are cores."""
    import torch

    return max(1, min(torch.get_num_threads(), usable_cores() // jobs))


def run_cells(
    cells: Sequence[Cell], jobs: int, on_cell: OnCell, on_word: OnWord = lambda cell, progress: None
) -> None:
    """Run cells, each in a process of its own, `jobs` at once; a cell that fails lets the others go on.

    What became of a cell is in its folder. When this is interrupted, every process is stopped first; what they
    saved is kept.
    """
    level, threads = logging.getLogger().getEffectiveLevel(), threads_each(jobs)
    waiting = list(cells)
    running: Dict[int, Tuple[SpawnProcess, Cell, Connection]] = {}
    voices: Dict[Connection, Cell] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                on_cell(cell, False)
                process, voice = _start(Job(cell, threads, level))
                running[process.sentinel] = (process, cell, voice)
                voices[voice] = cell
            ready = wait([*running, *voices])
            for voice in [one for one in voices if one in ready]:
                _listen(voice, voices, on_word)
            for sentinel in [one for one in running if one in ready]:
                process, cell, voice = running.pop(sentinel)
                while voice in voices and voice.poll():
                    _listen(voice, voices, on_word)
                _end(process, cell)
                on_cell(cell, True)
    finally:
        for voice in voices:
            voice.close()  # what is still said shall fail, not wait
        _stop([process for process, *_ in running.values()])


def peak_memory() -> int:
    """Return the most memory that this process held resident, bytes.

    getrusage counts in what the parent held when it started this process, so it is asked only where the kernel
    does not tell the peak of this program alone.
    """
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def cuda_peak_memory() -> int:
    """Return the most memory that torch allocated on GPUs in this process, bytes; 0 where it used none."""
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return 0
    return sum(torch.cuda.max_memory_allocated(gpu) for gpu in range(torch.cuda.device_count()))


def work(job: Job, out: Connection) -> None:
    """Run a cell: what its process does. It exits with 1 where the cell fails and with 130 where it is stopped."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    voice = Voice(out)
    logging.basicConfig(level=job.log_level, handlers=[voice])
    import torch

    from edgeecc import prune  # noqa: F401  # loaded before the clock starts

    torch.set_num_threads(job.threads)
    signal.signal(signal.SIGTERM, _stopped)  # until here it simply ends the process
    carry_out(job, voice.tell)


def carry_out(job: Job, on_progress: OnProgress = silent) -> None:
    """Prune as the cell asks, note what that took, and pass on what it tells.

    Raises: SystemExit where the cell fails or is stopped; any error that is no EdgeeccError as it is, a bug of ours
        or of the user's network, whose traceback is wanted.
    """
    from edgeecc.prune import prune

    clock = Clock(job)

    def tell(progress: Progress) -> None:
        clock.tick()
        on_progress(progress)

    try:
        prune(job.cell.request, tell)
    except KeyboardInterrupt:
        clock.note()
        sys.exit(EXIT_STOPPED)
    except EdgeeccError as error:
        clock.note(str(error))
        sys.exit(1)
    except Exception as error:
        clock.note(f"{type(error).__name__}: {brief(error)}")
        raise
    clock.note()


def _start(job: Job) -> Tuple[SpawnProcess, Connection]:
    """Start a cell's process; return it and what it is heard by."""
    context = multiprocessing.get_context("spawn")
    ear, out = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(job, out), name=job.cell.name)
    with no_interrupts():
        process.start()
    out.close()  # it is the other process's now, whose end is the end of it
    return process, ear


def _listen(voice: Connection, voices: Dict[Connection, Cell], on_word: OnWord) -> None:
    """Take in one word of a cell's process, or that it says no more."""
    try:
        progress = heard(voice.recv_bytes())
    except (EOFError, OSError):
        del voices[voice]
        voice.close()
        return
    if progress is not None:
        on_word(voices[voice], progress)


def _end(process: SpawnProcess, cell: Cell) -> None:
    """Wait for a process and make sure that its folder tells where it failed."""
    process.join()
    code = process.exitcode
    process.close()
    if code == 0 or cell.is_finished():
        return
    spent = read_spent(cell.folder)
    if spent.error is None:
        ended = f"was ended by signal {-code}" if code and code < 0 else f"exited with {code}"
        told = f"its process {ended}" + (
            "; is there too little memory?" if code == -signal.SIGKILL else ""
        )
        with contextlib.suppress(ArtifactError):  # the same full disk, perhaps
            write_spent(cell.folder, cell.asked, replace(spent, error=told))


def _stop(processes: List[SpawnProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(STOP_S)
        if process.is_alive():
            process.kill()
            process.join()


def _stopped(number: int, frame: object) -> None:
    """Leave the cell once; what is being written then shall not be interrupted again."""
    del number, frame
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _leave_with_parent() -> None:
    """End this process when the one that started it has ended, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(EXIT_STOPPED)
