"""Uniform width: one factor for every group, the largest norms kept, no training while pruning.

Source: the width multiplier of Howard et al. 2017, applied to a trained network (ours). Any method that loses
to it at equal steps is not worth its trouble. What the factor leaves of the budget is filled by the groups
that were rounded down most.
"""

from __future__ import annotations

from torch import nn

from edgeecc.graph.spec import FloatArray
from edgeecc.peer_config import NoSettings
from edgeecc.solvers.base import Problem, Solution, Trainer, untouched
from edgeecc.solvers.feasibility import check_feasible
from edgeecc.solvers.prox import top_mask
from edgeecc.solvers.units import UnitTable, keep_of
from edgeecc.solvers.widths import shrunk


class UniformSolver:
    """One width factor for the whole network."""

    def __init__(self, settings: NoSettings = NoSettings()) -> None:  # noqa: B008  # frozen and empty
        del settings

    def solve(self, problem: Problem, trainer: Trainer, steps: int) -> Solution:
        """Choose widths and units; no training step is needed.

        Raises: BudgetInfeasibleError when no widths fit.
        """
        check_feasible(problem)
        spec = problem.spec
        if problem.is_met_by_dense():
            return untouched(problem, steps)
        widths = uniform_widths(problem)
        alive = [
            top_mask(norms, int(width))
            for norms, width in zip(squared_norms(trainer.model, problem), widths)
        ]
        return Solution(keep_of(spec, alive), "converged", (), steps)


def uniform_widths(problem: Problem) -> FloatArray:
    """Return the widths, (G,), of the largest common factor within the bound, rounded down and filled up."""
    return shrunk(problem.spec.vector(problem.spec.dense_widths()), problem.fits)


def squared_norms(model: nn.Module, problem: Problem) -> list[FloatArray]:
    """Return per group the squared norm of the weights that read each unit."""
    parameters = dict(model.named_parameters())
    return UnitTable(problem.spec).sums(lambda name: parameters[name].detach() ** 2)


def norm_shares(model: nn.Module, problem: Problem) -> list[FloatArray]:
    """Return squared norms as shares of their group's: what importance is where no step has told it (ours)."""
    return [norms / (norms.sum() + 1e-300) for norms in squared_norms(model, problem)]
