"""Work ahead: the same results for any number of threads, errors at their step, no end that hangs."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Callable, List, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.data.prefetch import AHEAD, Prefetch
from edgeecc.data.splits import Batch, Batches, in_order, usual_workers

ROOT = Path(__file__).parents[3]


class Numbers:
    """A split whose images are their index, the pass beside it."""

    decodes = True

    def __init__(self, count: int) -> None:
        self.count = count
        self.taken: List[Sequence[int]] = []

    def __len__(self) -> int:
        return self.count

    def take(self, indices: Sequence[int], turn: int = 0) -> Batch:
        self.taken.append(indices)
        if 13 in indices and turn == 1:
            raise ValueError("thirteen")
        rows = [[float(index), float(turn)] for index in indices]
        return torch.tensor(rows).reshape(-1, 2, 1, 1), torch.tensor(list(indices))


@given(
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(1, 4),
    st.lists(st.integers(0, 9), max_size=6),
)
def test_batches_do_not_depend_on_threads_or_on_what_was_asked_before(
    count: int, size: int, workers: int, jumps: List[int]
) -> None:
    plain, ahead = Batches(Numbers(count), size, 3, 0), Batches(Numbers(count), size, 3, workers)
    for step in [*jumps, 0, 1, 2, 3]:
        for found, expected in zip(ahead.batch(step), plain.batch(step)):
            assert torch.equal(found, expected)


@given(st.integers(1, 23), st.integers(1, 9), st.integers(0, 3))
def test_a_split_in_order_is_whole(count: int, size: int, workers: int) -> None:
    found = [labels for _, labels in in_order(Numbers(count), size, workers)]
    assert torch.cat(found).tolist() == list(range(count))
    assert max(map(len, found)) <= size


def test_an_error_is_raised_by_its_step_and_no_other() -> None:
    for workers in (0, 2):
        batches = Batches(Numbers(20), 4, 0, workers)
        failed = []
        for step in range(15):
            try:
                batches.batch(step)
            except ValueError:
                failed.append(step)
        assert len(failed) == 1
        assert 5 <= failed[0] < 10
        with pytest.raises(ValueError, match="thirteen"):
            batches.batch(failed[0])


def test_no_more_is_done_than_so_many_steps_ahead() -> None:
    split = Numbers(1000)
    batches = Batches(split, 10, 0, 2)
    for step in range(5):
        batches.batch(step)
    assert sum(map(len, split.taken)) <= (5 + AHEAD) * 10


def test_only_splits_that_decode_get_threads() -> None:
    assert usual_workers(Numbers(1)) >= 1
    still = Numbers(8)
    still.decodes = False
    assert usual_workers(still) == 0
    before = set(threading.enumerate())
    Batches(still, 4, 0).batch(0)
    assert set(threading.enumerate()) <= before  # threads of other tests may end meanwhile
    assert len(still.taken) == 1


def waiting(event: threading.Event, done: List[int], number: int) -> int:
    event.wait()
    done.append(number)
    return number


def test_what_nobody_waits_for_is_dropped_with_its_threads() -> None:
    event, done = threading.Event(), []

    def parts(step: int, count: int) -> List[Callable[[], int]]:
        return [] if step == 0 else [partial(waiting, event, done, n) for n in range(50)]

    prefetch = Prefetch(parts, 2)
    before = {thread.name for thread in threading.enumerate()}
    assert prefetch.get(0) == []
    threads = [thread for thread in threading.enumerate() if thread.name not in before]
    assert len(threads) == 2
    del prefetch
    gc.collect()
    event.set()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    assert len(done) <= 2


ENDS = {
    "exception": "raise ValueError('training failed')",
    "interrupt": "raise KeyboardInterrupt",
    "end": "pass",
}


@pytest.mark.parametrize("how", sorted(ENDS))
def test_the_process_ends_without_waiting_for_work_ahead(how: str) -> None:
    code = (
        "import time\n"
        "from edgeecc.data.prefetch import Prefetch\n"
        "work = lambda: time.sleep(0.05)\n"
        "kept = Prefetch(lambda step, count: [work] * (1 if step == 0 else 10_000), 2)\n"
        "kept.get(0)\n" + ENDS[how]
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=30, check=False
    )
    assert (done.returncode == 0) == (how == "end"), done.stderr
    assert b"training failed" in done.stderr or how != "exception"
