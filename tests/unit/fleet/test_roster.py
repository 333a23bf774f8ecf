"""Who measures what: whatever boards do, every sample is kept once, or the error says how many are missing."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Set, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.cost.samples import DENSE, THINNEST, Check, Failure, Row
from edgeecc.errors import FleetError
from edgeecc.fleet.fleet_crew import FleetCrew
from edgeecc.fleet.roster import Answer, Batch, Roster
from edgeecc.fleet.watch import Canary, complaint
from edgeecc.fleet_config import FleetConfig
from tests.unit.test_calibrate import small_network

pytestmark = pytest.mark.device
ANCHORS = (DENSE, {"g": 8}), (THINNEST, {"g": 1})


def tasks(count: int) -> List[Any]:
    return [(number, {"g": 1 + number % 8}) for number in range(count)]


def row(number: int, value: float = 1.0) -> Row:
    return Row(number, (number + 3,), value, 0.01 * value, None, value, 5, 1, converged=True)


def answer(
    batch: Batch,
    count: Optional[int] = None,
    value: float = 1.0,
    fault: str = "",
    wrong: Set[int] = frozenset(),
) -> Answer:
    """Return what a board says of the first variants of a batch, of which those in `wrong` cannot be built."""
    measured = batch.tasks if count is None else batch.tasks[:count]
    found = [
        Failure(number, "no kernel") if number in wrong else row(number, value)
        for number, _ in measured
    ]
    return Answer(tuple((one, 0.1) for one in found), "meter", fault)


class Ledger:
    """What a store does with what a roster yields, in a dictionary."""

    def __init__(self) -> None:
        self.kept: Dict[int, Tuple[str, bool]] = {}
        self.repeats: List[Row] = []
        self.failed: List[int] = []

    def take(self, found: Any) -> None:
        for one in found:
            if isinstance(one, Row) and one.repeat:
                self.repeats.append(one)
            elif isinstance(one, Row):
                assert one.number not in self.kept, "kept twice"
                self.kept[one.number] = (one.board, False)
            elif isinstance(one, Failure):
                assert one.number not in self.kept, "kept and failed"
                self.failed.append(one.number)
            else:
                self.judge(one)

    def judge(self, check: Check) -> None:
        for number, (board, checked) in list(self.kept.items()):
            if board == check.board and check.fine:
                self.kept[number] = (board, True)
            elif board == check.board and not checked:
                del self.kept[number]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["right", "right", "right", "part", "fault", "lost", "throttled"]),
        st.integers(0, 3),
    ),
    max_size=120,
)


class Simulation:
    """Boards that do what a script says, then what they should."""

    def __init__(self, roster: Roster, events: list, wrong: Set[int] = frozenset()) -> None:
        self.roster, self.ledger, self.wrong = roster, Ledger(), wrong
        self.asked: Dict[int, int] = {}
        self.out: Dict[str, List[Batch]] = {name: [] for name in roster.posts}
        self.script, self.now, self.steps = iter(events), 0.0, 0

    def run(self) -> str:
        """Return the error that ended it, empty where none did."""
        try:
            while not self.roster.finished():
                self.roster.check()
                self.hand_out()
                busy = [name for name, batches in self.out.items() if batches]
                if busy:  # the others rest
                    event, which = next(self.script, ("right", self.steps))
                    self.happen(event, busy[which % len(busy)])
        except FleetError as error:
            return str(error)
        return ""

    def hand_out(self) -> None:
        self.now += 1.0
        self.steps += 1
        assert self.steps < 5000, "it does not end"
        for name, batches in self.out.items():
            batch = self.roster.next(name, self.now)
            while batch is not None:
                batches.append(batch)
                batch = self.roster.next(name, self.now)

    def happen(self, event: str, name: str) -> None:
        if event == "lost":
            tickets = self.roster.lose(name, "gone", self.now)
            assert sorted(tickets) == [one.ticket for one in self.out[name]]
            late = self.out[name][0]
            self.out[name] = []
            assert not list(self.roster.take(name, late.ticket, answer(late), self.now))
            return
        batch = self.out[name].pop(0)
        wrong = self.wrong
        said = {
            "right": answer(batch, wrong=wrong),
            "part": answer(batch, len(batch.tasks) // 2, fault="died", wrong=wrong),
            "fault": answer(batch, 0, fault="died", wrong=wrong),
            "throttled": answer(batch, value=2.0, wrong=wrong),
        }[event]
        for one, _ in said.found:
            self.asked[one.number] = self.asked.get(one.number, 0) + 1
        if said.fault:
            self.out[name] = []
        self.ledger.take(self.roster.take(name, batch.ticket, said, self.now))


@given(EVENTS, st.integers(1, 4), st.integers(0, 40), st.integers(1, 9), st.integers(0, 3))
def test_every_sample_is_kept_once_or_told_missing(
    events: list, boards: int, count: int, every: int, rests: int
) -> None:
    config = FleetConfig(canary_every=every, rest_s=1.0, rests=rests, shared=2)
    roster = Roster([f"b{index}" for index in range(boards)], config, *ANCHORS)
    roster.begin(tasks(count), ())
    simulation = Simulation(roster, events)
    error, kept = simulation.run(), simulation.ledger.kept
    if error:
        left = f"{count - len(kept)} samples are missing"
        assert "has ended 3 boards" in error or left in error
        return
    assert sorted(kept) == list(range(count))
    for name, told in roster.report().items():
        mine = [checked for board, checked in kept.values() if board == name]
        assert told["measured"] == len(mine)
        assert told["state"] != "fine" or all(mine)


@given(
    EVENTS, st.integers(1, 4), st.integers(0, 30), st.sets(st.integers(0, 29)), st.integers(1, 9)
)
def test_what_cannot_be_built_is_told_once_and_the_rest_is_kept(
    events: list, boards: int, count: int, wrong: Set[int], every: int
) -> None:
    config = FleetConfig(canary_every=every, rest_s=1.0, rests=3, shared=2)
    roster = Roster([f"b{index}" for index in range(boards)], config, *ANCHORS)
    roster.begin(tasks(count), ())
    simulation = Simulation(roster, events, wrong)
    error, ledger = simulation.run(), simulation.ledger
    assert len(ledger.failed) == len(set(ledger.failed)), "told twice"
    assert set(ledger.failed) <= wrong
    # two batches may wait at each board when the first says that it cannot be built
    assert all(simulation.asked.get(number, 0) <= 2 * boards for number in wrong)
    if not error:
        assert sorted(ledger.failed) == sorted(wrong & set(range(count)))
        assert sorted(ledger.kept) == sorted(set(range(count)) - wrong)


def test_a_variant_that_failed_on_one_board_goes_to_no_other() -> None:
    roster, ledger = Roster(["a", "b"], FleetConfig(shared=2), *ANCHORS), Ledger()
    roster.begin(tasks(6), ())
    for name in "ab":
        drive(roster, ledger, name, 1)
    asked = []
    for name in "aaaabbbb":
        batch = roster.next(name, 0.0)
        if batch is not None:
            asked += [(name, number) for number, _ in batch.tasks]
            ledger.take(roster.take(name, batch.ticket, answer(batch, wrong={0, 1}), 0.0))
    assert [one for one in asked if one[1] in (0, 1)] == [("a", 0), ("a", 1)]
    assert ledger.failed == [0, 1]
    assert roster.report()["a"]["state"] == "fine"
    for name in "ba":
        drive(roster, ledger, name, 9)
    assert roster.finished()
    assert sorted(ledger.kept) == [2, 3, 4, 5]


def test_a_sample_that_is_condemned_and_failed_elsewhere_is_told_then() -> None:
    """One board measured it, but throttled; to the other it was shared, and failed there."""
    roster, ledger = Roster(["a", "b"], FleetConfig(shared=1, canary_every=3), *ANCHORS), Ledger()
    roster.begin(tasks(3), ())
    drive(roster, ledger, "a", 3)
    assert 0 in ledger.kept
    drive(roster, ledger, "b", 1)
    batch = roster.next("b", 0.0)
    assert batch is not None
    assert [number for number, _ in batch.tasks] == [THINNEST, 0]
    ledger.take(roster.take("b", batch.ticket, answer(batch, wrong={0}), 0.0))
    assert ledger.failed == [], "it was measured"
    while roster.posts["a"].state == "fine":
        drive(roster, ledger, "a", 1, value=2.0)
    assert ledger.failed == [0]
    drive(roster, ledger, "b", 9)
    assert sorted(ledger.kept) == [1, 2]
    assert roster.finished()


def drive(roster: Roster, ledger: Ledger, board: str, steps: int, value: float = 1.0) -> None:
    for _ in range(steps):
        batch = roster.next(board, 0.0)
        if batch is None:
            return
        ledger.take(roster.take(board, batch.ticket, answer(batch, value=value), 0.0))


def test_what_a_throttled_board_measured_since_its_canary_goes_elsewhere() -> None:
    roster, ledger = Roster(["a", "b"], FleetConfig(canary_every=4, shared=0), *ANCHORS), Ledger()
    roster.begin(tasks(12), ())
    drive(roster, ledger, "a", 1)
    assert [one.number for one in ledger.repeats] == [DENSE]
    while roster.posts["a"].since < 4:
        drive(roster, ledger, "a", 1, value=1.5)
    assert len(ledger.kept) == 4
    drive(roster, ledger, "a", 1, value=1.5)
    assert ledger.kept == {}
    report = roster.report()["a"]
    assert report["state"] == "slow"
    assert "costs 1.50 times what it did at its start" in str(report["why"])
    assert roster.next("a", 29.0) is None, "it rests"
    drive(roster, ledger, "b", 99)
    assert sorted(ledger.kept) == list(range(12))
    assert {board for board, _ in ledger.kept.values()} == {"b"}


def test_a_board_that_has_rested_proves_itself_first() -> None:
    roster, ledger = Roster(["a"], FleetConfig(shared=0, rest_s=10.0, rests=2), *ANCHORS), Ledger()
    roster.begin(tasks(9), ())
    drive(roster, ledger, "a", 3)
    roster.lose("a", "its worker ended", 0.0)
    assert roster.next("a", 9.9) is None
    batch = roster.next("a", 10.1)
    assert batch is not None
    assert batch.kind == "canary"
    ledger.take(roster.take("a", batch.ticket, answer(batch), 10.2))
    assert roster.report()["a"]["state"] == "fine"
    assert roster.report()["a"]["why"] == "was dead: its worker ended"
    drive(roster, ledger, "a", 99)
    assert roster.finished()


def test_a_board_that_never_answered_is_given_up_at_once() -> None:
    roster = Roster(["a", "b"], FleetConfig(), *ANCHORS)
    roster.begin(tasks(3), ())
    batch = roster.next("a", 0.0)
    assert batch is not None
    list(roster.take("a", batch.ticket, answer(batch, 0, fault="no route"), 0.0))
    assert roster.posts["a"].gone
    roster.check()
    roster.lose("b", "it has no worker", 0.0, never=True)
    with pytest.raises(
        FleetError, match=r"a dead: no route; b dead: it has no worker\); 3 samples are missing"
    ):
        roster.check()


def test_a_variant_that_ends_boards_is_named() -> None:
    roster = Roster(["a", "b", "c", "d"], FleetConfig(shared=0), *ANCHORS)
    roster.begin(tasks(1), ())
    ledger = Ledger()
    for name in "abcd":
        drive(roster, ledger, name, 2)

    def killed(name: str) -> None:
        batch = roster.next(name, 0.0)
        assert batch is not None
        assert batch.kind == "samples"
        list(roster.take(name, batch.ticket, answer(batch, 0, fault="killed"), 0.0))

    killed("a")
    killed("b")
    message = r"variant 0 has ended 3 boards \(a, b, c\), the last with: killed"
    with pytest.raises(FleetError, match=message):
        killed("c")


def test_every_board_measures_the_anchors_and_what_is_shared() -> None:
    roster, ledger = Roster(["a", "b"], FleetConfig(shared=3), *ANCHORS), Ledger()
    roster.begin([*ANCHORS, *tasks(9)], ())
    for name in "ab":
        drive(roster, ledger, name, 5)
        found = [one.number for one in ledger.repeats if one.board == name]
        assert found == [DENSE, THINNEST, 0, 1, 2]
    again = Roster(["a", "b"], FleetConfig(shared=3), *ANCHORS)
    again.begin(tasks(9), ledger.repeats)
    later = Ledger()
    drive(again, later, "a", 2)
    assert later.kept, "what was compared in an earlier session is not measured again"


def test_a_later_session_holds_a_board_to_its_first_start() -> None:
    roster, ledger = Roster(["a"], FleetConfig(), *ANCHORS), Ledger()
    known = Row(DENSE, (2,), 1.0, 0.01, None, 1.0, 5, 1, True, "a", True)
    roster.begin(tasks(9), [known])
    drive(roster, ledger, "a", 1, value=1.4)
    assert roster.report()["a"]["state"] == "slow"
    assert ledger.repeats == []


def test_canaries_are_judged_by_cost_latency_and_wall_time() -> None:
    start = Canary(row(DENSE), 5.0)

    def judged(value: float = 1.0, wall_s: float = 5.0, **changes: Any) -> str:
        fields = {**vars(row(DENSE, value)), **changes}
        return complaint(Canary(Row(**fields), wall_s), start, 0.15, 2.0)

    assert judged() == judged(1.14, latency_s=1.0) == judged(latency_s=0.2) == ""
    assert "costs 0.80 times" in judged(0.8)
    assert "takes 1.20 times as long" in judged(latency_s=1.2)
    assert "takes 11.0 s, at its start 5.0 s" in judged(wall_s=11.0)
    assert judged(1.4, standard_error=0.2, latency_s=None) == "", "noise is no drift"
    quick = Canary(row(DENSE), 0.1)
    assert complaint(Canary(row(DENSE), 0.9), quick, 0.15, 2.0) == "", (
        "a busy host is no slow board"
    )
    assert complaint(Canary(row(DENSE)), start, 0.15, 2.0) == ""


def test_a_board_slower_than_the_fleet_is_told_but_its_samples_count() -> None:
    roster, ledger = Roster(["a", "b", "c"], FleetConfig(shared=0), *ANCHORS), Ledger()
    roster.begin(tasks(30), ())
    for name, wall_s in (("a", 1.0), ("b", 1.0), ("c", 9.0)):
        for _ in range(3):
            batch = roster.next(name, 0.0)
            assert batch is not None
            rows = tuple((row(number), wall_s) for number, _ in batch.tasks)
            ledger.take(roster.take(name, batch.ticket, Answer(rows, "meter"), 0.0))
    report = roster.report()
    assert (report["a"]["why"], report["c"]["state"]) == ("", "fine")
    assert report["c"]["why"] == "takes 9.0 times as long as the fleet's median"
    assert report["c"]["samples_per_s"] == pytest.approx(1 / 9.0)


class FakeHands:
    """Boards that answer at once; one loses its worker, which comes back under another address."""

    def __init__(self, meters: Dict[str, str]) -> None:
        self.meters, self.out, self.looks = meters, [], 0

    def workers(self) -> Dict[str, str]:
        self.looks += 1
        return {name: f"{name}-{self.looks > 2 and name == 'b'}" for name in self.meters}

    def submit(self, batch: Batch) -> None:
        self.out.append(batch)

    def collect(self, timeout_s: float) -> List[Tuple[Batch, Answer]]:
        del timeout_s
        found, self.out = self.out[:3], self.out[3:]
        return [
            (one, Answer(answer(one).found, self.meters[one.board])) for one in found
        ]  # fmt: skip

    def cancel(self, tickets: Any) -> None:
        self.out = [one for one in self.out if one.ticket not in tickets]


def crew(monkeypatch: pytest.MonkeyPatch, meters: Dict[str, str]) -> FleetCrew:
    monkeypatch.setattr("edgeecc.fleet.fleet_crew.POLL_S", 0.0)
    spec, _ = small_network()
    return FleetCrew(
        list(meters), FleetConfig(rest_s=1e-9, canary_every=3), spec, FakeHands(meters)
    )


def test_a_worker_that_comes_back_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    both, ledger = crew(monkeypatch, {"a": "m", "b": "m"}), Ledger()
    ledger.take(both.measure(tasks(40), ()))
    assert sorted(ledger.kept) == list(range(40))
    assert "was dead: its worker ended" in str(both.report()["b"]["why"])
    assert both.note == "2 of 2 boards"
    assert both.meter() == "m"
    more = Ledger()
    more.take(both.measure([(n + 100, w) for n, w in tasks(7)], ledger.repeats))  # a second round
    assert sorted(more.kept) == list(range(100, 107))


def test_boards_with_different_meters_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    both, ledger = crew(monkeypatch, {"a": "m", "b": "other"}), Ledger()
    ledger.take(both.measure(tasks(10), ()))
    assert {board for board, _ in ledger.kept.values()} == {"a"}
    assert both.report()["b"]["why"] == "it measures by other, the others by m"


def test_the_meter_is_asked_for_where_nothing_was_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert crew(monkeypatch, {"a": "m"}).meter() == "m"


@pytest.mark.parametrize(
    "wrong",
    [{"drift": 0.0}, {"rest_s": -1.0}, {"canary_every": 0}, {"slow_factor": 1.0}, {"rests": -1}],
)
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    from edgeecc.errors import ConfigError

    with pytest.raises(ConfigError, match=next(iter(wrong))):
        FleetConfig(**wrong)
