"""What long work tells while it runs; how it is shown is the command line's business."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Optional, Tuple

from edgeecc.units import Metric


@dataclass(frozen=True)
class Load:
    """What the metric of a budget comes to now.

    Args:
        metric: what is bounded.
        now: SI.
        bound: the most that is allowed, SI, above 0.
        meter: what tells `now`, a meter or a model of one.
    """

    metric: Metric
    now: float
    bound: float
    meter: str


@dataclass(frozen=True)
class Score:
    """The last score that is known.

    Args:
        name: as the task calls it.
        value: 0..1, more is better.
        of: what was scored, such as "dense".
    """

    name: str
    value: float
    of: str


@dataclass(frozen=True)
class Progress:
    """Where a piece of work stands.

    Args:
        phase: what is being done, in words that a user reads.
        done, total: how much of it is done and is to be done; a total of 0 is not known.
        unit: what they count, plural; empty where they count parts that take unlike times, which have no rate.
        at_most: whether less than the total may do.
        left_s: seconds left, where the work knows better than its rate.
        loads: of each budget, in the user's order.
        loss: of the last batch.
        score: see `Score`.
        note: whatever else is worth a few words.
    """

    phase: str
    done: int = 0
    total: int = 0
    unit: str = ""
    at_most: bool = False
    left_s: Optional[float] = None
    loads: Tuple[Load, ...] = ()
    loss: Optional[float] = None
    score: Optional[Score] = None
    note: str = ""


#: Told of progress.
OnProgress = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Take no notice."""
    del progress
