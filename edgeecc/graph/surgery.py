"""Mask and slim a torch network by its spec.

A mask zeroes the columns of the layers that read a removed channel, and nothing else. Whatever constant the
producer would still emit (bias, batch norm shift) is then multiplied by zero, so cutting the channel out is
exact: no bias needs folding, and skip connections go by group.
"""

from __future__ import annotations

import copy
from typing import Dict

import torch
from torch import nn

from edgeecc.errors import GraphError
from edgeecc.graph.coupling import CONV, is_depthwise
from edgeecc.graph.spec import Keep, NetworkSpec

_SIZE_ATTRIBUTES = {
    nn.Linear: (("in_features", 1), ("out_features", 0)),
    nn.BatchNorm1d: (("num_features", 0),),
    nn.BatchNorm2d: (("num_features", 0),),
    nn.BatchNorm3d: (("num_features", 0),),
    nn.InstanceNorm1d: (("num_features", 0),),
    nn.InstanceNorm2d: (("num_features", 0),),
    nn.InstanceNorm3d: (("num_features", 0),),
    nn.PReLU: (("num_parameters", 0),),
}


def mask_tensors(spec: NetworkSpec, keep: Keep) -> Dict[str, torch.Tensor]:
    """Return parameter name -> float32 0/1 tensor of its shape, for every parameter that reads pruned channels."""
    shapes = {parameter.name: parameter.shape for parameter in spec.parameters}
    masks: Dict[str, torch.Tensor] = {}
    checked = spec.checked_keep(keep)
    for group in spec.prunable:
        for piece in group.slices:
            if piece.role != "in":
                continue
            mask = masks.setdefault(piece.parameter, torch.ones(shapes[piece.parameter]))
            units = torch.ones(group.width, dtype=torch.bool)
            units[torch.from_numpy(checked[group.name])] = False
            gone = piece.indices(units.nonzero().reshape(-1).numpy()).reshape(-1)
            mask.index_fill_(piece.axis, torch.from_numpy(gone), 0.0)
    return masks


def mask_(model: nn.Module, spec: NetworkSpec, keep: Keep) -> None:
    """Zero in place what removed channels feed."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, mask in mask_tensors(spec, keep).items():
            parameters[name].mul_(mask.to(parameters[name]))


def slim(model: nn.Module, spec: NetworkSpec, keep: Keep) -> nn.Module:
    """Return a physically smaller copy; its outputs equal those of the masked network.

    The state dict keeps its names. Removed channels are gone from every parameter and buffer, and the
    modules' size attributes follow.

    Raises: GraphError when the spec belongs to another network.
    """
    checked = spec.checked_keep(keep)
    small = copy.deepcopy(model)
    tensors = {
        **dict(small.named_parameters(remove_duplicate=False)),
        **dict(small.named_buffers(remove_duplicate=False)),
    }
    for parameter in spec.parameters:
        tensor = tensors.get(parameter.name)
        if tensor is None or tuple(tensor.shape) != parameter.shape:
            raise GraphError(
                f"the network has no {parameter.name} {parameter.shape}; trace it again"
            )
        cut = tensor.detach()
        for axis, size in enumerate(parameter.shape):
            kept = spec.kept_indices(parameter.name, axis, size, checked)
            if kept is not None:
                cut = cut.index_select(axis, torch.from_numpy(kept).to(cut.device))
        if cut.shape != tensor.shape:
            _replace_(small, parameter.name, cut.clone())
    for module in small.modules():
        _resize_(module)
    return small


def widen_(model: nn.Module, small: nn.Module, spec: NetworkSpec, keep: Keep) -> None:
    """Write the parameters and buffers of a slim network back into the network that it was cut from, in place.

    What the slim network lacks stays as it is; where readers of removed channels are zero, both compute the same.

    Raises: GraphError when the slim network was not cut from this one by these units.
    """
    checked = spec.checked_keep(keep)
    whole = model.state_dict()  # shares memory with the network
    for name, value in small.state_dict().items():
        places = [
            spec.kept_indices(name, axis, size, checked)
            for axis, size in enumerate(whole[name].shape)
        ]
        sizes = zip(places, whole[name].shape)
        if tuple(value.shape) != tuple(size if at is None else len(at) for at, size in sizes):
            raise GraphError(
                f"{name} of the slim network is {tuple(value.shape)}; it was cut by other units"
            )
        if all(at is None for at in places):
            whole[name].copy_(value)
            continue
        index = [
            torch.arange(size) if at is None else torch.from_numpy(at)
            for at, size in zip(places, whole[name].shape)
        ]
        whole[name][torch.meshgrid(*index, indexing="ij")] = value


def _replace_(model: nn.Module, name: str, value: torch.Tensor) -> None:
    owner_name, _, leaf = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    old = getattr(owner, leaf)
    if isinstance(old, nn.Parameter):
        setattr(owner, leaf, nn.Parameter(value, requires_grad=old.requires_grad))
    else:
        owner.register_buffer(leaf, value)


def _resize_(module: nn.Module) -> None:
    """Bring a module's size attributes in line with its parameters."""
    if isinstance(module, CONV):
        _resize_conv_(module)
        return
    for kind, attributes in _SIZE_ATTRIBUTES.items():
        if isinstance(module, kind):
            source: object = module.running_mean if module.weight is None else module.weight
            for attribute, axis in attributes if isinstance(source, torch.Tensor) else ():
                assert isinstance(source, torch.Tensor)  # noqa: S101  # for the type checker
                setattr(module, attribute, source.shape[axis])


def _resize_conv_(module: nn.Module) -> None:
    assert isinstance(module, CONV)  # noqa: S101  # for the type checker
    first, second = module.weight.shape[:2]
    if is_depthwise(module):
        module.in_channels = module.out_channels = module.groups = first
    elif module.transposed:
        module.in_channels, module.out_channels = first, second * module.groups
    else:
        module.in_channels, module.out_channels = second * module.groups, first
