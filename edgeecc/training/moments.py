"""What an optimiser keeps of each weight, as tensors that can be carried to another phase or to a file."""

from __future__ import annotations

from typing import Dict, Mapping

import torch
from torch import nn

#: Of Adam, and of gradient descent with momentum.
_KEYS = ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")


def moments_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> Dict[str, torch.Tensor]:
    """Return what an optimiser keeps of the weights of a network, by "KEY.PARAMETER"."""
    return {
        f"{key}.{name}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def take_back_(
    model: nn.Module, optimizer: torch.optim.Optimizer, moments: Mapping[str, torch.Tensor]
) -> None:
    """Give a fresh optimiser what `moments_of` told, of the weights that it tells something of.

    Raises: ValueError when a tensor is of the shape of neither a weight nor a number.
    """
    for name, parameter in model.named_parameters():
        known = {
            key: _beside(parameter, moments[f"{key}.{name}"])
            for key in _KEYS
            if f"{key}.{name}" in moments
        }
        if known:
            optimizer.state[parameter] = known


def _beside(parameter: nn.Parameter, value: torch.Tensor) -> torch.Tensor:
    """Return a copy where the optimiser wants it: its count of steps stays on the CPU."""
    if value.shape not in (parameter.shape, torch.Size([])):
        raise ValueError(
            f"a moment of {tuple(value.shape)} for a weight of {tuple(parameter.shape)}"
        )
    beside = value.to(parameter.device) if value.shape == parameter.shape else value
    return beside.clone()
