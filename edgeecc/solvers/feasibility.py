"""Whether a budget can be met at all, before anything is trained."""

from __future__ import annotations

import math

from edgeecc.errors import BudgetInfeasibleError
from edgeecc.solvers.base import Problem
from edgeecc.units import Metric, Quantity, format_quantity


def check_feasible(problem: Problem, margin: float = 0.0) -> None:
    """Check that the thinnest network, every width 1, fits.

    Args:
        problem: the bound is what the solver aims at.
        margin: share that was already held off the user's budget, for the message.
    Raises: BudgetInfeasibleError with the lowest budget that can be met.
    """
    spec, metric = problem.spec, problem.cost.metric
    lowest = problem.cost.predict(spec.vector(spec.least_widths())) * (1.0 + margin)
    bound = problem.bound * (1.0 + margin)
    if bound >= lowest and spec.prunable:
        return
    dense = problem.cost.predict(spec.vector(spec.dense_widths())) * (1.0 + margin)
    if not spec.prunable and bound >= dense:
        return
    seen = (
        f"budget {format_quantity(bound, metric)} is below what the thinnest {spec.network} costs"
    )
    share = math.ceil(1000.0 * lowest / dense) / 10.0
    advice = f"the lowest that can be met is {_rounded_up(lowest, metric)} ({share:g}% of dense)"
    raise BudgetInfeasibleError(f"{seen} ({problem.cost.meter}); {advice}", lowest=lowest)


def _rounded_up(value: float, metric: Metric) -> Quantity:
    """Return the value a little higher, so that the printed digits are feasible themselves."""
    return Quantity(value * 1.0005, metric)
