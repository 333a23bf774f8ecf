"""Judge one input: its reader returns or says in one line what is wrong, within a time and a memory.

A reader may raise `EdgeeccError`, and click's errors where it is an option's; anything else is a failure, and so is a
message that is no printable line, more processor time than `CPU_S`, and more memory than `MEMORY_BYTES`.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import tempfile
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Callable, Iterator, Optional

import click

from edgeecc.errors import EdgeeccError

#: Processor seconds that an input may take, on a machine that does other things besides.
CPU_S = 10.0
#: Memory that an input may take beyond what was taken before: inputs here are a megabyte at most.
MEMORY_BYTES = 512 * 2**20
#: Longest message that is still one line to read.
MOST_CHARACTERS = 2000
#: Address space beyond what a process has when it begins; an allocation above it fails in place of paging.
ADDRESS_BYTES = 4 * 2**30

#: Where the folders of inputs are made: in memory where there is such a place, for thousands are made a minute.
_MEMORY = next((place for place in ("/dev/shm",) if os.access(place, os.W_OK)), None)  # noqa: S108  # see above

#: What a target does with an input: bytes, and an empty folder of its own.
Read = Callable[[bytes, Path], object]


class TooSlowError(BaseException):
    """An input took more processor time than it may; no reader catches it by accident."""


@dataclass(frozen=True)
class Verdict:
    """What came of an input.

    Args:
        kind: "ok", "refused" or "failed".
        where: the place that refused or failed, which tells outcomes apart.
        what: of a failure, in words.
    """

    kind: str
    where: str = ""
    what: str = ""


def judge(read: Read, data: bytes) -> Verdict:
    """Return what came of reading `data`."""
    before = _peak_bytes()
    with tempfile.TemporaryDirectory(dir=_MEMORY) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verdict = _read(read, data, Path(folder))
    taken = _peak_bytes() - before
    if verdict.kind != "failed" and taken > MEMORY_BYTES:
        return Verdict(
            "failed", f"memory in {verdict.where or 'reading'}", f"took {taken >> 20} MiB"
        )
    return verdict


def limit_address_space() -> None:
    """Let this process take so much more address space and no more."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + ADDRESS_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _read(read: Read, data: bytes, folder: Path) -> Verdict:
    try:
        with _alarm(CPU_S):
            read(data, folder)
    except TooSlowError as error:
        return Verdict("failed", _place(error), f"took more than {CPU_S:g} s of processor time")
    except (EdgeeccError, click.ClickException) as error:
        return _refusal(error)
    except Exception as error:  # everything else is what is looked for
        return Verdict("failed", _place(error), f"{type(error).__name__}: {str(error)[:200]}")
    return Verdict("ok")


def _refusal(error: Exception) -> Verdict:
    message = error.format_message() if isinstance(error, click.ClickException) else str(error)
    if not message.isprintable() or not message.strip():
        return Verdict("failed", _place(error), f"is no printable line: {message[:200]!r}")
    if isinstance(error, EdgeeccError) and len(message) > MOST_CHARACTERS:
        return Verdict("failed", _place(error), f"is a line of {len(message)} characters")
    return Verdict("refused", _place(error))


def _place(error: BaseException) -> str:
    """Return the kind of an error, and where in edgeecc it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "edgeecc" in Path(frame.filename).parts]
    last = (own or list(frames))[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise `TooSlowError` once the block has taken so much processor time."""

    def ring(number: int, frame: Optional[FrameType]) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
