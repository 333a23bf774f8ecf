"""Do the work of the next steps in threads while this one's result is in use."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Callable, Dict, Generic, List, Optional, Tuple, TypeVar

T = TypeVar("T")
#: Work and where its result goes; None ends a thread.
Task = Optional[Tuple["Future[Any]", Callable[[], Any]]]

#: Steps whose work is done ahead: one in hand, one to go on with; bounds memory.
AHEAD = 2
#: Parts of a step for each thread: small enough that threads finish together and stop soon.
PARTS = 2


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


class Prefetch(Generic[T]):
    """Results of numbered steps, in parts; steps are usually asked for one after the other.

    The results do not depend on the number of threads. An error is raised by the step whose work failed. What was
    begun ahead and is not wanted any more is dropped, when the object goes as well as when the process ends.

    Args:
        parts: called with a step and a number of parts, returns the work to do, in about so many parts; it runs in the
            calling thread, the work in any. Must not hold this object. No work ends the steps.
        workers: threads; 0 does all work when it is asked for.
    """

    def __init__(
        self, parts: Callable[[int, int], List[Callable[[], T]]], workers: int, ahead: int = AHEAD
    ) -> None:
        self._parts, self._workers, self._ahead = parts, workers, ahead
        self._begun: Dict[int, List[Future[T]]] = {}
        self._pool: Optional[_Pool] = None

    def get(self, step: int) -> List[T]:
        """Return the results of a step.

        Raises: whatever its work raises.
        """
        if not self._workers:
            return [work() for work in self._parts(step, 1)]
        wanted = range(step, step + self._ahead + 1)
        for other in [other for other in self._begun if other not in wanted]:
            _cancel(self._begun.pop(other))
        for other in wanted:
            if other not in self._begun:
                self._begun[other] = self._begin(other)
        futures = self._begun.pop(step)
        try:
            return [future.result() for future in futures]
        finally:
            _cancel(futures)

    def _begin(self, step: int) -> List[Future[T]]:
        if self._pool is None:
            self._pool = _Pool(self._workers)
            weakref.finalize(self, self._pool.close)
        return [self._pool.submit(work) for work in self._parts(step, PARTS * self._workers)]


def _cancel(futures: List[Future[T]]) -> None:
    for future in futures:
        future.cancel()


class _Pool:
    """Threads that a process does not wait for, unlike those of `concurrent.futures`, beyond the work in hand."""

    def __init__(self, workers: int) -> None:
        self._tasks: SimpleQueue[Task] = SimpleQueue()
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=_work, args=(self._tasks, self._closed), daemon=True)
            for _ in range(workers)
        ]
        for thread in self._threads:
            thread.start()
        _POOLS.add(self)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self._tasks.put((future, work))
        return future

    def close(self) -> None:
        """Drop what has not begun; does not wait."""
        self._closed.set()
        for _ in self._threads:
            self._tasks.put(None)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def _work(tasks: SimpleQueue[Task], closed: threading.Event) -> None:
    while True:
        task = tasks.get()
        if task is None:
            return
        future, work = task
        if closed.is_set() or not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(work())
        except BaseException as error:  # raised again where the result is asked for
            future.set_exception(error)
        del task, future, work  # hold no result while waiting


_POOLS: weakref.WeakSet[_Pool] = weakref.WeakSet()


def _end() -> None:
    """Let no thread outlive the interpreter: one that wakes up in its ruins may crash the process."""
    for pool in list(_POOLS):
        pool.close()
        pool.join()


atexit.register(_end)
