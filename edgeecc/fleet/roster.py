"""Who of a fleet measures what next, and what becomes of it: plain bookkeeping, without processes or clocks.

Every sample is handed to one board. It counts when it arrives, and is handed out again when its board is gone or a
canary condemns what the board measured since its last good one. One that cannot be built on a board is not handed out
again, for all boards are of one kind. A board that was slow or gone rests and must then measure a good canary; one that
does so too often in a row, or never answered, is given up.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections import deque
from dataclasses import dataclass, field, replace
from statistics import median
from typing import (
    Deque,
    Dict,
    Iterator,
    List,
    Literal,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
    Union,
)

from edgeecc.cost.samples import Check, Failure, Row
from edgeecc.crew import Found, Task
from edgeecc.errors import FleetError
from edgeecc.fleet.watch import Canary, complaint
from edgeecc.fleet_config import FleetConfig

log = logging.getLogger(__name__)

#: Batches that wait at a board: one is measured, one is ready.
DEPTH = 2
MAX_BATCH = 64
#: Boards that one variant may take down before it is called the culprit.
BLAMED = 3
#: Measurements whose wall time is remembered.
_REMEMBERED = 25
State = Literal["new", "fine", "slow", "dead"]
Kind = Literal["canary", "shared", "samples"]


@dataclass(frozen=True)
class Batch:
    """Variants that a board is asked for at once.

    Args:
        ticket: unique number.
        board: name.
        kind: "canary": the dense network, to check the board; "shared": to compare boards; "samples".
        tasks: in the order in which they are measured.
    """

    ticket: int
    board: str
    kind: Kind
    tasks: Tuple[Task, ...]


@dataclass(frozen=True)
class Answer:
    """What came of a batch.

    Args:
        found: of the first variants of the batch: the row, or why it cannot be built, and the wall time in seconds.
        meter: name, empty where nothing was measured.
        fault: why the rest is missing; empty when nothing is.
    """

    found: Tuple[Tuple[Union[Row, Failure], float], ...]
    meter: str = ""
    fault: str = ""


@dataclass
class Post:
    """What is known of one board.

    Args:
        name: the board's.
        state: "slow" and "dead" boards rest until `rests_until_s`, for good where `gone`.
        why: it is slow or dead; stays to be told when it has recovered.
        start: its first good canary.
        owed: shared variants that it has yet to measure.
        unchecked: samples since its last good canary.
        out: batches that it has.
        strikes: times in a row that it was slow or gone.
        walls_s: seconds that its last measurements took.
        samples, busy_s: it has measured, and how long all its measurements took.
    """

    name: str
    state: State = "new"
    why: str = ""
    gone: bool = False
    rests_until_s: float = 0.0
    start: Optional[Canary] = None
    owed: Deque[Task] = field(default_factory=deque)
    unchecked: List[Task] = field(default_factory=list)
    out: Dict[int, Batch] = field(default_factory=dict)
    strikes: int = 0
    walls_s: Deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    samples: int = 0
    measured: int = 0
    busy_s: float = 0.0

    @property
    def since(self) -> int:
        """Samples that it has measured, or is to, since its last good canary."""
        asked = [len(batch.tasks) for batch in self.out.values() if batch.kind == "samples"]
        return len(self.unchecked) + sum(asked)


class Roster:
    """The boards of a fleet and the variants that they are to measure.

    Args:
        boards: names.
        config: see `FleetConfig`.
        dense, thinnest: the anchors, which every board measures.
    """

    def __init__(
        self, boards: Sequence[str], config: FleetConfig, dense: Task, thinnest: Task
    ) -> None:
        self.posts = {name: Post(name) for name in boards}
        self._config, self._dense, self.thinnest = config, dense, thinnest
        self._queue: Deque[Task] = deque()
        self._wanted: Set[int] = set()
        self._blamed: Dict[int, Set[str]] = {}
        self._failed: Dict[int, Failure] = {}
        self._tickets = itertools.count()
        self._begun = False

    def begin(self, tasks: Sequence[Task], repeats: Sequence[Row]) -> None:
        """Take in variants to measure; what every board shares is chosen the first time.

        Args:
            tasks: each with a number of its own.
            repeats: what boards measured in earlier sessions.
        """
        self._queue.extend(tasks)
        self._wanted.update(number for number, _ in tasks)
        if self._begun:
            return
        self._begun = True
        samples = [task for task in tasks if task[0] >= 0]
        for post in self.posts.values():
            mine = [row for row in repeats if row.board == post.name]
            known = [row for row in mine if row.number == self._dense[0]]
            post.start = Canary(known[0]) if known else None
            post.owed.extend([self.thinnest, *samples[: self._config.shared]])
            if any(row.number == self.thinnest[0] for row in mine):
                post.owed.clear()  # it was compared in an earlier session

    def missing(self) -> int:
        """Return how many variants are still wanted."""
        return len(self._wanted)

    def alive(self) -> int:
        """Return how many boards can measure now."""
        return sum(post.state in ("new", "fine") for post in self.posts.values())

    def finished(self) -> bool:
        """Return whether everything is measured, and checked where its board can still be."""
        return not self._wanted and not any(
            post.state == "fine" and (post.out or post.unchecked or post.owed)
            for post in self.posts.values()
        )

    def next(self, board: str, now_s: float) -> Optional[Batch]:
        """Return what a board is to measure next, None when nothing for now; the batch is then out."""
        post = self.posts[board]
        kind = self._turn(post, now_s)
        if kind is None:
            return None
        size = self._size(post)
        if kind == "canary":
            tasks = [self._dense]
        elif kind == "shared":
            tasks = [post.owed.popleft() for _ in range(min(size, len(post.owed)))]
        else:
            boards = max(1, self.alive())
            share = math.ceil(len(self._queue) / (2 * boards))  # so that all end together
            room = self._config.canary_every - post.since
            tasks = [self._queue.popleft() for _ in range(min(size, share, room))]
        batch = Batch(next(self._tickets), board, kind, tuple(tasks))
        post.out[batch.ticket] = batch
        return batch

    def take(self, board: str, ticket: int, answer: Answer, now_s: float) -> Iterator[Found]:
        """Take in what came of a batch and yield what is to be kept; batches that are not out are ignored.

        Raises: FleetError when a variant has taken down too many boards.
        """
        post = self.posts[board]
        batch = post.out.pop(ticket, None)
        if batch is None:
            return
        for found, wall_s in answer.found:
            if isinstance(found, Failure):
                yield from self._could_not_be_built(post, found)
                continue
            post.walls_s.append(wall_s)
            post.busy_s += wall_s
            post.measured += 1
            yield from self._arrived(post, batch, found, wall_s, now_s)
        if answer.fault:
            left = batch.tasks[len(answer.found) :]
            self._give_back(post, batch, left)
            self._blame(post, batch, left, answer.fault)
            self.lose(board, answer.fault, now_s, never=post.measured == 0)

    def lose(self, board: str, why: str, now_s: float, *, never: bool = False) -> List[int]:
        """Note that a board is gone; what it had goes to others. Where it was never there, it is given up.

        Returns: tickets of batches that were out and are no more.
        """
        post = self.posts[board]
        tickets = self._recall(post)
        self._stop(post, "dead", why, now_s, never=never)
        return tickets

    def recall(self) -> List[int]:
        """Take every batch back and forget what is wanted.

        Returns: tickets of batches that were out.
        """
        tickets = [ticket for post in self.posts.values() for ticket in self._recall(post)]
        self._queue.clear()
        self._wanted.clear()
        return tickets

    def check(self) -> None:
        """Check that somebody can go on.

        Raises: FleetError when variants are wanted and every board is given up.
        """
        if self._wanted and all(post.gone for post in self.posts.values()):
            fates = "; ".join(
                f"{post.name} {post.state}: {post.why}" for post in self.posts.values()
            )
            raise FleetError(
                f"no board is left ({fates}); {self.missing()} samples are missing, what was measured is kept, and the "
                "same command goes on"
            )

    def report(self) -> Dict[str, Dict[str, object]]:
        """Return for each board its state, why, and how fast it measured."""
        middles = {name: median(post.walls_s) for name, post in self.posts.items() if post.walls_s}
        return {
            name: {
                "state": post.state,
                "why": post.why or self._late(name, middles),
                "measured": post.samples,
                "samples_per_s": post.measured / post.busy_s if post.busy_s > 0.0 else None,
            }
            for name, post in self.posts.items()
        }

    def _late(self, name: str, middles: Mapping[str, float]) -> str:
        """Return by how much a board is slower than the median of the fleet, where that is worth a word."""
        if name not in middles:
            return ""
        usual, own = median(middles.values()), middles[name]
        if own <= self._config.slow_factor * usual:
            return ""
        return f"takes {own / usual:.1f} times as long as the fleet's median"

    def _turn(self, post: Post, now_s: float) -> Optional[Kind]:
        """Return what kind of batch a board gets now, None for none."""
        if post.gone or any(batch.kind == "canary" for batch in post.out.values()):
            return None
        if post.state != "fine":
            due = not post.out and self._wanted and now_s >= post.rests_until_s
            return "canary" if due else None
        if len(post.out) >= DEPTH:
            return None
        if post.owed:
            return "shared"
        full = post.since >= self._config.canary_every
        if full or (not self._queue and post.unchecked):
            return None if post.out else "canary"
        return "samples" if self._queue else None

    def _size(self, post: Post) -> int:
        if not post.walls_s:
            return 1
        return max(1, min(MAX_BATCH, int(self._config.batch_s / max(1e-9, median(post.walls_s)))))

    def _could_not_be_built(self, post: Post, failure: Failure) -> Iterator[Failure]:
        """Note a variant that failed on a board, for all boards; what another has measured of it stays."""
        if failure.number not in self._failed:
            log.warning(
                "board %s cannot build variant %d: %s", post.name, failure.number, failure.why
            )
            self._failed[failure.number] = failure
        for one in self.posts.values():
            one.owed = deque(task for task in one.owed if task[0] != failure.number)
        self._queue = deque(task for task in self._queue if task[0] != failure.number)
        if failure.number in self._wanted:
            self._wanted.discard(failure.number)
            yield failure

    def _arrived(
        self, post: Post, batch: Batch, row: Row, wall_s: float, now_s: float
    ) -> Iterator[Found]:  # fmt: skip
        if batch.kind == "canary":
            yield from self._judged(post, Canary(row, wall_s), now_s)
        elif batch.kind == "shared":
            yield _of(row, post, repeat=True)
        elif row.number in self._wanted:
            self._wanted.discard(row.number)
            post.unchecked.append(next(task for task in batch.tasks if task[0] == row.number))
            post.samples += 1
            yield _of(row, post, repeat=False)

    def _judged(self, post: Post, canary: Canary, now_s: float) -> Iterator[Found]:
        start = post.start or canary
        why = complaint(canary, start, self._config.drift, self._config.slow_factor)
        if why:
            yield Check(post.name, fine=False)
            again = [task for task in post.unchecked if task[0] not in self._failed]
            self._queue.extend(again)
            self._wanted.update(number for number, _ in again)
            yield from (
                self._failed[number] for number, _ in post.unchecked if number in self._failed
            )
            post.samples -= len(post.unchecked)
            post.unchecked.clear()
            self._stop(post, "slow", why, now_s, never=False)
            return
        if post.start is None or post.start.wall_s is None:
            post.start = Canary(start.row, canary.wall_s)
        if post.unchecked:
            post.strikes = 0  # it has done something that counts
        if post.state in ("slow", "dead"):
            log.warning("board %s is back", post.name)
            post.why = f"was {post.state}: {post.why}"
        post.state = "fine"
        post.unchecked.clear()
        yield _of(canary.row, post, repeat=True)
        yield Check(post.name, fine=True)

    def _stop(self, post: Post, state: State, why: str, now_s: float, *, never: bool) -> None:
        """Let a board rest, or give it up: at once when it never answered, and for good."""
        if post.gone:
            return
        post.strikes += 1
        post.state, post.why = state, why
        post.gone = never or post.strikes > self._config.rests
        post.rests_until_s = now_s + self._config.rest_s * 2.0 ** (post.strikes - 1)
        fate = "it is given up" if post.gone else "it rests"
        log.warning("board %s is %s, %s: %s", post.name, state, fate, why)

    def _recall(self, post: Post) -> List[int]:
        tickets = list(post.out)
        for batch in post.out.values():
            self._give_back(post, batch, batch.tasks)
        post.out.clear()
        return tickets

    def _give_back(self, post: Post, batch: Batch, tasks: Sequence[Task]) -> None:
        tasks = [task for task in tasks if task[0] not in self._failed]
        if batch.kind == "samples":
            self._queue.extendleft(reversed(tasks))
        elif batch.kind == "shared":
            post.owed.extendleft(reversed(tasks))

    def _blame(self, post: Post, batch: Batch, left: Sequence[Task], why: str) -> None:
        if not left or batch.kind == "canary":
            return
        number = left[0][0]
        boards = self._blamed.setdefault(number, set())
        boards.add(post.name)
        if len(boards) >= BLAMED:
            raise FleetError(
                f"variant {number} has ended {len(boards)} boards ({', '.join(sorted(boards))}), the last with: {why}; "
                "what was measured is kept; measure it alone with edgeecc measure"
            )


def _of(row: Row, post: Post, *, repeat: bool) -> Row:
    """Return the row with the name of its board."""
    return replace(row, board=post.name, repeat=repeat)
