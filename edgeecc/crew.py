"""Who measures the variants of a calibration: the bench at hand, or the boards of a fleet.

What they find is kept as it arrives.
"""

from __future__ import annotations

from time import perf_counter
from typing import Dict, Iterator, List, Mapping, Protocol, Sequence, Tuple, Union

from edgeecc.bench import Bench
from edgeecc.config import MeasureProtocol
from edgeecc.cost.profile import Profile
from edgeecc.cost.samples import DENSE, Check, Failure, Row, SampleStore
from edgeecc.errors import ArtifactError
from edgeecc.graph.spec import NetworkSpec, Widths
from edgeecc.meters.base import Measurement
from edgeecc.runtimes.engine import EngineBuildError

#: Longest time between commits: what a kill can lose.
COMMIT_S = 0.5
#: Variants that may fail to build: more are no exceptions (ours).
MAX_FAILURES = 20
#: A variant to measure: its number and its widths.
Task = Tuple[int, Widths]


#: What comes of measuring.
Found = Union[Row, Check, Failure]


class Crew(Protocol):
    """Who measures variants: one bench, or the boards of a fleet."""

    @property
    def note(self) -> str:
        """What the progress line says."""

    def measure(self, tasks: Sequence[Task], repeats: Sequence[Row]) -> Iterator[Found]:
        """Measure variants; yield rows as they arrive, what could not be built, and what checks say of earlier ones.

        Args:
            tasks: each is measured once, unless a check condemns it.
            repeats: what the store holds of boards that were compared.
        """

    def meter(self) -> str:
        """Return the name of the meter."""

    def report(self) -> Mapping[str, Mapping[str, object]]:
        """Return what is to be told of each board, by its name; nothing where there is no fleet."""

    def about(self) -> Mapping[str, object]:
        """Return what is to be told of the device, see `Bench.about`; nothing where nothing was measured."""


class BenchCrew:
    """One bench, which measures in turn."""

    def __init__(self, bench: Bench, spec: NetworkSpec, protocol: MeasureProtocol) -> None:
        self._bench, self._spec, self._protocol = bench, spec, protocol
        self._meter = self.note = ""

    def measure(self, tasks: Sequence[Task], repeats: Sequence[Row]) -> Iterator[Found]:
        """Measure variants one after the other.

        Raises: EngineBuildError when the dense or the thinnest network cannot be built.
        """
        del repeats
        for number, widths in tasks:
            try:
                found = self._bench.measure(number, widths, self._protocol)
            except EngineBuildError as error:
                if number < 0:
                    raise
                yield Failure(number, str(error))
                continue
            self._meter, self.note = found.meter, f"{found.windows} windows"
            yield row_of(number, self._spec, widths, found)

    def meter(self) -> str:
        """Return the name of the meter; where nothing was measured yet, the dense network is."""
        dense = self._spec.dense_widths()
        return self._meter or self._bench.measure(DENSE, dense, self._protocol).meter

    def report(self) -> Mapping[str, Mapping[str, object]]:
        """Return nothing: there are no boards."""
        return {}

    def about(self) -> Mapping[str, object]:
        """Return what the bench tells of its device, once it has measured."""
        return self._bench.about() if self._meter else {}


def keep(store: SampleStore, crew: Crew, tasks: Sequence[Task]) -> Iterator[int]:
    """Have variants measured, commit what arrives, and yield after each commit how many samples there are more.

    A check may condemn samples, some of an earlier call among them, so some may be missing afterwards.
    """
    pending: List[Row] = []
    more, last = 0, perf_counter()
    try:
        for found in crew.measure(tasks, store.repeats()):
            if isinstance(found, Failure):
                store.fail(found)
                _check_few(store.failures())
            elif isinstance(found, Check):
                store.add(pending)
                pending = []
                more -= store.judge(found)
            else:
                pending.append(found)
                more += found.number >= 0 and not found.repeat
            if perf_counter() - last >= COMMIT_S:
                store.add(pending)
                pending, last = [], perf_counter()
                yield more
    finally:
        if pending:  # also on Ctrl-C or when a meter fails: what is measured is kept
            store.add(pending)
    yield more


def _check_few(failures: Sequence[Failure]) -> None:
    """Check that failures are exceptions.

    Raises: ArtifactError telling the last.
    """
    if len(failures) >= MAX_FAILURES:
        raise ArtifactError(
            f"{len(failures)} variants could not be built, the last, {failures[-1].number}: {failures[-1].why}; what "
            "is measured is kept, and failed ones are not tried again"
        )


def boards_told(profile: Profile, crew: Crew) -> Dict[str, Dict[str, object]]:
    """Return what is known of each board: its samples and offset, and how it fared."""
    report = crew.report()
    names = sorted({*profile.boards, *report})
    return {name: {**profile.boards.get(name, {}), **report.get(name, {})} for name in names}


def row_of(number: int, spec: NetworkSpec, widths: Widths, found: Measurement) -> Row:
    """Return what is stored of a measurement."""
    is_energy = found.energy_j is not None
    return Row(
        number=number,
        widths=[widths[group.name] for group in spec.prunable],
        value=found.energy_j if found.energy_j is not None else found.latency_s,
        standard_error=found.energy_error_j,
        spread=found.energy_iqr_j if is_energy else found.latency_iqr_s,
        latency_s=found.latency_s,
        windows=found.windows,
        runs=found.runs,
        converged=found.converged,
        dropped=found.dropped,
        conditions={} if found.conditions is None else found.conditions.to_json(),
    )
