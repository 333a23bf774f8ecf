"""What a comparison is asked for: methods x budgets x seeds, with a rate and settings for each method."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Mapping, Optional, Sequence, Tuple

from edgeecc.comparison.budget_names import check_once
from edgeecc.comparison.rates import RateSearch
from edgeecc.errors import ConfigError
from edgeecc.run_request import PruneRequest
from edgeecc.solvers.table import method
from edgeecc.units import Budget

#: What stands for the seed in the name of the weights.
SEED = "{seed}"


@dataclass(frozen=True)
class CompareRequest:
    """Methods x budgets x seeds.

    Args:
        template: what all cells share; its weights may hold {seed}, its run, budget and method are replaced.
        methods: names in the table of solvers.
        budgets: bounds on one metric.
        seeds: of the batch order, and of the dense networks where the weights hold {seed}.
        rates: method and budget as it is written -> learning rate, where it is not the template's; an empty budget is
            every one that has no rate of its own.
        settings: method -> its settings, name=value each.
        search: of learning rates; None takes them as they are.
        out: folder of everything; None names one after the network.
        jobs: cells at once.
    """

    template: PruneRequest
    methods: Tuple[str, ...]
    budgets: Tuple[Budget, ...]
    seeds: Tuple[int, ...]
    rates: Mapping[Tuple[str, str], float] = field(default_factory=dict)
    settings: Mapping[str, Tuple[str, ...]] = field(default_factory=dict)
    search: Optional[RateSearch] = None
    out: Optional[Path] = None
    jobs: int = 1

    def __post_init__(self) -> None:
        _check_once("method", self.methods)
        _check_once("budget", [budget.text for budget in self.budgets])
        check_once(self.budgets)
        _check_once("seed", self.seeds)
        for name in self.methods:
            method(name)
        for name in (*(name for name, _ in self.rates), *self.settings):
            if name not in self.methods:
                raise ConfigError(f"{name} is set but not compared; add it to --methods")
        for _, text in self.rates:
            if text and text not in [budget.text for budget in self.budgets]:
                raise ConfigError(
                    f"a rate is set at {text}, which is not compared; add it with --budget"
                )
        searched = () if self.search is None else self.search.budgets
        metrics = {budget.metric.value for budget in (*self.budgets, *searched)}
        if len(metrics) > 1:
            raise ConfigError(
                f"the budgets bound {' and '.join(sorted(metrics))}; compare one metric at a time"
            )
        if self.search is not None:
            self._check_search(self.search)
        if self.jobs < 1:
            raise ConfigError(f"{self.jobs} jobs cannot run; give at least 1")

    def _check_search(self, search: RateSearch) -> None:
        if self.rates or self.template.training.lr is not None:
            raise ConfigError("--lr and --search-lr both choose learning rates; leave one out")
        if self.template.pruning.val_apart and search.judged is not None:
            raise ConfigError(
                "--search-images and --validation-apart both say what judges trials; leave one out"
            )

    def rate_of(self, name: str, budget: Budget, usual: float) -> float:
        """Return the learning rate of a method at a budget; the usual one where none is set."""
        return self.rates.get((name, budget.text), self.rates.get((name, ""), usual))

    def weights_of(self, seed: int) -> Path:
        """Return the dense weights of a seed."""
        return Path(str(self.template.weights).replace(SEED, str(seed)))


def settings_by_method(texts: Sequence[str]) -> Dict[str, Tuple[str, ...]]:
    """Return method -> its settings from `METHOD.NAME=VALUE` each.

    Raises: ConfigError for a text of another form.
    """
    found: Dict[str, Tuple[str, ...]] = {}
    for text in texts:
        name, dot, setting = text.strip().partition(".")
        if not (name and dot and "=" in setting) or "=" in name:
            raise ConfigError(f"{text!r} sets nothing; write METHOD.NAME=VALUE, as ecc.level=0")
        found[name] = (*found.get(name, ()), setting)
    return found


def rates_by_method(texts: Sequence[str]) -> Tuple[Optional[float], Dict[Tuple[str, str], float]]:
    """Return the rate of all methods, where one is given, and the rates of methods, as `CompareRequest` takes them.

    Args:
        texts: `RATE`, `METHOD=RATE` or `METHOD@BUDGET=RATE` each.

    Raises: ConfigError for a text of another form.
    """
    usual: Optional[float] = None
    own: Dict[Tuple[str, str], float] = {}
    for text in texts:
        place, _, number = text.strip().rpartition("=")
        name, at, budget = place.partition("@")
        rate = _number(number)
        if rate is None or (at and not (name and budget)):
            raise ConfigError(
                f"{text!r} is no learning rate; write METHOD=RATE, as ecc=3e-3, METHOD@BUDGET=RATE, or RATE for all"
            )
        if name:
            own[name, budget] = rate
        else:
            usual = rate
    return usual, own


def _number(text: str) -> Optional[float]:
    try:
        return float(text)
    except ValueError:
        return None


def _check_once(what: str, values: Sequence[object]) -> None:
    if not values:
        raise ConfigError(f"a comparison needs at least one {what}")
    twice = [value for place, value in enumerate(values) if value in values[:place]]
    if twice:
        raise ConfigError(f"{what} {twice[0]} is given twice; leave one out")
