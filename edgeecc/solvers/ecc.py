"""ECC (CVPR 2019): ADMM over weights and widths, in the scale-free form (default) and as published.

Scale-free, `metric="taylor"` (ours): importance in units of loss, costs divided by their bounds, and an explicit
schedule. A training step moves the weights by Adam on the distillation loss; every few steps a round follows:

1. s: `widthstep.solve` finds the integer bounds of this round's targets, dense * b^(t/T) for each limit's share b of
   its dense cost, and a dual z for each limit. y stands at its trim, half the importance of the last unit inside s.
2. W: the proximal step of `prox` keeps the units within their bounds. Before the others go, those that stay take
   over what can be told from them (`standin`), a primal step in closed form.
3. Removed units stay removed: weights and optimiser moments are masked after every step.

The last round lands on the bounds themselves: `ladder` goes to integer widths (whole tiles of the device, where it
has some) that hold every limit, and swaps units between groups until no swap keeps more importance.

As published, `metric="adam"`: see `ecc_published`.
"""

from __future__ import annotations

import contextlib
import math
from typing import ContextManager, Dict, List, Mapping, Sequence, Tuple

import numpy as np
import torch
from torch import nn

from edgeecc.config import EccConfig
from edgeecc.graph.spec import FloatArray
from edgeecc.solvers.base import Limit, Problem, Solution, Trainer
from edgeecc.solvers.ecc_published import PublishedHooks
from edgeecc.solvers.feasibility import check_feasible
from edgeecc.solvers.importance import Importance
from edgeecc.solvers.ladder import integer_widths, ladder
from edgeecc.solvers.living import Living
from edgeecc.solvers.prox import survivors, top
from edgeecc.solvers.units import UnitTable, keep_of
from edgeecc.solvers.widthstep import solve


class EccSolver:
    """The ECC solver; see the module."""

    def __init__(self, config: EccConfig) -> None:
        self._config = config

    def solve(self, problem: Problem, trainer: Trainer, steps: int) -> Solution:
        """Prune within every limit in exactly `steps` training steps.

        Raises: BudgetInfeasibleError before the first batch when no widths fit; ConfigError for several limits with
            the published form.
        """
        check_feasible(problem)
        spec = problem.spec
        if problem.is_met_by_dense():
            return Solution(spec.keep_all(), "already_within", ())
        if self._config.metric == "adam":
            published = PublishedHooks(problem, self._config)
            history = trainer.train("prune", steps, published)
            status, living = published.finish(), published.living
        else:
            hooks = ScaleFreeHooks(problem, self._config, trainer)
            with hooks.watching():
                history = trainer.train("prune", steps, hooks)
            status, living = hooks.finish(), hooks.living
        return Solution(keep_of(spec, living.alive), status, tuple(history))
