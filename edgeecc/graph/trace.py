"""Trace a torch network into a `NetworkSpec`."""

from __future__ import annotations

import copy
from typing import Mapping, Tuple

import torch
from torch import nn

from edgeecc.errors import GraphError, brief
from edgeecc.graph.coupling import find_units
from edgeecc.graph.grouping import group_units
from edgeecc.graph.layers import Call, layer_specs, observe
from edgeecc.graph.selfcheck import prove
from edgeecc.graph.spec import ChannelGroup, NetworkSpec, ParameterSpec
from edgeecc.graph.unsupported import check_modules


def trace(
    model: nn.Module, example_inputs: Tuple[torch.Tensor, ...], *, network: str = ""
) -> NetworkSpec:  # fmt: skip
    """Describe a network: channel groups, layers and parameters.

    Every group that is called prunable has been proved so: on this network with random parameters, cutting
    parts of each group out gives what masking them gives. A group that fails stays whole, with the reason.

    Args:
        model: any module; left as it is.
        example_inputs: the forward arguments, batch 1; left as they are.
        network: name that goes into the spec.
    Raises: GraphError naming the module when forward fails or the network cannot be followed.
    """
    if any(x.shape[0] != 1 for x in example_inputs if x.ndim):
        raise GraphError("the example input must have batch 1; costs are counted per image")
    check_modules(model)
    example_inputs = tuple(x.detach().cpu() for x in example_inputs)
    work = _copied(model)
    calls = observe(work, example_inputs)
    order = {name: place for place, name in enumerate(calls)}
    for parameter in work.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)  # torch-pruning follows gradients
    groups = group_units(work, find_units(work, example_inputs), order)
    spec = _assemble(work, example_inputs, network, groups, calls)
    return spec.with_whole(prove(work, example_inputs, spec))


def _copied(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode on the CPU.

    Raises: GraphError when a module holds a computed tensor, as the old `weight_norm` does.
    """
    try:
        return copy.deepcopy(model).cpu().eval()
    except RuntimeError as error:
        raise GraphError(
            f"the network cannot be copied: {brief(error)}; store computed weights (remove_weight_norm) first"
        ) from error


def _assemble(
    model: nn.Module,
    example_inputs: Tuple[torch.Tensor, ...],
    network: str,
    groups: Tuple[ChannelGroup, ...],
    calls: Mapping[str, Call],
) -> NetworkSpec:  # fmt: skip
    trained = {name for name, _ in model.named_parameters()}
    parameters = tuple(
        ParameterSpec(name, tuple(value.shape), name in trained)
        for name, value in model.state_dict().items()
        if value.is_floating_point()
    )
    shapes = tuple(tuple(int(n) for n in x.shape) for x in example_inputs)
    return NetworkSpec(network, shapes, groups, layer_specs(model, calls, groups), parameters)
