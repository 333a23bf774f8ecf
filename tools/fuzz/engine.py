"""Run one target for a time in this process: with atheris, which is led by coverage, or with hypothesis."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Callable, Dict, List, Sequence, Tuple

#: A valid input by its place, and the numbers of changes to it.
Change = Tuple[int, List[int]]
#: Longest input, bytes.
MOST_BYTES = 2**20
#: Seconds between two reports of a child to its parent.
_REPORT_S = 1.0
#: Examples that hypothesis draws before it begins anew from another seed.
_EXAMPLES = 200


@dataclass
class Count:
    """What a target did so far.

    Args:
        executions: inputs that were read.
        outcomes: place of a refusal -> how often; what was read through is "ok".
        failures: place -> {"what", "file", "times"} of failures, the smallest input of each kept.
        coverage: edges that atheris saw; 0 with hypothesis.
        seconds: since the beginning.
    """

    executions: int = 0
    outcomes: Dict[str, int] = field(default_factory=dict)
    failures: Dict[str, Dict[str, Any]] = field(default_factory=dict)
    coverage: int = 0
    seconds: float = 0.0


class Counter:
    """Judges inputs of a target, keeps failures as files, and reports.

    Args:
        name: of the target.
        out: folder for failures and the report.
    """

    def __init__(self, name: str, out: Path) -> None:
        from tools.fuzz.targets import TARGETS

        self.target, self.count = TARGETS[name], Count()
        self._out, self._name = out, name
        self._last = out / f"{name}-last"
        self._start = time.perf_counter()
        self._reported = -_REPORT_S
        out.mkdir(parents=True, exist_ok=True)

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._start

    def judge(self, data: bytes) -> None:
        """Judge one input and take down what came of it."""
        from tools.fuzz.judge import judge

        self._last.write_bytes(data)  # what is left there has ended the process
        verdict = judge(self.target.read, data)
        self.count.executions += 1
        outcome = verdict.where or "ok"
        if verdict.kind == "failed":
            self._fail(outcome, verdict.what, data)
        else:
            self.count.outcomes[outcome] = self.count.outcomes.get(outcome, 0) + 1
        if self.seconds - self._reported > _REPORT_S:
            self.report()

    def report(self) -> None:
        """Write what was done so far, for the parent to read."""
        self._reported = self.count.seconds = self.seconds
        path = self._out / f"{self._name}.json"
        path.with_suffix(".part").write_text(json.dumps(asdict(self.count)))
        os.replace(path.with_suffix(".part"), path)

    def _fail(self, where: str, what: str, data: bytes) -> None:
        known = self.count.failures.setdefault(
            where, {"what": what, "file": "", "bytes": 1 << 62, "times": 0}
        )
        known["times"] += 1
        if len(data) < known["bytes"]:
            stem = hashlib.sha256(f"{self._name} {where}".encode()).hexdigest()[:10]
            path = self._out / f"{self._name}-{stem}"
            path.write_bytes(data)
            known.update(file=str(path), bytes=len(data), what=what)


def has_atheris() -> bool:
    """Return whether inputs can be led by coverage here."""
    try:
        import atheris  # noqa: F401  # asked for its presence
    except ImportError:
        return False
    return True


def with_atheris(name: str, seconds: float, out: Path, seed: int) -> None:
    """Fuzz a target until the time is up; does not return."""
    import atheris

    with atheris.instrument_imports(include=["edgeecc"]):  # of what a target's seeds import
        counter = Counter(name, out)
        corpus = out / f"{name}.corpus"
        corpus.mkdir(exist_ok=True)
        for place, data in enumerate(counter.target.seeds()):
            (corpus / f"seed-{place}").write_bytes(data)
            counter.judge(data)
    from tools.fuzz.judge import limit_address_space

    limit_address_space()
    options = [
        f"-max_total_time={max(1, round(seconds))}", f"-max_len={MOST_BYTES}", f"-seed={seed}", "-rss_limit_mb=0",
        "-timeout=120", f"-artifact_prefix={out}/{name}-died-", "-verbosity=1", str(corpus),
    ]  # fmt: skip

    def mutate(data: bytes, most: int, number: int) -> bytes:
        return counter.target.mutator(bytes(data), Random(number))[:most]  # no secrets

    atheris.Setup([sys.argv[0], *options], counter.judge, custom_mutator=mutate)
    atheris.Fuzz()


def with_hypothesis(name: str, seconds: float, out: Path, seed: int) -> None:
    """Fuzz a target with changes that hypothesis draws, until the time is up."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import seed as seeded

    from tools.fuzz.judge import limit_address_space

    counter = Counter(name, out)
    seeds, mutator = counter.target.seeds(), counter.target.mutator
    limit_address_space()
    quiet = settings(
        max_examples=_EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    turn = 0
    while counter.seconds < seconds or not turn:
        turn += 1

        @seeded(seed + turn)
        @quiet
        @given(changes(len(seeds)))
        def read(drawn: Change) -> None:
            if counter.seconds < seconds or not counter.count.executions:
                counter.judge(changed(seeds, mutator, drawn))

        read()
    counter.report()


def changes(seeds: int) -> Any:  # a strategy of hypothesis
    """Return a strategy: which valid input of so many, and the numbers of one to four changes to it."""
    from hypothesis import strategies as st

    numbers = st.lists(st.integers(0, 2**32), min_size=1, max_size=4)
    return st.tuples(st.integers(0, seeds - 1), numbers)


def changed(
    seeds: Sequence[bytes], mutator: Callable[[bytes, Random], bytes], drawn: Change
) -> bytes:
    """Return a valid input after the changes that were drawn."""
    place, numbers = drawn
    data = seeds[place]
    for number in numbers:
        data = mutator(data, Random(number))[:MOST_BYTES]  # no secrets
    return bytes(data)
