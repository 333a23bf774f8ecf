"""How often the rows of an image are read because the input cache holds fewer than all of them.

The cache takes consecutive rows, padding included, while they fit, and serves the output rows whose windows
lie in them; the next batch begins where the next window does, and rows that two batches share are read twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Tuple

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
#: (first row, end, first row of the next batch); the last batch is left out.
Schedule = List[Tuple[int, int, int]]


@dataclass(frozen=True)
class Rows:
    """The rows of an input and the windows on them.

    Args:
        nonzeros: of each row, without padding.
        above: rows of padding before them.
        window, stride, windows: height, step and number of the windows, rows.
    """

    nonzeros: IntArray
    above: int
    window: int
    stride: int
    windows: int

    def before(self) -> IntArray:
        """Return the nonzeros before each row, padding included; one entry more than rows."""
        reached = (self.windows - 1) * self.stride + self.window
        behind = max(0, reached - len(self.nonzeros) - self.above)
        return np.cumsum(np.pad(self.nonzeros, (self.above + 1, behind)), dtype=np.int64)

    def schedule(self, words: int) -> Schedule:
        """Return the batches that a cache of so many words takes, each as far as it goes, at least a window."""
        before = self.before()
        found: Schedule = []
        start, served = 0, 0
        while True:
            end = int(np.searchsorted(before, before[start] + words, side="right")) - 1
            end = min(max(end, start + self.window), len(before) - 1)
            here = (end - start - self.window) // self.stride + 1
            served += here
            if served >= self.windows:
                return found
            found.append((start, end, start + here * self.stride))
            start += here * self.stride


def read_again(dense: Rows, words: int) -> int:
    """Return the words of a dense input that are read again."""
    return _shared(dense.before(), dense.schedule(words))


def read_again_masked(dense: Rows, nonzeros: IntArray, words: int) -> int:
    """Return the nonzeros of a masked input that are read again.

    The published code fills the cache anew for every mask, which can cost more for a smaller one. Here a mask
    may use any schedule that the dense input would have in some larger cache, if each of its batches fits,
    and uses the one with the fewest reads (ours): no masked input ever costs energy.

    Args:
        dense: the rows of the dense input, equally full.
        nonzeros: of each row under the mask.
        words: capacity of the cache.
    """
    before = Rows(nonzeros, dense.above, dense.window, dense.stride, dense.windows).before()
    row = int(dense.nonzeros[0])
    schedule = dense.schedule(words)
    least = _shared(before, schedule)
    for held in range(words // row + 1, len(nonzeros) + 1):
        if not least:
            break
        schedule = dense.schedule(held * row)
        if _largest(before, schedule) <= words:
            least = min(least, _shared(before, schedule))
    return least


def _shared(before: IntArray, schedule: Schedule) -> int:
    return sum(int(before[end] - before[min(following, end)]) for _, end, following in schedule)


def _largest(before: IntArray, schedule: Schedule) -> int:
    last = schedule[-1][2] if schedule else 0
    held = [before[end] - before[first] for first, end, _ in schedule]
    return int(max([*held, before[-1] - before[last]]))
