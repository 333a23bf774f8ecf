"""How many weights each filter keeps under an energy budget for the whole network (ours).

Were its inputs uncorrelated, the share of a layer's output that its weights keep would be the share that they
have of the sum of w^2 mean(x^2), x being what weight w multiplies. What is lost over what is kept is noise over
signal, and the noise of layers adds up on the way to the output; so the budget is split to make the sum of
lost/kept over all layers small. A layer that already lost much then pays more for what it loses next, which
keeps narrow layers from being starved.

Equal density in all layers, magnitude per energy and the greatest kept shares in sum were tried and left more error.
"""

from __future__ import annotations

import math
from typing import Dict, List, Optional

import numpy as np
import torch
from torch import nn

from edgeecc.solvers.moments import mean_squares
from edgeecc.solvers.projection import FloatArray, Projection, project
from edgeecc.solvers.sample import Sample
from edgeecc.solvers.sparse import SparseProblem
from edgeecc.solvers.unfold import from_matrix, matrix

#: Rounds of reweighting; prices of layers move by under 2 % after six.
ROUNDS = 8
#: Kept share from which on a layer's need no longer grows.
LEAST = 1e-3


def targets(
    problem: SparseProblem, model: nn.Module, sample: Sample, budget: float
) -> Dict[str, torch.Tensor]:
    """Return which weights would stay by saliency alone; a filter's target is how many of its own do.

    Minimises the sum over layers of 1 / kept share. For kept shares R the gain of a weight is its share times
    1/R^2, so shares are scaled by 1/R^2 and projected onto the budget, with R from the projection before; the
    logarithms of the scales are averaged over the rounds, which makes them settle.

    Args:
        problem: tells layers and prices.
        model: weights that are zero get nothing.
        sample: images that tell the inputs of each layer.
        budget: unit of the costs, `fixed` included.
    Returns: parameter name -> bool tensor of its shape, on the CPU; they cost at most the budget.
    Raises: ConfigError when nothing fits the budget.
    """
    names = [layer.parameter for layer in problem.layers]
    layers = [name.rpartition(".")[0] for name in names]
    squares = mean_squares(model, layers, sample)
    roots = [_root_share(model.get_submodule(layer), squares.get(layer)) for layer in layers]
    needs = np.zeros(len(roots))
    for turn in range(ROUNDS):
        kept = _kept(roots, _projected(problem, roots, needs, budget))
        needs += 2.0 / (turn + 3.0) * (-2.0 * np.log(np.maximum(kept, LEAST)) - needs)
    keep = _projected(problem, roots, needs, budget).keep
    return {name: torch.from_numpy(stays) for name, stays in zip(names, keep)}


def _root_share(module: nn.Module, squares: Optional[torch.Tensor]) -> FloatArray:
    """Return the root of each weight's share of the layer's output; of its squared weights without inputs."""
    weight = module.get_parameter("weight").detach().double()
    if squares is not None:
        weight = from_matrix(module, matrix(module, weight) * squares.sqrt())
    size = math.sqrt(float(weight.square().sum()))
    values = weight.abs() / size if size > 0.0 else weight.abs()
    return np.ascontiguousarray(values.float().cpu().numpy())


def _projected(
    problem: SparseProblem, roots: List[FloatArray], needs: np.typing.NDArray[np.float64], budget: float
) -> Projection:  # fmt: skip
    scaled = [root * np.float32(math.exp(need / 2.0)) for root, need in zip(roots, needs)]
    return project(scaled, [layer.cost for layer in problem.layers], budget - problem.fixed)


def _kept(roots: List[FloatArray], projection: Projection) -> np.typing.NDArray[np.float64]:
    """Return the share of each layer's output that is kept."""
    pairs = zip(roots, projection.keep)
    return np.array([float(np.square(root[keep], dtype=np.float64).sum()) for root, keep in pairs])
