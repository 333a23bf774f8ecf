"""One board, driven: a long-lived `edgeecc measure` that is asked for variants and answers line by line.

A process that ends is started again, a bounded number of times in a row; one that is silent for too long is ended
and not tried again here. It is never waited for without a limit.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections import deque
from dataclasses import dataclass
from time import perf_counter
from typing import Deque, Optional, Sequence, Tuple, Union

from edgeecc.cost.samples import Failure, Row
from edgeecc.errors import MeterError
from edgeecc.fleet.boards import Board, arguments
from edgeecc.fleet.wire import MAX_LINE, check_greeting, read_answer, task_line

#: Starts in a row before a board is called gone, and seconds before the first of them is repeated, then doubled.
STARTS = 3
PAUSE_S = 0.5
#: Seconds in which a process may end by itself once it has nothing more to do.
_STOP_S = 0.5
_LAST_WORDS = 2000
#: What came of a variant, the meter's name, and seconds from question to answer.
Told = Tuple[Union[Row, Failure], str, float]


@dataclass(frozen=True)
class Order:
    """What boards are asked to measure.

    Args:
        device, fingerprint: the board must say the same.
        graph: folder with spec.json and dense.onnx, for a board that names none.
        seed: of simulated noise.
        tolerance, window_s: see `MeasureProtocol`.
        start_s, sample_s: seconds in which a board must answer at first, and with one variant.
    """

    device: str
    fingerprint: str
    graph: str
    seed: int
    tolerance: float
    window_s: float
    start_s: float
    sample_s: float

    def measuring(self, graph: str) -> Tuple[str, ...]:
        """Return the words behind `edgeecc` that ask for this."""
        return (
            "-q", "measure", "--graph", graph or self.graph, "--device", self.device, "--seed", str(self.seed),
            "--tolerance", repr(self.tolerance), "--window-s", repr(self.window_s), "--json",
        )  # fmt: skip


class _EndedError(MeterError):
    """The process has ended; another may do better."""


class BoardProcess:
    """The process that measures on a board; nothing is started before it is asked.

    Args:
        board, order: which board, and what it measures.
    """

    def __init__(self, board: Board, order: Order) -> None:
        self.board, self.order = board, order
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._buffer = b""
        self._words: Deque[int] = deque(maxlen=_LAST_WORDS)
        self._stopped = threading.Event()
        self._busy = threading.Lock()

    def measure(self, number: int, widths: Sequence[int]) -> Told:
        """Measure a variant.

        Returns: its row, or why it cannot be built; the meter's name; the wall time in seconds, question to answer.
        Raises: MeterError saying why the board gives no measurement.
        """
        with self._busy:
            for start in range(STARTS - 1):
                with contextlib.suppress(_EndedError):
                    return self._ask(number, widths)
                if self._stopped.wait(PAUSE_S * 2**start):
                    break
            return self._ask(number, widths)

    def close(self) -> None:
        """End the process, now; a measurement that is under way in another thread fails."""
        self._stopped.set()
        process = self._process
        if process is not None:
            _kill(process)
        with self._busy:  # who measures has noticed by now
            self._end()

    def _ask(self, number: int, widths: Sequence[int]) -> Told:
        try:
            process = self._running()
            started = perf_counter()
            self._write(process, task_line(number, widths))
            line = self._line(process, self.order.sample_s, f"variant {number}")
            found, meter = read_answer(line, number, widths)
        except MeterError:
            self._end()  # whatever it says next is no answer to what is asked next
            raise
        return found, meter, perf_counter() - started

    def _running(self) -> subprocess.Popen[bytes]:
        """Return the process, started and greeted where there was none."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        if self._stopped.is_set():
            raise MeterError("it was stopped")
        self._buffer = b""
        self._words.clear()
        words = arguments(self.board, self.order.measuring(self.board.graph), sys.executable)
        env = None if self.board.ssh else {**os.environ, **dict(self.board.env)}
        try:
            process = subprocess.Popen(  # noqa: S603  # a list of words, checked by `boards`
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=env,
                start_new_session=True,  # so that it can be ended with all that it started
            )
        except (OSError, ValueError) as error:
            raise _EndedError(f"cannot start {words[0]}: {error}") from error
        self._process = process
        line = self._line(process, self.order.start_s, "its start")
        check_greeting(line, self.order.device, self.order.fingerprint)
        return process

    def _write(self, process: subprocess.Popen[bytes], line: bytes) -> None:
        assert process.stdin is not None  # noqa: S101  # for the type checker
        try:
            process.stdin.write(line)
            process.stdin.flush()
        except (OSError, ValueError) as error:
            raise self._ended(process) from error

    def _line(self, process: subprocess.Popen[bytes], patience_s: float, what: str) -> bytes:
        """Return the next line of a process.

        Raises: _EndedError when it has ended; MeterError when it is silent for too long or does not stop talking.
        """
        assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018  # for the type checker
        deadline = perf_counter() + patience_s
        sources = [process.stdout, process.stderr]
        while b"\n" not in self._buffer:
            left = deadline - perf_counter()
            if left <= 0.0:
                raise MeterError(f"it did not answer for {patience_s:.3g} s in {what}")
            try:
                ready, _, _ = select.select(sources, [], [], left)
                for source in ready:
                    data = os.read(source.fileno(), 65536)
                    if source is process.stderr:
                        self._words.extend(data)
                        sources = sources if data else [process.stdout]
                    elif not data:
                        raise self._ended(process)
                    else:
                        self._buffer += data
            except OSError as error:
                raise self._ended(process) from error
            if len(self._buffer) > MAX_LINE:
                raise MeterError(f"it answered with more than {MAX_LINE} bytes in one line")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _ended(self, process: subprocess.Popen[bytes]) -> MeterError:
        """Return how a process ended and what it said last."""
        if self._stopped.is_set():
            return MeterError("it was stopped")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        assert process.stderr is not None  # noqa: S101  # for the type checker
        with contextlib.suppress(OSError, ValueError):
            while select.select([process.stderr], [], [], 0.0)[0]:
                data = os.read(process.stderr.fileno(), 65536)
                if not data:
                    break
                self._words.extend(data)
        code = process.returncode
        if code is None:
            how = "its process closed its output"
        else:
            how = f"its process {'was ended by signal' if code < 0 else 'exited with'} {abs(code)}"
        lines = [
            line
            for line in bytes(self._words).decode(errors="replace").splitlines()
            if line.strip()
        ]
        said = (
            " ".join("".join(c if c.isprintable() else " " for c in lines[-1]).split())
            if lines
            else ""
        )
        return _EndedError(f"{how}: {said[:300]}" if said else how)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin and process.stdout and process.stderr  # noqa: S101, PT018  # for the type checker
        with contextlib.suppress(OSError):
            process.stdin.close()
        if not self._stopped.is_set():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
        _kill(process)
        process.wait()
        process.stdout.close()
        process.stderr.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started, were it gone itself."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
