"""How sharply the loss answers to each parameter: a running mean of its squared gradient.

It stands beside the weights whatever the optimiser is, and for input masks that no optimiser moves.
"""

from __future__ import annotations

from typing import Dict, Mapping, Tuple

import torch
from torch import nn

#: Decay of the running mean: about a hundred batches (ours).
DECAY = 0.99
#: Least root of the mean that a parameter is weighted by, the epsilon of Adam: what gets no gradient is not lost.
EPSILON = 1e-8


class Sensitivity:
    """Running means of squared gradients.

    Args:
        names: of the parameters.
        decay: of the mean, [0, 1).
    """

    def __init__(self, names: Tuple[str, ...], decay: float = DECAY) -> None:
        self._names = names
        self._decay = decay
        self._means: Dict[str, torch.Tensor] = {}

    def observe(self, model: nn.Module) -> None:
        """Take in the gradients of a batch."""
        parameters = dict(model.named_parameters())
        for name in self._names:
            gradient = parameters[name].grad
            if gradient is not None:
                mean = self._means.get(name)
                mean = torch.zeros_like(gradient) if mean is None else mean.to(gradient)
                self._means[name] = mean
                mean.mul_(self._decay).addcmul_(gradient, gradient, value=1.0 - self._decay)

    def root(self, name: str, like: torch.Tensor) -> torch.Tensor:
        """Return the root mean square gradient of a parameter, in its shape, loss per unit.

        A parameter without gradients, being frozen, gets the average of all others.
        """
        mean = self._means.get(name)
        if mean is not None:
            return mean.sqrt() + EPSILON
        others = [float(other.mean()) for other in self._means.values()]
        average = sum(others) / len(others) if others else 0.0
        return torch.full_like(like, average).sqrt() + EPSILON

    def state(self) -> Dict[str, torch.Tensor]:
        """Return the means by parameter name."""
        return {f"sensitivity.{name}": mean for name, mean in self._means.items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` returned."""
        prefix = "sensitivity."
        self._means = {
            name[len(prefix) :]: mean for name, mean in state.items() if name.startswith(prefix)
        }
