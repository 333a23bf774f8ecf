"""Energy-aware pruning: layer by layer, keep and fit the weights that the layer's output needs.

Source: EAP (CVPR 2017), at the granularity of single weights. A sweep visits the layers from the one that spends
most energy to the one that spends least. In each, every filter first loses its smallest weights, more than it
has to; then those return that lessen the error of the layer's output most; then what is left is fitted to the
output that the dense network gives, by least squares in closed form, on what the layer reads now that others
are pruned. After a sweep the network is trained as a whole with the zeros fixed.

Deviations:
- Energy is that of the problem's cost model, not of the paper's mapped array.
- The paper sweeps until an accuracy is lost and does not say how much each layer loses. Here the budget is given,
  falls geometrically from sweep to sweep, and is split over filters by `targets` of the dense network, so that
  what earlier sweeps took from a layer counts as lost.
- How far pruning goes beyond the target is ours (the best of five shares that were tried on one network).
- Restoring takes several weights at a time, and both it and the fit have a ridge towards the weights at hand
  (`local_fit`); the fit sees a sample of positions (`moments`).
- Biases are not fitted: the dense output less the bias at hand is what the weights are fitted to.
- In a later sweep any weight may return, also one that an earlier sweep removed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Dict, Mapping, Sequence, Tuple

import torch
from torch import nn

from edgeecc.errors import ConfigError
from edgeecc.solvers.allocation import targets
from edgeecc.solvers.local_fit import Moments, fit, restore
from edgeecc.solvers.moments import moments
from edgeecc.solvers.reference import Reference
from edgeecc.solvers.sample import Sample
from edgeecc.solvers.sparse import SparseProblem
from edgeecc.solvers.unfold import from_matrix, matrix
from edgeecc.solvers.units import mask_weights_

#: Share of a filter's target that is pruned beyond it, and restored by what the output needs.
BEYOND = 0.3


@dataclass(frozen=True)
class Teacher:
    """What a sweep fits to.

    Args:
        dense: the network whose outputs are wanted; not modified.
        sample: images to fit on.
        order: weights' parameter names, in the order of pruning: most energy first.
    """

    dense: nn.Module
    sample: Sample
    order: Tuple[str, ...]

    @cached_property
    def reference(self) -> Reference:
        """What the layers of the dense network give."""
        return Reference(self.dense, [name.rpartition(".")[0] for name in self.order], self.sample)


def sweep_(
    problem: SparseProblem, model: nn.Module, teacher: Teacher, budget: float
) -> Dict[str, torch.Tensor]:
    """Prune and fit each layer once, in place, so that the network costs at most `budget`.

    A layer without moments (see `moments`) keeps the weights that `targets` counts, as they are.

    Args:
        problem: tells layers and prices.
        model: pruned in place; biases and batch norms stay.
        teacher: what is fitted to.
        budget: unit of the costs, `fixed` included.
    Returns: parameter name -> which of its weights stay.
    Raises: ConfigError when nothing fits the budget or the order lacks a layer.
    """
    check_order(problem, teacher.order)
    kept = targets(problem, teacher.dense, teacher.sample, budget)
    for name in teacher.order:
        layer = name.rpartition(".")[0]
        module = model.get_submodule(layer)
        found = moments(model, teacher.reference, [layer]).get(layer)
        weight = module.get_parameter("weight").detach()
        if found is None:
            weight.mul_(kept[name].to(weight))
            continue
        target = matrix(module, kept[name].to(weight.device)).sum(2)
        fitted, support = pruned(found, matrix(module, weight).double(), target)
        kept[name] = from_matrix(module, support)
        weight.copy_(from_matrix(module, fitted))
    return kept


def pruned(
    found: Moments, weight: torch.Tensor, target: torch.Tensor
) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return the weights of a layer, (g, o, d), with `target` of each filter, (g, o), and which they are."""
    magnitude = weight.abs()
    rank = magnitude.argsort(dim=2, descending=True, stable=True).argsort(dim=2)
    surely = (target * (1.0 - BEYOND)).ceil()
    support = (rank < surely.unsqueeze(2)) & (magnitude > 0.0)
    restored, support = restore(found, weight * support, support=support, target=target)
    return fit(found, restored, support), support


def check_order(problem: SparseProblem, order: Sequence[str]) -> None:
    """Check that the order names each layer of the problem once.

    Raises: ConfigError naming one that it does not.
    """
    layers = {layer.parameter for layer in problem.layers}
    odd = sorted(layers.symmetric_difference(order))
    if odd or len(order) != len(layers):
        what = f"{odd[0]} is in one but not the other" if odd else "a layer is named twice"
        raise ConfigError(f"the order must name every layer of the problem once; {what}")


class EapHooks:
    """Sweeps inside training steps, and zeros fixed between them; `Hooks`.

    Sweeps are spaced evenly, the first after step 1, so that steps / sweeps steps of training follow each. The
    budget of sweep j of J is start * (bound / start)^(j/J), and the bound itself in the last.

    Args:
        problem: see `SparseProblem`; its bound is below what the network costs at the start.
        dense: the network before pruning, on the same device; not modified.
        images: to fit on, (N, C, H, W).
        order: parameter names of the problem's layers, most energy first.
        sweeps: at least 1; no more are made than there are steps.
    """

    def __init__(
        self,
        problem: SparseProblem,
        dense: nn.Module,
        images: torch.Tensor,
        *,
        order: Sequence[str],
        sweeps: int = 1,
    ) -> None:
        if sweeps < 1:
            raise ConfigError(f"{sweeps} sweeps prune nothing; make at least 1")
        check_order(problem, order)
        self._problem = problem
        self._teacher = Teacher(dense, Sample(images, problem.seed), tuple(order))
        self._sweeps = sweeps
        self._masks: Dict[str, torch.Tensor] = {}
        self._start = math.nan
        self._cost = math.nan

    def after_backward(self, model: nn.Module) -> None:
        """Note what the network costs before the first step."""
        if math.isnan(self._start):
            self._start = self._cost = self._problem.cost_of(model)

    def after_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, steps: int
    ) -> Mapping[str, float]:  # fmt: skip
        """Put the zeros back, and sweep when it is time."""
        mask_weights_(model, optimizer, self._masks)
        done = self.sweep_at(step, steps)
        if done:
            self._masks = sweep_(
                self._problem, model, self._teacher, self.budget(done, min(self._sweeps, steps))
            )
            mask_weights_(model, optimizer, self._masks)
            self._cost = self._problem.cost_of(model)
        return {"cost": self._cost}

    def sweep_at(self, step: int, steps: int) -> int:
        """Return the number of the sweep after a step, counted from 1, or 0 when there is none."""
        sweeps = min(self._sweeps, steps)
        places = [1 + number * steps // sweeps for number in range(sweeps)]
        return places.index(step) + 1 if step in places else 0

    def budget(self, done: int, sweeps: int) -> float:
        """Return the budget of sweep `done` of so many."""
        return self._problem.target(self._start, done / sweeps)

    def state(self) -> Dict[str, torch.Tensor]:
        """Return where the schedule stands, and which weights stay."""
        state = {f"mask.{name}": mask.to(torch.uint8) for name, mask in self._masks.items()}
        state["eap"] = torch.tensor([self._start, self._cost], dtype=torch.float64)
        return state

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` returned."""
        self._start, self._cost = (float(value) for value in state["eap"])
        self._masks = {
            name[len("mask.") :]: mask for name, mask in state.items() if name.startswith("mask.")
        }
