"""Whether a board still measures as it did at its start: the judgement on a canary, the dense network measured again.

A board that throttles runs slower, and mostly at another energy; either is seen in the canary. A board whose host or
cable is slow measures right, but late; that is seen in the wall time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

from edgeecc.cost.offsets import relative_error
from edgeecc.cost.samples import Row

#: Canaries differ when they do so by more than their drift, or so many standard errors where noise is larger.
_SIGMAS = 5.0
#: Wall time may grow by so much, seconds, before its factor counts: below it, it is the host that was busy.
WALL_FLOOR_S = 1.0


@dataclass(frozen=True)
class Canary:
    """The dense network, measured on a board.

    Args:
        row: what was measured.
        wall_s: from question to answer; None where it was in an earlier session.
    """

    row: Row
    wall_s: Optional[float] = None


def complaint(now: Canary, start: Canary, drift: float, slow_factor: float) -> str:
    """Return in what a canary differs from the board's first; empty when in nothing.

    Args:
        now, start: canaries of one board.
        drift, slow_factor: see `FleetConfig`.
    """
    noise = math.hypot(relative_error(now.row), relative_error(start.row))
    allowed = max(drift, _SIGMAS * noise)
    change = now.row.value / start.row.value
    if abs(change - 1.0) > allowed:
        return f"the dense network costs {change:.2f} times what it did at its start"
    if now.row.latency_s and start.row.latency_s:
        change = now.row.latency_s / start.row.latency_s
        if change - 1.0 > allowed:
            return f"the dense network takes {change:.2f} times as long as at its start"
    if now.wall_s is not None and start.wall_s is not None:
        late = now.wall_s - start.wall_s
        if late > WALL_FLOOR_S and now.wall_s > slow_factor * start.wall_s:
            return f"a measurement takes {now.wall_s:.1f} s, at its start {start.wall_s:.1f} s"
    return ""
