"""Dask: one worker a board, which drives that board and answers with plain rows. The one module that knows of Dask.

A worker has the board's name and the resource KIND=1, so it measures one thing at a time and only what is of its
kind. Work is pinned to a worker, for a sample's offset, its checks and its place in the queue belong to a board; who
measures what is decided by the `Roster`, here, beside the store.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import tempfile
import time
import uuid
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from edgeecc.cost.samples import Failure, Row
from edgeecc.errors import FleetError, MeterError, RuntimeUnavailableError, brief
from edgeecc.fleet.board_process import BoardProcess, Order
from edgeecc.fleet.boards import Board
from edgeecc.fleet.roster import Answer, Batch
from edgeecc.interrupts import no_interrupts

#: Seconds in which a scheduler must answer, and in which workers of all boards must have come to it.
CONNECT_S = 30.0
WORKERS_S = 15.0
#: Seconds in which workers end their boards at the end.
_CLOSE_S = 10.0

#: Seconds in which an answer that is there must have come over.
_ANSWER_S = 5.0
#: What Dask raises when time is up; one and the same in later versions of Python.
_LATE = (TimeoutError, asyncio.TimeoutError)

#: In a worker's process: the board that it drives.
_driven: Dict[str, BoardProcess] = {}


class Dispatcher:
    """Hands batches to the workers of boards and collects what they answer; a context manager.

    Args:
        boards: one worker each.
        order: what they measure.
        scheduler: address of one that runs already, with a worker of each board's name; empty starts all here.
    Raises: RuntimeUnavailableError when Dask is not here; FleetError when the scheduler cannot be reached.
    """

    def __init__(self, boards: Sequence[Board], order: Order, scheduler: str = "") -> None:
        self._boards = {board.name: board for board in boards}
        self._order, self._scheduler = order, scheduler
        self._stack = contextlib.ExitStack()
        self._addresses: Dict[str, str] = {}
        self._out: Dict[Any, Batch] = {}
        self._session = uuid.uuid4().hex  # a scheduler may serve others too
        self._dask: Any = None
        self._client: Any = None

    def __enter__(self) -> Dispatcher:
        try:
            import distributed
        except ImportError as error:
            raise RuntimeUnavailableError(
                "a fleet needs Dask, which is not here; pip install 'edgeecc[fleet]'"
            ) from error
        self._dask = distributed
        with self._stack:
            self._stack.enter_context(_quiet())
            address = self._scheduler
            try:
                with no_interrupts():  # what is started here ends when this process says so
                    if not address:
                        address = self._stack.enter_context(self._cluster()).scheduler_address
                    self._client = self._dask.Client(
                        address, timeout=CONNECT_S, set_as_default=False
                    )
            except (OSError, RuntimeError, *_LATE) as error:
                raise FleetError(
                    f"cannot reach scheduler {address or 'here'}: {brief(error)}; start dask scheduler, or name none"
                ) from error
            self._stack.callback(self._close)
            self._await_workers()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def workers(self) -> Mapping[str, str]:
        """Return board -> address of its worker, for those that are there; a new address is a new process.

        Raises: FleetError when the scheduler is gone.
        """

        def look(dask_scheduler: Any) -> List[Tuple[str, str, Dict[str, float]]]:
            states = dask_scheduler.workers.values()
            return [(str(one.name), one.address, dict(one.resources)) for one in states]

        with self._told("look for workers"):
            found = self._client.run_on_scheduler(look)
        self._addresses = {
            name: address
            for name, address, resources in found
            if name in self._boards and resources.get(self._boards[name].kind, 0.0) >= 1.0
        }
        return self._addresses

    def submit(self, batch: Batch) -> None:
        """Hand a batch to the worker of its board, which must be there.

        Raises: FleetError when the scheduler is gone.
        """
        board = self._boards[batch.board]
        with self._told("hand out work"):
            future = self._client.submit(
                measure_batch,
                board,
                self._order,
                batch,
                workers=[self._addresses[batch.board]],
                resources={board.kind: 1},
                pure=False,
                key=f"edgeecc-{self._session}-{batch.ticket}",
            )
        self._out[future] = batch

    def collect(self, timeout_s: float) -> List[Tuple[Batch, Answer]]:
        """Wait for answers for a while and return those that came."""
        if not self._out:
            time.sleep(timeout_s)
            return []
        with contextlib.suppress(*_LATE), self._client.as_current():
            self._dask.wait(list(self._out), timeout=timeout_s, return_when="FIRST_COMPLETED")
        done = [future for future in self._out if future.done()]
        return [(self._out.pop(future), _answer(future)) for future in done]

    def cancel(self, tickets: Sequence[int]) -> None:
        """Forget batches; what they still measure is not collected.

        Raises: FleetError when the scheduler is gone.
        """
        gone = [future for future, batch in self._out.items() if batch.ticket in tickets]
        for future in gone:
            del self._out[future]
        if gone:
            with self._told("take work back"):
                self._client.cancel(gone)

    def _cluster(self) -> Any:
        """Return a cluster on this machine: a scheduler in this process, a process a board, no dashboard, own ports."""
        scratch = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeecc-fleet-"))
        here = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
        workers = {
            board.name: {
                "cls": self._dask.Nanny,
                "options": {
                    "host": "127.0.0.1",
                    "nthreads": 1,
                    "memory_limit": 0,
                    "resources": {board.kind: 1},
                    "dashboard": False,
                    "local_directory": scratch,
                    "silence_logs": logging.CRITICAL,
                },
            }
            for board in self._boards.values()
        }
        return self._dask.SpecCluster(
            workers=workers,
            scheduler={"cls": self._dask.Scheduler, "options": {**here, "port": 0}},
            silence_logs=logging.CRITICAL,
        )

    def _await_workers(self) -> None:
        deadline = time.perf_counter() + WORKERS_S
        while len(self.workers()) < len(self._boards) and time.perf_counter() < deadline:
            time.sleep(0.2)
        if not self._addresses:
            board = next(iter(self._boards.values()))
            raise FleetError(
                f"the scheduler {self._scheduler or 'here'} has no worker of a board; start one for each, such as: "
                f'dask worker {self._scheduler} --name {board.name} --nthreads 1 --resources "{board.kind}=1"'
            )

    def _close(self) -> None:
        with contextlib.suppress(
            Exception
        ):  # on the way out; workers that hang are ended by their nanny
            self._client.cancel(list(self._out))
            self._out.clear()
            self._client.sync(self._end_boards)
        with contextlib.suppress(Exception):
            self._client.close(timeout=_CLOSE_S)

    async def _end_boards(self) -> None:
        run = self._client.run(
            end_boards, workers=list(self._addresses.values()), on_error="ignore"
        )
        await asyncio.wait_for(run, _CLOSE_S)

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Say in one line that the scheduler is gone."""
        try:
            yield
        except (OSError, RuntimeError, *_LATE) as error:
            raise FleetError(
                f"cannot {what}, the scheduler {self._scheduler or 'here'} is gone: {brief(error)}; what was measured "
                "is kept, and the same command goes on"
            ) from error


def measure_batch(board: Board, order: Order, batch: Batch) -> Answer:
    """Measure a batch on the board of this worker: what runs in a worker."""
    process = _driven.get(board.name)
    if process is None or (process.board, process.order) != (board, order):
        if process is not None:
            process.close()
        process = _driven[board.name] = BoardProcess(board, order)
        atexit.register(process.close)
    found: List[Tuple[Union[Row, Failure], float]] = []
    meter = ""
    for number, widths in batch.tasks:
        try:
            one, by, wall_s = process.measure(number, list(widths.values()))
        except MeterError as error:
            return Answer(tuple(found), meter, str(error))
        if isinstance(one, Failure) and number < 0:  # without anchors it can be held to nothing
            return Answer(tuple(found), meter, f"it cannot build variant {number}: {one.why}")
        found.append((one, wall_s))
        meter = by or meter
    return Answer(tuple(found), meter)


def end_boards() -> None:
    """End what this worker drives."""
    while _driven:
        _driven.popitem()[1].close()


def _answer(future: Any) -> Answer:
    """Return what a finished task says."""
    error: Optional[BaseException] = None
    try:
        found = future.result(timeout=_ANSWER_S)
    except Exception as failed:  # whatever went wrong over there
        error = failed
    if error is None and isinstance(found, Answer):
        return found
    return Answer(
        (), "", f"its worker failed: {type(error).__name__}: {brief(error or ValueError())}"
    )


class _Forgotten(logging.Filter):
    """Drops what asyncio says of waits that Dask gave up and forgot, which may come as late as the process ends."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is of anything else."""
        return "AllExit" not in record.getMessage()


_FORGOTTEN = _Forgotten()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's own words back: what happens to boards is told by us; and its hands off our environment."""
    import dask

    logging.getLogger("asyncio").addFilter(_FORGOTTEN)  # stays, see there
    seed = os.environ.get("PYTHONHASHSEED")
    # Dask gives some of the loggers below these levels of their own, such as tornado.application's: an interrupted wait
    # that had not begun is told there.
    loggers = [
        logging.getLogger(name)
        for name in list(logging.root.manager.loggerDict)
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with dask.config.set({"distributed.nanny.pre-spawn-environ": {}}):
            yield
    finally:
        if seed is None:
            os.environ.pop("PYTHONHASHSEED", None)
        else:
            os.environ["PYTHONHASHSEED"] = seed
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
