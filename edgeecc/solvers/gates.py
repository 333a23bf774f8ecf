"""What a unit is worth by the first-order effect of closing it (HALP, NeurIPS 2022, section 3.2).

A unit that passes through batch norm is closed by gamma = beta = 0, so the loss changes by
|gamma dL/dgamma + beta dL/dbeta| to first order; norms of the same unit, in layers that are coupled, are summed
before the absolute value. Where no norm touches a unit, it is closed at the filters, and biases (ours), that make
it: |sum w dL/dw|.
"""

from __future__ import annotations

from typing import Collection, Dict, List, Optional, Set, Tuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgeecc.errors import ConfigError
from edgeecc.graph.spec import FloatArray, NetworkSpec
from edgeecc.solvers.units import UnitTable

_BoolArray = npt.NDArray[np.bool_]


class Gates:
    """Where the units of each prunable group can be closed.

    Args:
        spec: the network. A norm is what has a weight and a bias of one axis each.
        trained: names of the parameters that get gradients; those of frozen norms do not, and filters stand in.
    Raises: ConfigError where nothing that makes or carries a unit is trained.
    """

    def __init__(self, spec: NetworkSpec, trained: Collection[str]) -> None:
        shapes = {p.name: p.shape for p in spec.parameters if p.name in trained}
        norms = _norms(shapes)
        self._norms = UnitTable(spec, owns=lambda piece: piece.parameter in norms)
        self._filters = UnitTable(
            spec,
            owns=lambda piece: (
                piece.role == "out" and piece.parameter in shapes and piece.parameter not in norms
            ),
        )
        self._normed = _covered(self._norms, shapes)
        for group, normed, made in zip(
            spec.prunable, self._normed, _covered(self._filters, shapes)
        ):
            if not (normed | made).all():
                raise ConfigError(
                    f"no weight that makes the channels of {group.name} is trained, so halp cannot weigh them; "
                    "unfreeze it or use --method uniform"
                )

    def importance(self, model: nn.Module) -> Optional[List[FloatArray]]:
        """Return per group the importance of each unit, (c_g,), at least 0; None where gradients are not finite.

        Args:
            model: after the backward pass of a batch.
        """
        parameters = dict(model.named_parameters(remove_duplicate=False))

        def effect(name: str) -> torch.Tensor:
            gradient = parameters[name].grad
            weight = parameters[name].detach()
            return torch.zeros_like(weight) if gradient is None else weight * gradient

        closed = [
            np.abs(np.where(normed, norm, made))
            for normed, norm, made in zip(
                self._normed, self._norms.sums(effect), self._filters.sums(effect)
            )
        ]
        return closed if all(np.isfinite(values).all() for values in closed) else None


def trained_parameters(model: nn.Module) -> Set[str]:
    """Return the names of the parameters that get gradients."""
    named = model.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if parameter.requires_grad}


def _norms(shapes: Dict[str, Tuple[int, ...]]) -> Set[str]:
    """Return the names of the weights and biases of norms."""
    found = set()
    for name, shape in shapes.items():
        owner, dot, leaf = name.rpartition(".")
        bias = f"{owner}{dot}bias"
        if leaf == "weight" and len(shape) == 1 and shapes.get(bias) == shape:
            found |= {name, bias}
    return found


def _covered(table: UnitTable, shapes: Dict[str, Tuple[int, ...]]) -> List[_BoolArray]:
    """Return per group which units own anything in a table."""
    return [count > 0.0 for count in table.sums(lambda name: torch.ones(shapes[name]))]
