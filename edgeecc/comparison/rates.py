"""A search for each method's learning rate: the same rates, and so the same number of trials, for every method.

A trial is a cell like any other, at a budget of the search and with a seed that is not compared. It is judged after
fine-tuning on training images of its own, that were neither trained on nor chosen by, never on what the comparison is
scored on (ours: a method whose rate is tuned harder than another's would win by it). Dense weights that have seen all
training images remember these, and seem to want lower rates than they do; then validation images judge that are held
apart from the others in all cells. Rates lie half a point apart, so the images are many. What suits a harsh budget may
harm at a mild one, so rates may be tried at several: a budget of the comparison takes the rate of the nearest of them
(ours). And a list of rates is coarse or long; so further trials, as many for each method and budget, may go where its
best ones so far are (ours).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from edgeecc.comparison.budget_names import check_once
from edgeecc.comparison.figures import Row, Status
from edgeecc.errors import ConfigError
from edgeecc.units import Budget

#: Method -> budget as it is written -> learning rate.
Rates = Dict[str, Dict[str, float]]
#: Images that trials are judged on: these tell scores a third of a point apart.
JUDGED = 10_000
#: Of two intervals beside a rate the longer one is looked into first where it is so many times the other.
FAR = 1.5


@dataclass(frozen=True)
class RateSearch:
    """What is tried.

    Args:
        rates: learning rates, at least two.
        budgets: at which; none takes the middle one of the comparison.
        seed: of the trials; None takes the one after the largest of the comparison.
        judged: training images that trials are judged on; None takes a sixth, at most 10,000.
        refine: trials more for each method and budget, see `next_rate`.
    """

    rates: Tuple[float, ...]
    budgets: Tuple[Budget, ...] = ()
    seed: Optional[int] = None
    judged: Optional[int] = None
    refine: int = 0

    def __post_init__(self) -> None:
        if len(set(self.rates)) < max(2, len(self.rates)):
            raise ConfigError("a search of learning rates needs at least two, each once")
        if not all(0.0 < rate < math.inf for rate in self.rates):
            raise ConfigError("learning rates must be positive")
        check_once(self.budgets, "budget of the search")
        if self.judged is not None and self.judged < 1:
            raise ConfigError(
                f"{self.judged} images judge nothing; give --search-images of at least 1"
            )
        if self.refine < 0:
            raise ConfigError(
                f"{self.refine} trials cannot be added; give --search-refine of at least 0"
            )

    @property
    def each(self) -> int:
        """Trials of a method at a budget."""
        return len(self.rates) + self.refine

    def budgets_of(self, budgets: Sequence[Budget]) -> Tuple[Budget, ...]:
        """Return the budgets of the trials; of an even number compared the earlier of the two in the middle."""
        return self.budgets or (budgets[(len(budgets) - 1) // 2],)

    def judged_of(self, images: int) -> int:
        """Return how many of the training images trials are judged on, at least 1."""
        return max(1, min(JUDGED, images // 6)) if self.judged is None else self.judged

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
    """One rate of one method at one budget, and what it came to. It holds no score on validation data."""

    method: str
    budget: str
    lr: float
    status: Status
    judged_score: Optional[float]
    seconds: Optional[float]
    error: Optional[str]


def trial_of(row: Row, rate: float) -> Trial:
    """Return what a trial may be judged by."""
    return Trial(row.method, row.budget, rate, row.status, row.judged_score, row.seconds, row.error)


def next_rate(scores: Mapping[float, Optional[float]]) -> Optional[float]:
    """Return the rate to try next: half-way by ratio between the best and a neighbour.

    That is the neighbour that is much further away, or else the better one. Where the best is the least or the
    largest, as far beyond it as its neighbour is on the other side. Rates have two digits, or three where these are
    tried already.

    Args:
        scores: of the rates tried, of one method at one budget; None where a trial failed, which is below any.
    Returns: None where all failed, there are fewer than two, or nothing is left between them.
    """
    known = {rate: -math.inf if score is None else score for rate, score in scores.items()}
    order = sorted(known)
    best = max(order, key=lambda rate: known[rate], default=0.0)
    if len(order) < 2 or known[best] == -math.inf:
        return None
    place = order.index(best)
    if 0 < place < len(order) - 1:
        lower, upper = order[place - 1], order[place + 1]
        below, above = math.log(best / lower), math.log(upper / best)
        if max(below, above) > FAR * min(below, above):
            neighbour = lower if below > above else upper
        else:
            neighbour = max(lower, upper, key=lambda rate: known[rate])
        found = math.sqrt(best * neighbour)
    else:
        found = best * best / order[1 if place == 0 else -2]
    rounded = (float(f"{found:.{digits}g}") for digits in (2, 3))
    return next((rate for rate in rounded if rate not in known), None)


def chosen_rates(trials: Sequence[Trial]) -> Rates:
    """Return the rates with the highest scores by method and budget; the first of equals, none where all failed."""
    best: Dict[Tuple[str, str], Trial] = {}
    for trial in trials:
        if trial.judged_score is None:
            continue
        place = (trial.method, trial.budget)
        leader = best.get(place)
        if leader is None or trial.judged_score > (leader.judged_score or 0.0):
            best[place] = trial
    found: Rates = {}
    for (method, budget), trial in best.items():
        found.setdefault(method, {})[budget] = trial.lr
    return found


def nearest(searched: Mapping[str, float], value: float) -> str:
    """Return the budget that is nearest to a value by ratio, of two the first.

    Args:
        searched: budgets by their texts, SI or as shares, above 0.
        value: likewise.
    """
    return min(searched, key=lambda text: abs(math.log(searched[text] / value)))


def spread_over(chosen: Rates, searched: Mapping[str, float], asked: Mapping[str, float]) -> Rates:
    """Return the rates of the budgets that are asked for: those of the nearest searched budget that has one.

    Args:
        chosen: see `chosen_rates`.
        searched, asked: budgets by their texts, see `nearest`.
    """
    rates: Rates = {}
    for method, found in chosen.items():
        tried = {text: searched[text] for text in found}
        rates[method] = {text: found[nearest(tried, value)] for text, value in asked.items()}
    return rates


def at_the_edge(trials: Sequence[Trial], chosen: Rates) -> List[str]:
    """Return "METHOD at BUDGET" where the rate is the least or the largest tried: a wider list may hold a better."""
    return [
        f"{method} at {budget}"
        for method, found in chosen.items()
        for budget, rate in found.items()
        if rate in _edges(scores_of(trials, method, budget))
    ]


def _edges(tried: Mapping[float, Optional[float]]) -> Tuple[float, float]:
    return min(tried), max(tried)


def scores_of(trials: Sequence[Trial], method: str, budget: str) -> Dict[float, Optional[float]]:
    """Return the rates tried for a method at a budget, with what they came to."""
    return {
        trial.lr: trial.judged_score
        for trial in trials
        if (trial.method, trial.budget) == (method, budget)
    }


def search_json(
    search: RateSearch,
    trials: Sequence[Trial],
    *,
    budgets: Sequence[Budget],
    seed: int,
    judged: int,
    judged_on: str = "training",
) -> Dict[str, object]:
    """Return the search as results.json tells it: its trials at budgets, with a seed, judged on so many images."""
    chosen = chosen_rates(trials)
    return {
        "rates": list(search.rates),
        "refine": search.refine,
        "budgets": [budget.text for budget in budgets],
        "seed": seed,
        "judged_images": judged,
        "judged_on": judged_on,
        "trials": [asdict(trial) for trial in trials],
        "chosen": chosen,
        "at_the_edge": at_the_edge(trials, chosen),
    }
