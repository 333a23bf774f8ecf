"""Masks on the inputs of convolutions: one number for every channel and place, the same for every image.

A mask is a parameter `input_mask`, (channels, height, width), of any convolution, which multiplies what the
layer reads. No layer has to be written for it; it is trained, saved and exported with the network.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Tuple

import torch
from torch import nn

NAME = "input_mask"


def attach(model: nn.Module, sizes: Mapping[str, Tuple[int, ...]]) -> None:
    """Give layers a mask of ones, in place; it stands still until a mask phase lets it be trained.

    Args:
        model: the network.
        sizes: layer name -> (channels, height, width) of what it reads.
    """
    for name, size in sizes.items():
        module = model.get_submodule(name)
        weight = module.get_parameter("weight")
        ones = torch.ones(size, device=weight.device)
        module.register_parameter(NAME, nn.Parameter(ones, requires_grad=False))
        module.register_forward_pre_hook(_multiply)


def input_masks(model: nn.Module) -> Dict[str, nn.Parameter]:
    """Return layer name -> mask."""
    suffix = f".{NAME}"
    return {
        name[: -len(suffix)]: value
        for name, value in model.named_parameters()
        if name.endswith(suffix)
    }


def sizes_in(state: Mapping[str, Any]) -> Dict[str, Tuple[int, ...]]:
    """Return layer name -> size of every mask in a state dict, of arrays or tensors."""
    suffix = f".{NAME}"
    return {
        name[: -len(suffix)]: tuple(value.shape)
        for name, value in state.items()
        if name.endswith(suffix)
    }


def _multiply(module: nn.Module, inputs: Tuple[Any, ...]) -> Tuple[Any, ...]:
    return (inputs[0] * module.get_parameter(NAME), *inputs[1:])
