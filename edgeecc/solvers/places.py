"""Which inputs of convolutions are worth moving, chosen together with the weights in one knapsack (ours).

A place of an input mask that goes saves what moving it costs; a weight that goes saves its own cost. What either
loses is estimated alike, by the squared first-order change of the loss, (value * gradient)^2, averaged over
batches. The greedy projection over both tells which places stay. A weight that went may return, a place does not:
its gradient tells what a small return is worth, not a whole one, and places that come and go help nobody. The
published form is `solvers.masking`.
"""

from __future__ import annotations

from typing import Callable, Dict, List, Mapping, Tuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgeecc.solvers.projection import FloatArray, LayerCost, project
from edgeecc.solvers.sensitivity import Sensitivity
from edgeecc.solvers.sparse import SparseProblem

#: Projections that look for room for one weight of each layer, where places cost more than was reckoned.
_TRIES = 30


class Places:
    """Input masks of a network and what their places cost.

    Args:
        masks: parameter name -> mask, (channels, height, width), changed in place; values 0 and 1.
        costs: parameter name -> cost of each place that is not masked, of the mask's shape.
        problem_now: the problem with the masks of the moment.
    """

    def __init__(
        self,
        masks: Mapping[str, nn.Parameter],
        costs: Mapping[str, npt.NDArray[np.float64]],
        problem_now: Callable[[], SparseProblem],
    ) -> None:
        self._masks = masks
        self._costs = costs
        self._problem_now = problem_now
        self._chosen = {name: mask.detach().clone() for name, mask in masks.items()}

    @property
    def names(self) -> Tuple[str, ...]:
        """Return the parameter names of the masks."""
        return tuple(self._masks)

    def share(self) -> float:
        """Return the share of places that are not masked."""
        kept = sum(int(mask.count_nonzero()) for mask in self._chosen.values())
        return kept / sum(mask.numel() for mask in self._chosen.values())

    def choose_(
        self, model: nn.Module, budget: float, sensitivity: Sensitivity, slack: float
    ) -> None:
        """Mask in place what does not stay within a budget.

        Args:
            model: the network with the masks.
            budget: of weights and inputs together.
            sensitivity: of weights and masks.
            slack: ratio of relaxed to exact cost of the weights.
        """
        problem = self._problem_now()
        moved = problem.fixed - self._spent()
        values, costs = _weights(problem, model, sensitivity, slack)
        for name, mask in self._masks.items():
            root = sensitivity.root(name, mask).cpu().numpy()
            root = root * self._chosen[name].cpu().numpy()
            cost = self._costs[name]
            mean = float(cost.mean())
            # scaled so that its density is right at the mean cost, the only one a layer has in a projection
            values.append(np.asarray(root * np.sqrt(mean / cost), dtype=np.float32))
            costs.append(LayerCost(mean, mean, cost.size))
        allowance = max(budget - moved, problem.lowest - problem.fixed)
        for _ in range(_TRIES):
            keep = project(values, costs, allowance).keep[len(problem.layers) :]
            self._write_(keep)
            excess = self._problem_now().lowest - budget
            if excess <= 0.0:
                return
            allowance = max(allowance - 1.5 * excess, 1e-6 * allowance)
        self._write_([np.zeros(cost.shape, dtype=np.bool_) for cost in self._costs.values()])

    def hold_(self) -> None:
        """Put the masks back as they were chosen: the optimiser moves them too."""
        with torch.no_grad():
            for name, mask in self._masks.items():
                mask.copy_(self._chosen[name])

    def resume_(self) -> None:
        """Take the masks as chosen that the network has."""
        self._chosen = {name: mask.detach().clone() for name, mask in self._masks.items()}

    def _spent(self) -> float:
        """Return what the places that are not masked cost."""
        return sum(
            float((self._costs[name] * mask.cpu().numpy()).sum())
            for name, mask in self._chosen.items()
        )

    def _write_(
        self, keep: List[npt.NDArray[np.bool_]] | Tuple[npt.NDArray[np.bool_], ...]
    ) -> None:
        for (name, mask), places in zip(self._masks.items(), keep):
            self._chosen[name] = torch.from_numpy(places).to(mask)
        self.hold_()


def _weights(
    problem: SparseProblem, model: nn.Module, sensitivity: Sensitivity, slack: float
) -> Tuple[List[FloatArray], List[LayerCost]]:
    """Return weight times gradient of every layer, and what its weights cost exactly on average."""
    parameters: Dict[str, nn.Parameter] = dict(model.named_parameters())
    values, costs = [], []
    for layer, weights in zip(problem.layers, problem.weights(model)):
        root = sensitivity.root(layer.parameter, parameters[layer.parameter].detach())
        values.append(np.asarray(weights * root.cpu().numpy(), dtype=np.float32))
        cost = layer.cost
        costs.append(LayerCost(cost.inside / slack, cost.outside / slack, cost.room))
    return values, costs
