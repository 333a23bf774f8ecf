"""The rounds of `export --fit-budget`: what was measured, whether it is close enough, and which widths come next.

A round corrects the cost models of the run by all that was measured, lands on widths whose corrected cost is in the
middle of what is allowed, and measures them. Kernels take as long and draw as much whatever the weights are, so no
round trains; the widths that are settled on are trained, once (ours).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from edgeecc.artifacts import number
from edgeecc.cost.correction import Correction, Pair, corrected_by
from edgeecc.cost.product import ProductModel
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.fit_config import FitBudgetConfig
from edgeecc.graph.spec import FloatArray, NetworkSpec
from edgeecc.run_profiles import METERED, Measured
from edgeecc.solvers.base import Limit, Problem
from edgeecc.solvers.landing import land
from edgeecc.units import Metric
from edgeecc.verdict import Bound

#: Why rounds ended.
WITHIN = "close to the budget"
SPENT = "all rounds are spent"
NO_WIDTHS = "no other widths lie closer"
INFEASIBLE = "the corrected model says that not even the thinnest network holds the budget"


@dataclass(frozen=True)
class Held:
    """A budget that is to hold, and the run's cost model of its metric, not corrected."""

    bound: Bound
    model: ProductModel

    @property
    def is_measured(self) -> bool:
        """Whether a meter tells its cost."""
        return self.bound.metric in METERED


class Rounds:
    """What was measured so far, and what follows from it.

    Args:
        spec: of the network.
        held: every budget of the run, at least one that is measured.
        config: see `FitBudgetConfig`.
    """

    def __init__(self, spec: NetworkSpec, held: Sequence[Held], config: FitBudgetConfig) -> None:
        self._spec = spec
        self._held = tuple(held)
        self._config = config
        self.told: List[Dict[str, Any]] = []

    def add(self, widths: FloatArray, found: Mapping[Metric, Measured], seconds: float) -> None:
        """Take in what widths (G,) measured, by metric; counted costs are counted here."""
        before = self.corrections() if self.told else None
        rows: List[Dict[str, Any]] = []
        for place, held in enumerate(self._held):
            predicted = held.model.predict(widths)
            value, error, meter = found.get(held.bound.metric, (predicted, 0.0, held.model.meter))
            rows.append(
                {
                    "metric": held.bound.metric.value,
                    "unit": held.bound.metric.unit,
                    "budget": held.bound.value,
                    "predicted": predicted,
                    "expected": None if before is None else before[place].at(predicted),
                    "measured": value,
                    "standard_error": error,
                    "upper": value + self._config.quantile * error,
                    "meter": meter,
                }
            )
        last = self.widths(-1) if self.told else widths
        self.told.append(
            {
                "round": len(self.told),
                "widths": {
                    group.name: int(width) for group, width in zip(self._spec.prunable, widths)
                },
                "removed": int((last - widths).clip(min=0.0).sum()),
                "returned": int((widths - last).clip(min=0.0).sum()),
                "budgets": rows,
                "accuracy": None,
                "seconds": seconds,
            }
        )
        for row, correction in zip(rows, self.corrections()):
            row.update(correction.to_json())
        self.told[-1]["holds"] = self.holds(-1)
        self.told[-1]["share"] = self.share(-1)

    def widths(self, place: int) -> FloatArray:
        """Return the widths of a round, (G,)."""
        return self._spec.vector(self.told[place]["widths"])

    def holds(self, place: int) -> bool:
        """Return whether every budget holds in a round, with the confidence."""
        return all(row["upper"] <= row["budget"] for row in self.told[place]["budgets"])

    def share(self, place: int) -> float:
        """Return the tightest measured cost of a round as a share of its budget."""
        return max(float(row["measured"] / row["budget"]) for row in self.told[place]["budgets"])

    def is_close(self, place: int) -> bool:
        """Return whether a round holds every budget, and the tightest is not far above it."""
        return self.holds(place) and self.share(place) >= 1.0 - self._config.band

    def best(self) -> int:
        """Return the round that holds every budget and costs most, or else the one that exceeds them least."""
        places = range(len(self.told))
        holding = [place for place in places if self.holds(place)]
        if holding:
            return max(holding, key=self.share)
        return min(places, key=self._excess)

    def corrections(self) -> Tuple[Correction, ...]:
        """Return the correction of every budget's model by all rounds; counts need none."""
        found = []
        for place, held in enumerate(self._held):
            pairs = self.pairs(place)
            found.append(
                corrected_by(pairs, held.model.constant) if held.is_measured else Correction()
            )
        return tuple(found)

    def pairs(self, place: int) -> List[Pair]:
        """Return what one budget's model predicted and what was measured, round by round."""
        rows = (each["budgets"][place] for each in self.told)
        return [Pair(row["predicted"], row["measured"], row["standard_error"]) for row in rows]

    def next(self, worth: Sequence[FloatArray]) -> Tuple[Optional[FloatArray], str]:
        """Return the widths of the next round, (G,), or why there is none.

        Args:
            worth: per group what each unit is worth, in the order in which units stay.
        """
        if self.is_close(-1):
            return None, WITHIN
        if len(self.told) > self._config.rounds:
            return None, SPENT
        problem, low = self._band()
        if not problem.fits(self._spec.vector(self._spec.least_widths())):
            return None, INFEASIBLE
        widths = land(problem, worth, self.widths(-1), low=low)
        if any((widths == self.widths(place)).all() for place in range(len(self.told))):
            return None, NO_WIDTHS
        return widths, ""

    def load(self, told: object, source: object) -> None:
        """Take back the rounds of an interrupted command.

        Raises: ArtifactError when they are damaged.
        """
        if not isinstance(told, list):
            raise ArtifactError(f"{source} lists no rounds; remove it to start over")
        try:
            for each in told:
                widths = self._spec.vector(self._spec.widths(self._spec.vector(each["widths"])))
                found = {
                    held.bound.metric: (
                        number(row["measured"], "measured", source),
                        number(row["standard_error"], "standard_error", source),
                        str(row["meter"]),
                    )
                    for held, row in zip(self._held, each["budgets"])
                }
                self.add(widths, found, number(each["seconds"], "seconds", source))
                self.told[-1]["accuracy"] = each["accuracy"]
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise ArtifactError(f"{source} is damaged: {error}; remove it to start over") from error

    def _band(self) -> Tuple[Problem, float]:
        """Return the problem whose bounds a measurement may come to at most, and the least load that is close."""
        limits, lows = [], []
        for held, row, correction in zip(self._held, self.told[-1]["budgets"], self.corrections()):
            above = 1.0 + self._config.quantile * row["standard_error"] / row["measured"]
            model = correction.of(held.model, held.model.meter)
            limits.append(Limit(model, held.bound.value / above))
            lows.append((1.0 - self._config.band) * above)
        return Problem(self._spec, tuple(limits), 0), min(1.0, max(lows))

    def _excess(self, place: int) -> float:
        return max(float(row["upper"] / row["budget"]) for row in self.told[place]["budgets"])
