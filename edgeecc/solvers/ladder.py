"""Integer widths that hold the limits at the most importance: repair, fill, and swaps at constant cost (ours).

A ladder lists the widths that a group may end on: every whole number, or the multiples of a device's channel
tile. A rung is worth the importance of the units between it and the one below. Of two groups' rungs the cost
models tell what they cost together, products included, so every move here is judged by `Problem.fits` itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

import numpy as np

from edgeecc.errors import ConfigError
from edgeecc.graph.spec import FloatArray, IntArray
from edgeecc.solvers.base import Problem

#: A swap must gain at least this share of what it moves, so that rounding cannot make it go in circles.
GAIN = 1e-9
#: Price of a unit that costs nothing, as a share of the dearest.
FREE = 1e-12


@dataclass(frozen=True)
class Ladder:
    """The widths of a group that may be chosen, and the importance that each keeps.

    Args:
        widths: (n,), rising, whole numbers from 1.
        kept: (n,), the sum of the importance of that many of the most important units.
    """

    widths: IntArray
    kept: FloatArray


def ladder(
    importance: FloatArray, tile: int = 1, dense: int = 0, *, below: bool = False, least: int = 1
) -> Ladder:  # fmt: skip
    """Return the ladder of a group: the multiples of `tile`, and its dense width.

    Args:
        importance: of the units that may stay, (c,), any order, c >= 1.
        tile: channels that the device rounds a width up to, at least 1.
        dense: width of the group; where all its units may stay, they are a rung too.
        below: whether every width below a tile is a rung too.
        least: units that stay at least, where there are so many.
    Returns: without `below`, and fewer than a tile left, the only rung is all of them.
    Raises: ConfigError for a tile below 1.
    """
    if tile < 1:
        raise ConfigError(f"tile {tile} must be at least 1 channel")
    count = len(importance)
    rungs = [*range(1, min(tile, count + 1) if below else 1), *range(tile, count + 1, tile)]
    if not rungs or (count == dense and count % tile and count not in rungs):
        rungs.append(count)
    widths = np.array([width for width in rungs if width >= min(least, count)], dtype=np.int64)
    total = np.cumsum(np.sort(importance)[::-1])
    return Ladder(widths, np.asarray(total[widths - 1], dtype=np.float64))


def integer_widths(problem: Problem, ladders: Sequence[Ladder], start: FloatArray) -> FloatArray:
    """Return widths on the ladders that hold every limit, near `start`, that no single move betters.

    Rounds `start` down onto the ladders, goes down the rung of least importance per load until the limits hold,
    up again where there is room, and swaps rungs of two groups while that keeps more importance.

    Args:
        problem: for its limits.
        ladders: of each group.
        start: (G,), real-valued.
    Returns: (G,). Where the lowest rungs do not hold the limits, they are what is returned.
    """
    climb = _Climb(problem, ladders, start)
    climb.down()
    if problem.fits(climb.widths()):
        climb.up()
        climb.swap()
    return climb.widths()


def widths_by_tiles(
    problem: Problem, tiled: Sequence[Ladder], single: Sequence[Ladder], start: FloatArray
) -> FloatArray:
    """Return integer widths as `integer_widths` does, where costs rise by whole tiles.

    A single channel more then costs a tile or nothing, which no move by one shows. So whole tiles are settled first
    and single channels use up what they leave; of that and of single channels alone what keeps more is taken.

    Args:
        problem: for its limits.
        tiled: ladders of whole tiles, and of single channels below one.
        single: of all widths that may be chosen.
        start: (G,), real-valued.
    """
    coarse = integer_widths(problem, tiled, start)
    ways = [integer_widths(problem, single, near) for near in (coarse, start)]
    kept = [
        sum(
            float(rungs.kept[np.searchsorted(rungs.widths, width)])
            for rungs, width in zip(single, widths)
        )
        for widths in ways
    ]
    return ways[int(np.argmax(kept))]


def repaired(problem: Problem, ladders: Sequence[Ladder], start: FloatArray) -> FloatArray:
    """Return widths that hold every limit, near `start`: down where they do not, up where there is room.

    Args: see `integer_widths`, which swaps too.
    """
    climb = _Climb(problem, ladders, start)
    climb.down()
    climb.up()
    return climb.widths()


def widths_around(problem: Problem, ladders: Sequence[Ladder], start: FloatArray) -> FloatArray:
    """Return widths just beyond the limits, near `start`: what holds them, filled up, and one rung more.

    So units that a later landing may want are not lost to the rounding of a round on the way.

    Args: see `integer_widths`.
    """
    climb = _Climb(problem, ladders, start)
    climb.down()
    climb.up()
    climb.over()
    return climb.widths()


class _Climb:
    """Positions on ladders, moved in place."""

    def __init__(self, problem: Problem, ladders: Sequence[Ladder], start: FloatArray) -> None:
        self._problem = problem
        self._ladders = list(ladders)
        rungs = [
            int(np.searchsorted(one.widths, width + GAIN, side="right")) - 1
            for one, width in zip(ladders, start)
        ]
        self._at: IntArray = np.maximum(rungs, 0).astype(np.int64)

    def widths(self) -> FloatArray:
        """Return the widths of the positions, (G,)."""
        return self._widths(self._at)

    def down(self) -> None:
        """Go down until the limits hold or every group is on its lowest rung."""
        while not self._problem.fits(self.widths()):
            price = self._prices(self.widths())
            ratio = np.full(len(self._at), np.inf)
            for group, place in enumerate(self._at):
                if place > 0:
                    width = float(np.diff(self._ladders[group].widths[place - 1 : place + 1])[0])
                    ratio[group] = self._worth(group, place) / (width * price[group])
            if not np.isfinite(ratio).any():
                return
            self._at[int(np.argmin(ratio))] -= 1

    def up(self) -> None:
        """Go up while the limits hold, most importance per load first."""
        while True:
            best = self._dearest_up(self._at)
            if best is None:
                return
            self._at[best] += 1

    def over(self) -> None:
        """Go up one rung, the one of most importance per load, whether it fits or not."""
        best = self._dearest_up(self._at, fitting=False)
        if best is not None:
            self._at[best] += 1

    def swap(self) -> None:
        """Trade rungs of two groups while more importance is kept; each trade fills the room that it leaves."""
        groups = range(len(self._at))
        better = True
        while better:
            better = False
            for lower in groups:
                for upper in groups:
                    trial = self._traded(lower, upper)
                    if trial is not None and self._kept(trial) > self._kept(self._at) * (
                        1.0 + GAIN
                    ):
                        self._at, better = trial, True

    def _traded(self, lower: int, upper: int) -> Optional[IntArray]:
        """Return positions with `upper` a rung up, and `lower` as many rungs down as the limits ask; None: cannot."""
        trial: IntArray = self._at.copy()
        trial[upper] += 1
        if lower == upper or trial[upper] >= len(self._ladders[upper].widths):
            return None
        gain = self._worth(upper, trial[upper])
        lost = 0.0
        while not self._problem.fits(self._widths(trial)):
            lost += self._worth(lower, trial[lower])
            if trial[lower] == 0 or lost >= gain:
                return None
            trial[lower] -= 1
        more = self._dearest_up(trial)
        while more is not None:
            trial[more] += 1
            more = self._dearest_up(trial)
        return trial

    def _dearest_up(self, at: IntArray, *, fitting: bool = True) -> Optional[int]:
        """Return the group whose next rung fits, where it must, and keeps most importance per load, or None."""
        widths = self._widths(at)
        price = self._prices(widths)
        best: Tuple[float, Optional[int]] = (-1.0, None)
        for group, rungs in enumerate(self._ladders):
            place = at[group] + 1
            if place >= len(rungs.widths):
                continue
            step = float(rungs.widths[place] - widths[group])
            ratio = self._worth(group, place) / (step * price[group])
            if ratio > best[0]:
                trial = widths.copy()
                trial[group] += step
                if not fitting or self._problem.fits(trial):
                    best = (ratio, group)
        return best[1]

    def _prices(self, widths: FloatArray) -> FloatArray:
        """Return the load of a unit of each group, (G,); what costs nothing costs very little here."""
        slope = self._problem.load_gradient(widths)
        return np.maximum(slope, FREE * float(slope.max(initial=0.0)) + FREE**2)

    def _worth(self, group: int, place: int) -> float:
        """Return the importance of the units between a rung and the one below."""
        kept = self._ladders[group].kept
        return float(kept[place] - (kept[place - 1] if place else 0.0))

    def _kept(self, at: IntArray) -> float:
        return sum(float(rungs.kept[place]) for rungs, place in zip(self._ladders, at))

    def _widths(self, at: IntArray) -> FloatArray:
        chosen: List[int] = [int(rungs.widths[place]) for rungs, place in zip(self._ladders, at)]
        return np.array(chosen, dtype=np.float64)
