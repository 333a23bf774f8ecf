"""Whether a budget can be met at all, before anything is trained."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import Sequence

from edgeecc.errors import BudgetInfeasibleError
from edgeecc.solvers.base import Limit, Problem
from edgeecc.units import Metric, Quantity, format_quantity


def check_feasible(problem: Problem, margins: Sequence[float] = ()) -> None:
    """Check that the thinnest network, every width 1, holds every limit.

    Args:
        problem: its bounds are what the solver aims at.
        margins: of each limit, the share that was already held off the user's budget, for the message; default 0.
    Raises: BudgetInfeasibleError with the lowest budget that can be met.
    """
    spec = problem.spec
    least = spec.vector(spec.least_widths())
    for limit, margin in zip_longest(problem.limits, margins, fillvalue=0.0):
        assert isinstance(limit, Limit)  # noqa: S101  # for the type checker
        if limit.cost.predict(least) > limit.bound:
            raise _infeasible(problem, limit, 1.0 + margin)


def _infeasible(problem: Problem, limit: Limit, held_off: float) -> BudgetInfeasibleError:
    spec, metric = problem.spec, limit.cost.metric
    lowest = limit.cost.predict(spec.vector(spec.least_widths())) * held_off
    dense = limit.cost.predict(spec.vector(spec.dense_widths())) * held_off
    bound = format_quantity(limit.bound * held_off, metric)
    seen = f"{metric.value} budget {bound} is below what the thinnest {spec.network} costs"
    share = math.ceil(1000.0 * lowest / dense) / 10.0
    advice = f"the lowest that can be met is {_rounded_up(lowest, metric)} ({share:g}% of dense)"
    return BudgetInfeasibleError(f"{seen} ({limit.cost.meter}); {advice}", lowest=lowest)


def _rounded_up(value: float, metric: Metric) -> Quantity:
    """Return the value a little higher, so that the printed digits are feasible themselves."""
    return Quantity(value * 1.0005, metric)
