"""What the weights and inputs of a network cost on a systolic array, as a problem to solve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Mapping, Optional, Sequence, Tuple

import numpy as np
from torch import nn

from edgeecc.cost.hardware import Hardware
from edgeecc.cost.systolic import (
    BoolArray,
    FloatArray,
    Shape,
    network_energy,
    place_cost,
    weight_cost,
)
from edgeecc.graph.input_mask import NAME, input_masks
from edgeecc.pattern import Pattern
from edgeecc.solvers.places import Places
from edgeecc.solvers.projection import LayerCost
from edgeecc.solvers.sparse import SparseLayer, SparseProblem


@dataclass(frozen=True)
class ArrayPricing:
    """Prices of a network on an array; energies are in accesses of a register file.

    Args:
        model: the network; the input masks that it has at the moment are priced in.
        shapes: its layers.
        array: constants.
        bound: the budget.
        seed: of every random choice of a solver.
        pattern: that every layer that can have it must have.
    """

    model: nn.Module
    shapes: Tuple[Shape, ...]
    array: Hardware
    bound: float
    seed: int
    pattern: Optional[Pattern] = None

    @property
    def dense_cost(self) -> float:
        """Return the relaxed energy of the dense network, to which budgets refer."""
        return dense_cost(self.shapes, self.array)

    def problem(self, masks: Optional[Mapping[str, BoolArray]] = None) -> SparseProblem:
        """Return the problem with the given input masks, by default those of the moment."""
        patterns = self.masks() if masks is None else masks
        layers = tuple(
            SparseLayer(
                f"{shape.name}.weight",
                LayerCost(*weight_cost(shape, self.array), self.array.weight_words),
                self.pattern if self.pattern is not None and shape.can_have(self.pattern) else None,
            )
            for shape in self.shapes
        )

        def exact(keep: Sequence[BoolArray]) -> float:
            weights = {shape.name: stays for shape, stays in zip(self.shapes, keep)}
            energies = network_energy(self.shapes, self.array, weights=weights, masks=patterns)
            return sum(energy.total for energy in energies)

        energies = network_energy(self.shapes, self.array, masks=patterns, exact=False)
        fixed = sum(energy.inputs for energy in energies)
        return SparseProblem(layers, fixed, self.bound, self.seed, exact)

    def without_inputs(self) -> SparseProblem:
        """Return the problem with every place of every input mask masked: the cheapest."""
        sizes = maskable(self.shapes)
        return self.problem({name: np.zeros(size, dtype=np.bool_) for name, size in sizes.items()})

    def places(self) -> Places:
        """Return the input masks of the network and what their places cost."""
        by_name = {shape.name: shape for shape in self.shapes}
        masks = input_masks(self.model)
        costs: Dict[str, FloatArray] = {
            f"{name}.{NAME}": place_cost(by_name[name], self.array) for name in masks
        }
        return Places({f"{name}.{NAME}": mask for name, mask in masks.items()}, costs, self.problem)

    def by_energy(self) -> Tuple[str, ...]:
        """Return the weights' names from the layer that costs most when dense to the one that costs least."""
        energies = network_energy(self.shapes, self.array, exact=False)
        ordered = sorted(energies, key=lambda energy: -energy.total)
        return tuple(f"{energy.name}.weight" for energy in ordered)

    def masks(self) -> Dict[str, BoolArray]:
        """Return layer name -> which of its inputs are not masked, for layers with a mask."""
        masks = input_masks(self.model)
        return {name: mask.detach().cpu().numpy() != 0 for name, mask in masks.items()}


def dense_cost(shapes: Tuple[Shape, ...], array: Hardware) -> float:
    """Return the relaxed energy of a network with all its weights and inputs."""
    return sum(energy.total for energy in network_energy(shapes, array, exact=False))


def maskable(shapes: Tuple[Shape, ...]) -> Dict[str, Tuple[int, ...]]:
    """Return layer name -> size of its input, for every convolution that runs once."""
    return {
        shape.name: shape.input_shape for shape in shapes if not shape.matrix and shape.calls == 1
    }
