"""The boards of a fleet as one crew: what `calibrate` has in place of the bench at hand."""

from __future__ import annotations

import contextlib
from time import perf_counter
from typing import Dict, Iterator, List, Mapping, Protocol, Sequence, Tuple

from edgeecc.cost.samples import DENSE, THINNEST, Row
from edgeecc.crew import Found, Task
from edgeecc.errors import FleetError
from edgeecc.fleet.board_process import Order
from edgeecc.fleet.boards import Board
from edgeecc.fleet.dispatch import Dispatcher
from edgeecc.fleet.roster import Answer, Batch, Roster
from edgeecc.fleet_config import FleetConfig
from edgeecc.graph.spec import NetworkSpec

#: Seconds between looks at which workers are there.
POLL_S = 0.5


class Hands(Protocol):
    """What hands batches to boards, see `Dispatcher`."""

    def workers(self) -> Mapping[str, str]:
        """Return board -> what tells its worker from the one before, for those that are there."""

    def submit(self, batch: Batch) -> None:
        """Hand a batch to its board."""

    def collect(self, timeout_s: float) -> List[Tuple[Batch, Answer]]:
        """Return the answers that come within a while."""

    def cancel(self, tickets: Sequence[int]) -> None:
        """Forget batches."""


@contextlib.contextmanager
def fleet_crew(
    boards: Sequence[Board], config: FleetConfig, spec: NetworkSpec, order: Order
) -> Iterator[FleetCrew]:  # fmt: skip
    """Yield the crew of a fleet; its workers are there until the context ends.

    Raises: RuntimeUnavailableError when Dask is not here; FleetError when the scheduler cannot be reached.
    """
    with Dispatcher(boards, order, config.scheduler) as hands:
        yield FleetCrew([board.name for board in boards], config, spec, hands)


class FleetCrew:
    """See `edgeecc.crew.Crew`.

    Args:
        boards: names.
        config: see `FleetConfig`.
        spec: the network.
        hands: what reaches the boards.
    """

    def __init__(
        self, boards: Sequence[str], config: FleetConfig, spec: NetworkSpec, hands: Hands
    ) -> None:  # fmt: skip
        anchors = (DENSE, spec.dense_widths()), (THINNEST, spec.least_widths())
        self._roster = Roster(boards, config, *anchors)
        self._hands = hands
        self._meter = ""
        self._workers: Dict[str, str] = {}
        self._looked = float("-inf")

    @property
    def note(self) -> str:
        """What the progress line says."""
        return f"{self._roster.alive()} of {len(self._roster.posts)} boards"

    def measure(self, tasks: Sequence[Task], repeats: Sequence[Row]) -> Iterator[Found]:
        """Measure variants on all boards at once.

        Raises: FleetError when no board is left, the scheduler is gone, or a variant takes boards down.
        """
        self._roster.begin(tasks, repeats)
        try:
            while not self._roster.finished():
                self._look()
                self._roster.check()
                self._hand_out()
                yield from self._take_in()
        finally:
            with contextlib.suppress(FleetError):
                self._hands.cancel(self._roster.recall())

    def meter(self) -> str:
        """Return the name of the meter; where nothing was measured yet, a board measures the thinnest network.

        Raises: FleetError when no board does.
        """
        if not self._meter:
            for _ in self.measure([self._roster.thinnest], ()):
                pass
        return self._meter

    def about(self) -> Mapping[str, object]:
        """Return nothing: its boards are told one by one."""
        return {}

    def report(self) -> Mapping[str, Mapping[str, object]]:
        """Return for each board its state and speed, see `Roster.report`."""
        return self._roster.report()

    def _look(self) -> None:
        """See which workers are there; what a lost one had goes to other boards."""
        now = perf_counter()
        if now - self._looked < POLL_S:
            return
        self._looked = now
        found = dict(self._hands.workers())
        for name, post in self._roster.posts.items():
            before = self._workers.get(name)
            if before is not None and found.get(name) != before:
                self._hands.cancel(self._roster.lose(name, "its worker ended", now))
            elif name not in found and post.state == "new":
                self._roster.lose(name, "it has no worker", now, never=True)
        self._workers = found

    def _hand_out(self) -> None:
        for name in self._workers:
            batch = self._roster.next(name, perf_counter())
            while batch is not None:
                self._hands.submit(batch)
                batch = self._roster.next(name, perf_counter())

    def _take_in(self) -> Iterator[Found]:
        for batch, answer in self._hands.collect(POLL_S):
            answer = self._of_one_meter(answer)
            before = set(self._roster.posts[batch.board].out)
            yield from self._roster.take(batch.board, batch.ticket, answer, perf_counter())
            if answer.fault:  # what else the board had was taken back
                self._hands.cancel(sorted(before - {batch.ticket}))

    def _of_one_meter(self, answer: Answer) -> Answer:
        """Return the answer, or a fault where the board has another meter than the rest."""
        self._meter = self._meter or answer.meter
        if answer.meter in ("", self._meter):
            return answer
        return Answer((), "", f"it measures by {answer.meter}, the others by {self._meter}")
