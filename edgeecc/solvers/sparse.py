"""What is solved when single weights go, not channels: an energy budget over the zeros in every layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgeecc.errors import BudgetInfeasibleError
from edgeecc.pattern import Pattern
from edgeecc.solvers.finetune import FixedMasks
from edgeecc.solvers.projection import LayerCost, Projection, project

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SparseLayer:
    """A layer whose weights may go.

    Args:
        parameter: name of its weight.
        cost: of its nonzero weights.
        pattern: that its nonzero weights must have; None leaves them free.
    """

    parameter: str
    cost: LayerCost
    pattern: Optional[Pattern] = None

    def price(self, nonzero: int) -> float:
        """Return what so many nonzero weights cost."""
        room = min(nonzero, self.cost.room)
        return room * self.cost.inside + (nonzero - room) * self.cost.outside

    def restrict(self, weights: FloatArray) -> FloatArray:
        """Return weights with zeros outside the pattern."""
        return weights if self.pattern is None else self.pattern.restrict(weights)

    def holds(self, weights: FloatArray) -> bool:
        """Return whether weights have the pattern."""
        return self.pattern is None or self.pattern.holds(weights)


@dataclass(frozen=True)
class SparseProblem:
    """Keep the loss low while the weights that are not zero cost at most the bound and have their patterns.

    Args:
        layers: every layer of the network.
        fixed: what is paid with every weight zero: moving inputs and outputs.
        bound: the budget, unit of the costs, `fixed` included.
        seed: of every random choice.
    """

    layers: Tuple[SparseLayer, ...]
    fixed: float
    bound: float
    seed: int

    def weights(self, model: nn.Module) -> List[FloatArray]:
        """Return the weights of every layer; on the CPU they share memory with the network."""
        parameters = dict(model.named_parameters())
        return [parameters[layer.parameter].detach().cpu().numpy() for layer in self.layers]

    def cost(self, nonzero: Sequence[int]) -> float:
        """Return the relaxed energy for the number of nonzero weights of each layer."""
        return self.fixed + sum(layer.price(count) for layer, count in zip(self.layers, nonzero))

    def cost_of(self, model: nn.Module) -> float:
        """Return the relaxed energy of a network with the zeros that it has."""
        return self.cost([int(np.count_nonzero(values)) for values in self.weights(model)])

    def is_met_by(self, model: nn.Module) -> bool:
        """Return whether a network is within the bound and has the patterns."""
        if self.cost_of(model) > self.bound:
            return False
        pairs = zip(self.layers, self.weights(model))
        return all(layer.holds(values) for layer, values in pairs)

    def project_(self, model: nn.Module) -> None:
        """Zero in place what does not stay within the bound and the patterns."""
        zero_(model, masks_of(self, self.project(model, self.bound)))

    def project(self, model: nn.Module, budget: float) -> Projection:
        """Return which weights of the network stay within a budget, `fixed` included, and within the patterns.

        What lies outside a pattern goes first, which loses nothing (ours): a layer's cost depends on how many weights
        stay, so a choice that keeps a smaller weight of a group and not a larger one is improved by swapping them.
        """
        weights = [
            layer.restrict(values) for layer, values in zip(self.layers, self.weights(model))
        ]
        return project(weights, [layer.cost for layer in self.layers], budget - self.fixed)

    def check_feasible(self, dense: float) -> None:
        """Check that inputs and one weight of each layer fit.

        Args:
            dense: energy that a percentage refers to, for the message.
        Raises: BudgetInfeasibleError with the lowest budget that can be met.
        """
        lowest = self.cost([1] * len(self.layers))
        if self.bound < lowest:
            share = math.ceil(1000.0 * lowest / dense) / 10.0
            raise BudgetInfeasibleError(
                f"a budget of {self.bound / dense:.1%} of dense is below what moving inputs and one weight of each "
                f"layer costs; the lowest that can be met is {share:g}%",
                lowest=lowest,
            )


def zero_(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Zero the weights that do not stay, in place."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name].mul_(mask.to(parameters[name]))


def masks_of(problem: SparseProblem, projection: Projection) -> Dict[str, torch.Tensor]:
    """Return parameter name -> which of its weights stay."""
    return {
        layer.parameter: torch.from_numpy(keep)
        for layer, keep in zip(problem.layers, projection.keep)
    }


class FixedWeights(FixedMasks):
    """Hooks that keep zero weights zero.

    Args:
        problem: tells the layers.
        model: its zeros are the pattern.
    """

    def __init__(self, problem: SparseProblem, model: nn.Module) -> None:
        parameters = dict(model.named_parameters())
        names = [layer.parameter for layer in problem.layers]
        masks = {name: (parameters[name].detach() != 0).float() for name in names}
        super().__init__(masks, problem.cost_of(model))
