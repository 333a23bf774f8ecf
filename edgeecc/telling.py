"""From the steps of training and the parts of an export to the progress that a user reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Mapping, Optional, Sequence, Tuple

from edgeecc.budgets import PricedBudget
from edgeecc.progress import Load, OnProgress, Progress, Score
from edgeecc.solvers.base import Step
from edgeecc.units import Metric

#: What goes before training, and between.
OPENING, LOADING, TRACING, PRICING, SCORING = (
    "opening the network", "loading the data", "tracing the network", "pricing the budget", "scoring",
)  # fmt: skip
#: Phases of training in words; a phase of a round ends in its number.
WORDS = {
    "prune": "pruning",
    "wsp": "pruning weights",
    "eap": "pruning weights",
    "magnitude": "pruning weights",
    "mask": "masking inputs",
    "search": "searching",
    "worth": "weighing units",
    "finetune": "fine-tuning",
}
#: The phase of solvers that judge candidates, which have a score in place of a loss.
_SEARCH = "search"


@dataclass(frozen=True)
class Telling:
    """A budget as progress tells it.

    Args:
        metric: what is bounded.
        bound: the user's, SI.
        limit: what steps tell shares of: the bound less what is held off it, SI.
        meter: what tells costs.
    """

    metric: Metric
    bound: float
    limit: float
    meter: str

    @staticmethod
    def of(priced: PricedBudget) -> Telling:
        """Return how a priced budget is told."""
        cost = priced.price.cost
        return Telling(cost.metric, priced.bound, priced.limit.bound, cost.meter)


class Teller:
    """Tells the steps of training, with the budgets and the last score.

    Args:
        on_progress: is told.
        budgets: whose cost steps tell; none where no step does.
    """

    def __init__(self, on_progress: OnProgress, budgets: Sequence[Telling]) -> None:
        self._on_progress, self._budgets = on_progress, budgets
        self._score: Optional[Score] = None
        #: What is told where steps tell no cost.
        self.loads: Tuple[Load, ...] = ()

    def scored(self, scores: Mapping[str, float], of: str) -> None:
        """Take notice of scores, the deciding one first."""
        name, value = next(iter(scores.items()))
        self._score = Score(name, value, of)

    def stage(self, phase: str, note: str = "") -> None:
        """Tell what begins."""
        self._on_progress(Progress(phase, loads=self.loads, score=self._score, note=note))

    def step(self, phase: str, step: Step) -> None:
        """Tell a step."""
        name, _, number = phase.rpartition("-")
        words = WORDS.get(phase) or f"{WORDS.get(name, name)} {number}".strip()
        is_search = phase == _SEARCH
        score = self._score
        if "score" in step.values and score is not None:
            score = Score(score.name, step.values["score"], "held out")
        self.loads = self._now(step)
        self._on_progress(
            Progress(
                words,
                step.step,
                step.steps,
                "trials" if is_search else "steps",
                loads=self.loads,
                loss=None if is_search else step.loss,
                score=score,
            )
        )

    def _now(self, step: Step) -> Tuple[Load, ...]:
        if not self._budgets:
            return self.loads
        found = []
        for place, budget in enumerate(self._budgets):
            share = step.values.get(f"load.{budget.metric.value}")
            cost = step.cost if not place else None if share is None else share * budget.limit
            if cost is not None:
                found.append(Load(budget.metric, cost, budget.bound, budget.meter))
        return tuple(found)


def staged(on_progress: OnProgress, count: int) -> Callable[[str], None]:
    """Return what tells the parts of an export as they begin, of which there are so many."""
    begun = iter(range(count))
    return lambda note: on_progress(Progress("exporting", next(begun, count), count, note=note))
