"""From steps to progress: phases in words, every budget with its meter, the last score."""

from __future__ import annotations

from typing import List

import pytest

from edgeecc.progress import Load, Progress, Score
from edgeecc.solvers.base import Step
from edgeecc.telling import Teller, Telling, staged
from edgeecc.units import Metric

ENERGY = Telling(Metric.ENERGY, 2.0, 1.6, "model of m")
MACS = Telling(Metric.MACS, 100.0, 100.0, "exact count")


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        ("prune", "pruning"), ("finetune", "fine-tuning"), ("wsp", "pruning weights"), ("wsp-2", "pruning weights 2"),
        ("mask-1", "masking inputs 1"), ("worth", "weighing units"), ("amc-train", "amc train"), ("other", "other"),
    ],
)  # fmt: skip
def test_phases_in_words(phase: str, words: str) -> None:
    told: List[Progress] = []
    Teller(told.append, [ENERGY]).step(phase, Step(3, 9, 0.5, 1.7))
    assert told == [
        Progress(
            words, 3, 9, "steps", loads=(Load(Metric.ENERGY, 1.7, 2.0, "model of m"),), loss=0.5
        )
    ]


def test_several_budgets_are_told_against_the_users_bounds() -> None:
    """Steps tell shares of the bound less its margin."""
    told: List[Progress] = []
    teller = Teller(told.append, [ENERGY, MACS])
    teller.step("prune", Step(1, 9, 0.5, 1.2, {"load.energy": 0.75, "load.macs": 0.5, "z": 3.0}))
    assert told[0].loads == (
        Load(Metric.ENERGY, 1.2, 2.0, "model of m"), Load(Metric.MACS, 50.0, 100.0, "exact count"),
    )  # fmt: skip
    teller.step("prune", Step(2, 9, 0.5, 1.2))
    assert told[1].loads == told[0].loads[:1], "what a step does not tell is not made up"


def test_scores_are_the_last_known() -> None:
    told: List[Progress] = []
    teller = Teller(told.append, [ENERGY])
    teller.step("prune", Step(1, 9, 0.5, 1.2, {"score": 0.3}))
    assert told[-1].score is None, "a score without a name is not told"
    teller.scored({"mIoU": 0.7, "accuracy": 0.9}, "dense")
    teller.step("prune", Step(1, 9, 0.5, 1.2))
    assert told[-1].score == Score("mIoU", 0.7, "dense")
    teller.step("search", Step(2, 9, 0.4, 1.1, {"score": 0.6, "best": 0.65}))
    assert told[-1].score == Score("mIoU", 0.6, "held out")
    assert told[-1].loss is None, "a search reports what it lacks of a score as its loss"
    assert told[-1].unit == "trials"
    teller.scored({"mIoU": 0.5}, "pruned")
    teller.stage("scoring", "the pruned network")
    last = Progress(
        "scoring",
        loads=told[-2].loads,
        score=Score("mIoU", 0.5, "pruned"),
        note="the pruned network",
    )
    assert told[-1] == last


def test_parts_of_an_export() -> None:
    told: List[Progress] = []
    tell = staged(told.append, 2)
    for note in ("a", "b", "c"):
        tell(note)
    assert [(one.done, one.total, one.unit, one.note) for one in told] == [
        (0, 2, "", "a"), (1, 2, "", "b"), (2, 2, "", "c"),
    ]  # fmt: skip
