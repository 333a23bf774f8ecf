"""By how much the best method of a budget leads every other, seed by seed (ours). Everything here is pure.

Methods share the dense network and the order of batches of a seed, so their difference seed by seed scatters less than
the scores do, and tells sooner whether a lead is more than chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence

from edgeecc.comparison.figures import Row, Spread, spread, summaries


@dataclass(frozen=True)
class Lead:
    """The best method of a budget against another one.

    Args:
        method, budget: the other one, and where.
        best: the method with the highest mean, see `figures.best_method`.
        lead: score of the best less that of the method, over the seeds.
        error: standard error of the mean lead, None over one seed.
        ahead: seeds in which the best one is above.
    """

    method: str
    budget: str
    best: str
    lead: Spread
    error: Optional[float]
    ahead: int


def leads(rows: Sequence[Row]) -> List[Lead]:
    """Return the lead over each method, in the order in which the rows bring them; none where no method is best."""
    means = summaries(rows)
    best = {one.budget: one.method for one in means if one.best}
    found = []
    for one in means:
        leader = best.get(one.budget)
        if leader is None or leader == one.method:
            continue
        own, top = (_by_seed(rows, name, one.budget) for name in (one.method, leader))
        differences = [top[seed] - score for seed, score in own.items() if seed in top]
        mean = spread(differences)
        if mean is not None:
            ahead = sum(value > 0.0 for value in differences)
            found.append(Lead(one.method, one.budget, leader, mean, _error(mean), ahead))
    return found


def _by_seed(rows: Sequence[Row], method: str, budget: str) -> Dict[int, float]:
    return {
        row.seed: row.accuracy
        for row in rows
        if (row.method, row.budget) == (method, budget) and row.accuracy is not None
    }


def _error(mean: Spread) -> Optional[float]:
    return None if mean.deviation is None else mean.deviation / math.sqrt(mean.count)
