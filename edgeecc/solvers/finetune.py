"""Fine-tuning with the zero pattern fixed (ECC section 4.2)."""

from __future__ import annotations

from typing import Dict, Mapping, Optional

import numpy as np
import torch
from torch import nn

from edgeecc.graph.spec import IntArray
from edgeecc.solvers.base import Problem
from edgeecc.solvers.units import UnitTable, beside_weights, mask_weights_, widths_of


class FixedMasks:
    """Hooks that keep zeros where masks have them.

    Args:
        masks: parameter name -> 0/1 tensor that broadcasts to it.
        cost: of the network with these zeros, reported with each step.
        values: further numbers to report with each step.
    """

    def __init__(
        self,
        masks: Mapping[str, torch.Tensor],
        cost: float,
        values: Optional[Mapping[str, float]] = None,
    ) -> None:
        self._masks = dict(masks)
        self._numbers = {"cost": cost, **(values or {})}
        self._placed = False

    def after_backward(self, model: nn.Module) -> None:
        """Do nothing."""

    def after_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, steps: int
    ) -> Mapping[str, float]:  # fmt: skip
        """Put the zeros back."""
        del step, steps
        if not self._placed:  # once, not in each step
            self._masks = beside_weights(model, self._masks)
            self._placed = True
        mask_weights_(model, optimizer, self._masks)
        return self._numbers

    def state(self) -> Dict[str, torch.Tensor]:
        """Return nothing: the pattern does not change."""
        return {}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take nothing back."""


class FixedPattern(FixedMasks):
    """Hooks that keep removed units removed.

    Args:
        problem: for the spec and the cost models.
        keep: units that stay.
    """

    def __init__(self, problem: Problem, keep: Mapping[str, IntArray]) -> None:
        alive = []
        for group in problem.spec.prunable:
            living = np.zeros(group.width, dtype=bool)
            living[keep[group.name]] = True
            alive.append(living)
        masks = UnitTable(problem.spec).masks(alive)
        widths = widths_of(alive)
        super().__init__(masks, problem.first_cost(widths), problem.loads(widths))


def slim_hooks(problem: Problem, keep: Mapping[str, IntArray]) -> FixedMasks:
    """Return hooks for a network from which the other units were cut: they only tell what it costs."""
    widths = problem.spec.vector({name: len(units) for name, units in keep.items()})
    return FixedMasks({}, problem.first_cost(widths), problem.loads(widths))
