"""A search for each method's learning rate: the same rates, and so the same number of trials, for every method.

A trial is a cell like any other, at one budget and with a seed that is not compared. It is judged after
fine-tuning on the training images that are held out of every training, never on validation data (ours: a
method whose rate is tuned harder than another's would win by it).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from edgeecc.comparison.figures import Row, Status
from edgeecc.errors import ConfigError
from edgeecc.units import Budget


@dataclass(frozen=True)
class RateSearch:
    """What is tried.

    Args:
        rates: learning rates, at least two.
        budget: at which; None takes the middle one of the comparison.
        seed: of the trials; None takes the one after the largest of the comparison.
    """

    rates: Tuple[float, ...]
    budget: Optional[Budget] = None
    seed: Optional[int] = None

    def __post_init__(self) -> None:
        if len(set(self.rates)) < max(2, len(self.rates)):
            raise ConfigError("a search of learning rates needs at least two, each once")
        if not all(0.0 < rate < math.inf for rate in self.rates):
            raise ConfigError("learning rates must be positive")

    def budget_of(self, budgets: Sequence[Budget]) -> Budget:
        """Return the budget of the trials; of an even number the earlier of the two in the middle."""
        return self.budget or budgets[(len(budgets) - 1) // 2]

    def seed_of(self, seeds: Sequence[int]) -> int:
        """Return the seed of the trials.

        Raises: ConfigError when it is one of the seeds that are compared.
        """
        seed = max(seeds) + 1 if self.seed is None else self.seed
        if seed in seeds:
            raise ConfigError(
                f"seed {seed} of the search is compared too; rates must be chosen with another --search-seed"
            )
        return seed


@dataclass(frozen=True)
class Trial:
    """One rate of one method, and what it came to. It holds no score on validation data."""

    method: str
    lr: float
    status: Status
    held_out_score: Optional[float]
    seconds: Optional[float]
    error: Optional[str]


def trial_of(row: Row, rate: float) -> Trial:
    """Return what a trial may be judged by."""
    return Trial(row.method, rate, row.status, row.held_out_score, row.seconds, row.error)


def chosen_rates(trials: Sequence[Trial]) -> Dict[str, float]:
    """Return method -> the rate with the highest held-out score; the first of equals, none where all failed."""
    best: Dict[str, Trial] = {}
    for trial in trials:
        if trial.held_out_score is None:
            continue
        leader = best.get(trial.method)
        if leader is None or trial.held_out_score > (leader.held_out_score or 0.0):
            best[trial.method] = trial
    return {method: trial.lr for method, trial in best.items()}


def at_the_edge(rates: Sequence[float], chosen: Mapping[str, float]) -> List[str]:
    """Return the methods whose rate is the least or the largest that was tried: a wider list may hold a better."""
    edges = (min(rates), max(rates))
    return [method for method, rate in chosen.items() if rate in edges]


def search_json(
    search: RateSearch, budget: Budget, seed: int, trials: Sequence[Trial]
) -> Dict[str, object]:
    """Return the search as results.json tells it."""
    chosen = chosen_rates(trials)
    return {
        "rates": list(search.rates),
        "budget": budget.text,
        "seed": seed,
        "judged_on": "training images held out of training",
        "trials": [asdict(trial) for trial in trials],
        "chosen": chosen,
        "at_the_edge": at_the_edge(search.rates, chosen),
    }
