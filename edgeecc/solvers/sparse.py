"""What is solved when single weights go, not channels: an energy budget over the zeros in every layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgeecc.errors import BudgetInfeasibleError
from edgeecc.pattern import Pattern
from edgeecc.solvers.finetune import FixedMasks
from edgeecc.solvers.projection import LayerCost, Projection, project

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
#: Projections that look for the budget in exact cost, and how near is near enough, as a share of what weights may cost.
_TRIES, _NEAR = 5, 2e-3


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
class Ranking:
    """What a weight is worth.

    Args:
        scale: parameter name -> factor of its weights, in their shape, before they are squared; None for none.
        by_cost: whether worth is set against cost, or weights are ordered by worth alone.
    """

    scale: Optional[Callable[[str], torch.Tensor]] = None
    by_cost: bool = True

    def values(self, parameter: str, weights: FloatArray) -> FloatArray:
        """Return what is projected in place of the weights."""
        if self.scale is None:
            return weights
        return np.asarray(weights * self.scale(parameter).cpu().numpy(), dtype=np.float32)


#: As published.
MAGNITUDE = Ranking()


@dataclass(frozen=True)
class Fit:
    """A projection within a budget: its exact cost, and how far above it the relaxed cost of the weights may be."""

    projection: Projection
    cost: float
    slack: float


@dataclass(frozen=True)
class SparseProblem:
    """Keep the loss low while the weights that are not zero cost at most the bound and have their patterns.

    Args:
        layers: every layer of the network.
        fixed: what is paid with every weight zero: moving inputs and outputs.
        bound: the budget, unit of the costs, `fixed` included.
        seed: of every random choice.
        exact: which weights of each layer are not zero -> exact cost, `fixed` included, never above the relaxed one;
            None where the relaxed cost is the exact one.
    """

    layers: Tuple[SparseLayer, ...]
    fixed: float
    bound: float
    seed: int
    exact: Optional[Callable[[Sequence[BoolArray]], float]] = None

    def weights(self, model: nn.Module) -> List[FloatArray]:
        """Return the weights of every layer; on the CPU they share memory with the network."""
        parameters = dict(model.named_parameters())
        return [parameters[layer.parameter].detach().cpu().numpy() for layer in self.layers]

    def relaxed(self, nonzero: Sequence[int]) -> float:
        """Return the relaxed cost for the number of nonzero weights of each layer."""
        return self.fixed + sum(layer.price(count) for layer, count in zip(self.layers, nonzero))

    @property
    def lowest(self) -> float:
        """Return what inputs and one weight of each layer cost."""
        return self.relaxed([1] * len(self.layers))

    def cost_of(self, model: nn.Module) -> float:
        """Return the exact cost of a network with the zeros that it has."""
        return self._exact([values != 0 for values in self.weights(model)])

    def target(self, start: float, share: float) -> float:
        """Return the budget when a share of the way from a cost to the bound is done: geometric, the bound at 1."""
        if share >= 1.0 or start <= self.bound:
            return self.bound
        return start * math.pow(self.bound / start, share)

    def is_met_by(self, model: nn.Module) -> bool:
        """Return whether a network is within the bound and has the patterns."""
        if self.cost_of(model) > self.bound:
            return False
        pairs = zip(self.layers, self.weights(model))
        return all(layer.holds(values) for layer, values in pairs)

    def values(self, model: nn.Module, ranking: Ranking = MAGNITUDE) -> List[FloatArray]:
        """Return what is projected: the worth of every weight, zero outside the patterns.

        What lies outside a pattern goes first, which loses nothing (ours): a layer's cost depends on how many weights
        stay, so a choice that keeps a smaller weight of a group and not a larger one is improved by swapping them.
        """
        return [
            layer.restrict(ranking.values(layer.parameter, weights))
            for layer, weights in zip(self.layers, self.weights(model))
        ]

    def project(
        self, values: Sequence[FloatArray], budget: float, *, by_cost: bool = True, slack: float = 1.0
    ) -> Projection:  # fmt: skip
        """Return which weights stay when the relaxed cost of all weights may be `slack * (budget - fixed)`."""
        costs = [layer.cost for layer in self.layers]
        return project(values, costs, slack * (budget - self.fixed), by_cost=by_cost)

    def fit(
        self, model: nn.Module, budget: float, ranking: Ranking = MAGNITUDE, slack: float = 1.0
    ) -> Fit:
        """Project so that the exact cost is within a budget and close to it (ours).

        The relaxed cost counts products with padding and with masked inputs, so it may be above the budget while
        the exact one is not. A few projections find by how much.

        Args:
            model: the network.
            budget: `fixed` included.
            ranking: worth of its weights.
            slack: ratio of relaxed to exact cost of the weights to begin with, at least 1.
        """
        values, allowance = self.values(model, ranking), budget - self.fixed
        best: Optional[Fit] = None
        for _ in range(_TRIES):
            projection = self.project(values, budget, by_cost=ranking.by_cost, slack=slack)
            cost = self._exact(projection.keep)
            spent = max(cost - self.fixed, _NEAR * allowance)
            if cost <= budget and (best is None or cost > best.cost):
                best = Fit(projection, cost, max(1.0, projection.cost / spent))
            if cost <= budget and spent >= (1.0 - _NEAR) * allowance:
                break
            before, slack = slack, max(1.0, slack * (1.0 - _NEAR / 2.0) * allowance / spent)
            if slack == before:
                break
        if best is None:  # the relaxed cost is never below the exact one
            projection = self.project(values, budget, by_cost=ranking.by_cost)
            best = Fit(projection, self._exact(projection.keep), 1.0)
        return best

    def _exact(self, keep: Sequence[BoolArray]) -> float:
        if self.exact is not None:
            return self.exact(keep)
        return self.relaxed([int(np.count_nonzero(stays)) for stays in keep])

    def project_(self, model: nn.Module, ranking: Ranking = MAGNITUDE) -> None:
        """Zero in place what does not stay within the bound and the patterns."""
        zero_(model, masks_of(self, self.fit(model, self.bound, ranking).projection))

    def check_feasible(self, dense: float) -> None:
        """Check that inputs and one weight of each layer fit.

        Args:
            dense: energy that a percentage refers to, for the message.
        Raises: BudgetInfeasibleError with the lowest budget that can be met.
        """
        if self.bound < self.lowest:
            share = math.ceil(1000.0 * self.lowest / dense) / 10.0
            raise BudgetInfeasibleError(
                f"a budget of {self.bound / dense:.1%} of dense is below what moving inputs and one weight of each "
                f"layer costs; the lowest that can be met is {share:g}%",
                lowest=self.lowest,
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
