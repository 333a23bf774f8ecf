"""Budgets of a comparison by name: what folders are called after them, and that no two are the same."""

from __future__ import annotations

from typing import Sequence

from edgeecc.errors import ConfigError
from edgeecc.units import Budget


def plain(budget: Budget) -> str:
    """Return a budget as part of a folder's name."""
    return budget.text.replace("%", "pct").replace(" ", "")


def check_once(budgets: Sequence[Budget], what: str = "budget") -> None:
    """Refuse a budget that is given twice, however it is written: both would have one folder, or the same cells.

    Raises: ConfigError.
    """
    for place, budget in enumerate(budgets):
        for other in budgets[:place]:
            bounds = [(one.metric, one.relative, one.value) for one in (budget, other)]
            if plain(budget) == plain(other) or bounds[0] == bounds[1]:
                same = "" if budget.text == other.text else f" (as {other.text})"
                raise ConfigError(f"{what} {budget.text} is given twice{same}; leave one out")
