"""Which units live, and the masks that keep the others dead."""

from __future__ import annotations

from typing import Dict, List, Mapping, Optional

import numpy as np
import torch
from torch import nn

from edgeecc.graph.spec import FloatArray
from edgeecc.solvers.base import Problem
from edgeecc.solvers.ladder import Ladder, ladder
from edgeecc.solvers.prox import top_mask
from edgeecc.solvers.units import Alive, UnitTable, beside_weights, mask_weights_, widths_of


class Living:
    """The units that live; none comes back.

    Args:
        problem: at the start every unit lives.
        table: makes the masks.
    """

    def __init__(self, problem: Problem, table: UnitTable) -> None:
        self._problem = problem
        self._table = table
        self._masks: Dict[str, torch.Tensor] = {}
        self._placed = True
        self.alive: Alive = [np.ones(group.width, dtype=bool) for group in problem.spec.prunable]

    def widths(self) -> FloatArray:
        """Return the present widths, (G,)."""
        return widths_of(self.alive)

    def cost(self) -> float:
        """Return the cost of the present widths by the first limit, SI."""
        return self._problem.first_cost(self.widths())

    def fits(self) -> bool:
        """Return whether the present widths hold every limit."""
        return self._problem.fits(self.widths())

    def of(self, importance: List[FloatArray]) -> List[FloatArray]:
        """Return the importance of living units only, per group."""
        return [a[living] for living, a in zip(self.alive, importance)]

    def ladders(
        self, importance: List[FloatArray], tile: int = 1, *, below: bool = False,
        least: Optional[FloatArray] = None,
    ) -> List[Ladder]:  # fmt: skip
        """Return the widths that living units allow, per group; see `ladder`.

        Args:
            least: (G,), widths that are kept at least; None is 1.
        """
        floor = np.ones(len(self.alive)) if least is None else least
        return [
            ladder(a, tile, len(living), below=below, least=int(width))
            for a, living, width in zip(self.of(importance), self.alive, floor)
        ]

    def chosen(self, importance: List[FloatArray], widths: FloatArray) -> Alive:
        """Return the `widths` most important living units of each group."""
        return [
            top_mask(np.where(living, a, -1.0), int(width))
            for living, a, width in zip(self.alive, importance, widths)
        ]

    def let_die(self, alive: Alive) -> None:
        """Let the units die that are not among `alive`."""
        new = [living & old for living, old in zip(alive, self.alive)]
        if any((living != old).any() for living, old in zip(new, self.alive)):
            self.alive = new
            self._masks, self._placed = self._table.masks(new), False

    def mask_(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Zero the weights that read dead units, and their moments."""
        if not self._placed:
            self._masks, self._placed = beside_weights(model, self._masks), True
        mask_weights_(model, optimizer, self._masks)

    def state(self) -> Dict[str, torch.Tensor]:
        """Return what must survive a kill."""
        return {f"alive.{index}": torch.from_numpy(one) for index, one in enumerate(self.alive)}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` returned.

        Raises: ValueError when it is of other groups, or one of them would be empty.
        """
        known = [state[f"alive.{index}"].numpy().astype(bool) for index in range(len(self.alive))]
        if [one.shape for one in known] != [one.shape for one in self.alive]:
            raise ValueError("the living units are of other groups")
        if not all(one.any() for one in known):
            raise ValueError("a group has no living unit")
        self.alive = known
        self._masks, self._placed = self._table.masks(self.alive), False
