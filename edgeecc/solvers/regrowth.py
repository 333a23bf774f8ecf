"""What units of a pruned network are worth, those that went included, and how these come back (ours).

A unit that comes back is made as the dense network made it, and read with the dense network's weights. Its worth is of
the same kind as that of a unit that stays: the square of the sum of w dL/dw over the weights that read it, averaged
over batches, at the pruned network. For one that stays w are its weights, and that estimates the loss of its removal;
for one that went w are those that it would be read by, and that is the first-order change of the loss when it returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Sequence, Tuple

import numpy as np
import torch
from torch import nn

from edgeecc.graph.spec import FloatArray, IntArray, Keep, NetworkSpec
from edgeecc.solvers.importance import untrained
from edgeecc.solvers.units import UnitTable


def revive_(model: nn.Module, dense: nn.Module, spec: NetworkSpec, keep: Keep) -> None:
    """Give the units that are not kept what they have in the dense network, in place; mask those that stay away.

    Args:
        model: pruned, dense shapes.
        dense: of the same shapes.
        spec: of both.
        keep: units that the pruned network has.
    """
    whole, given = model.state_dict(), dense.state_dict()  # share memory with the networks
    with torch.no_grad():
        for group in spec.prunable:
            gone = np.setdiff1d(np.arange(group.width), keep[group.name])
            for piece in group.slices:
                places = torch.from_numpy(piece.indices(gone).reshape(-1))
                target = whole[piece.parameter]
                places = places.to(target.device)
                source = given[piece.parameter].to(target)
                target.index_copy_(piece.axis, places, source.index_select(piece.axis, places))


class Worth:
    """Hooks that weigh every unit while nothing moves.

    Args:
        spec: the network.
        weights: parameter name -> what units are read by, those that went included.
        cost: reported with each step.
    """

    def __init__(self, spec: NetworkSpec, weights: Mapping[str, torch.Tensor], cost: float) -> None:
        self._table = UnitTable(spec)
        self._weights = weights
        self._cost = cost
        self._totals = torch.zeros(sum(group.width for group in spec.prunable), dtype=torch.float64)

    def after_backward(self, model: nn.Module) -> None:
        """Take in the gradients of a batch.

        Raises: ConfigError for a weight without a gradient.
        """
        parameters = dict(model.named_parameters())

        def first_order(name: str) -> torch.Tensor:
            gradient = parameters[name].grad
            if gradient is None:
                raise untrained(name)
            return self._weights[name].to(gradient) * gradient

        totals = self._table.totals(first_order)
        self._totals = self._totals.to(totals.device) + totals**2

    def after_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, steps: int
    ) -> Mapping[str, float]:  # fmt: skip
        """Do nothing but tell the cost."""
        del model, optimizer, step, steps
        return {"cost": self._cost}

    def arrays(self) -> List[FloatArray]:
        """Return the worth per group, (c_g,); only ratios mean something."""
        return self._table.split(self._totals)

    def state(self) -> Dict[str, torch.Tensor]:
        """Return what must survive a kill."""
        return {"totals": self._totals}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` returned."""
        self._totals = state["totals"]


@dataclass(frozen=True)
class Order:
    """In which order units stay, per group: those of the pruned network first, the worthiest before.

    Args:
        units: (c_g,) each.
        worth: of these units, (c_g,) each.
    """

    units: Tuple[IntArray, ...]
    worth: Tuple[FloatArray, ...]

    @staticmethod
    def of(spec: NetworkSpec, worth: Sequence[FloatArray], keep: Keep) -> Order:
        """Return the order by what units are worth, (c_g,) each, and those that the pruned network has."""
        orders = []
        for group, values in zip(spec.prunable, worth):
            gone = np.ones(group.width, dtype=bool)
            gone[keep[group.name]] = False
            orders.append(np.lexsort((-values, gone)).astype(np.int64))
        ranked = [np.asarray(values[order]) for values, order in zip(worth, orders)]
        return Order(tuple(orders), tuple(ranked))

    def first(self, spec: NetworkSpec, widths: FloatArray) -> Dict[str, IntArray]:
        """Return the units that stay at widths (G,)."""
        return {
            group.name: np.sort(order[: int(width)])
            for group, order, width in zip(spec.prunable, self.units, widths)
        }
