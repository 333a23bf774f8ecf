"""What a cell's process says to the one that started it: its progress and its log, as JSON over a pipe.

The log of many processes would otherwise be written through the display of one.
"""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import asdict
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any, Dict, Optional

from edgeecc.progress import Load, Progress, Score
from edgeecc.units import Metric

#: Seconds between two words of progress.
EVERY_S = 0.5


class Voice(logging.Handler):
    """A process's voice; as a handler it says what is logged.

    Args:
        out: of the pipe; None where nobody listens.
    """

    def __init__(self, out: Optional[Connection]) -> None:
        super().__init__()
        self._out = out
        self._last = float("-inf")

    def tell(self, progress: Progress) -> None:
        """Say where the work stands, now and then."""
        now = perf_counter()
        if now - self._last >= EVERY_S:
            self._last = now
            loads = [{**asdict(load), "metric": load.metric.value} for load in progress.loads]
            self._say({"progress": {**asdict(progress), "loads": loads}})

    def emit(self, record: logging.LogRecord) -> None:
        """Say what was logged."""
        self._say({"logger": record.name, "level": record.levelno, "text": record.getMessage()})

    def _say(self, words: Dict[str, object]) -> None:
        if self._out is not None:
            with contextlib.suppress(OSError):  # nobody listens any more
                self._out.send_bytes(json.dumps(words).encode())


def heard(said: bytes) -> Optional[Progress]:
    """Take in what a process said: return progress, and log what it logged."""
    words: Dict[str, Any] = json.loads(said)
    if "progress" not in words:
        logging.getLogger(words["logger"]).log(words["level"], "%s", words["text"])
        return None
    told = words["progress"]
    loads = tuple(Load(**{**load, "metric": Metric(load["metric"])}) for load in told["loads"])
    score = None if told["score"] is None else Score(**told["score"])
    return Progress(**{**told, "loads": loads, "score": score})
