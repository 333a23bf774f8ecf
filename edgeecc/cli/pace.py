"""How fast work goes, and how long it will take; pure, so that a test may have its own clock."""

from __future__ import annotations

import math
from collections import deque
from typing import Deque, Optional, Tuple

#: Seconds that a rate looks back.
SPAN_S = 60.0
#: Looks that a span keeps at most: closer ones replace each other.
_LOOKS = 120
#: No rate is told of less time.
_LEAST_S = 0.2


class Pace:
    """The recent rate of a count that rises.

    What was done before the first look does not count: a resumed job begins in the middle, and what it did before took
    none of the time since.

    Args:
        span_s: seconds that it looks back; a slower count is looked at over its last two changes.
    """

    def __init__(self, span_s: float = SPAN_S) -> None:
        self._span_s = span_s
        self._looks: Deque[Tuple[float, int]] = deque()

    def look(self, done: int, now_s: float) -> None:
        """Take notice that so much is done; a count that falls starts anew."""
        looks = self._looks
        if looks and done < looks[-1][1]:
            looks.clear()
        if looks and done == looks[-1][1]:
            return  # nothing happened: the rate falls by itself only when something does
        if len(looks) > 1 and now_s - looks[-2][0] < self._span_s / _LOOKS:
            looks.pop()
        looks.append((now_s, done))
        while len(looks) > 2 and now_s - looks[1][0] > self._span_s:
            looks.popleft()

    def rate_hz(self) -> Optional[float]:
        """Return how many a second, None while it cannot be told."""
        if len(self._looks) < 2:
            return None
        (first_s, first), (last_s, last) = self._looks[0], self._looks[-1]
        seconds = last_s - first_s
        return (last - first) / seconds if seconds >= _LEAST_S else None

    def left_s(self, total: int, now_s: float) -> Optional[float]:
        """Return the seconds until `total` are done, None while they cannot be told; never negative."""
        rate = self.rate_hz()
        if not rate:
            return None
        last_s, done = self._looks[-1]
        return max(0.0, (total - done) / rate - (now_s - last_s))


def duration_words(seconds: float) -> str:
    """Return a length of time: 0:07, 12:05, 3:02:09 or 2d 03:02."""
    whole = max(0, math.floor(seconds + 0.5))
    minutes, s = divmod(whole, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d {h:02}:{m:02}"
    return f"{h}:{m:02}:{s:02}" if h else f"{m}:{s:02}"


def rate_words(rate_hz: float, unit: str) -> str:
    """Return a rate a second, a minute or an hour, whichever makes the number at least one."""
    for seconds, name in ((1.0, "s"), (60.0, "min")):
        if rate_hz * seconds >= 1.0:
            return f"{_figure(rate_hz * seconds)} {unit}/{name}"
    return f"{_figure(rate_hz * 3600.0)} {unit}/h"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100.0 else f"{value:.1f}"
