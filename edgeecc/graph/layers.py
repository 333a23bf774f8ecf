"""Run a network once and note what its layers did: order, sizes, multiply-accumulates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, List, Mapping, Sequence, Tuple

import torch
from torch import nn

from edgeecc.errors import GraphError
from edgeecc.graph.coupling import CONV, LAYERS, TRANSPOSED, is_depthwise
from edgeecc.graph.spec import ChannelGroup, LayerKind, LayerSpec, WidthForm


@dataclass
class Call:
    """What was seen of one layer: shapes of its first call, without batch, and the number of calls."""

    in_shape: Tuple[int, ...]
    out_shape: Tuple[int, ...]
    calls: int = 1


def observe(model: nn.Module, example_inputs: Tuple[torch.Tensor, ...]) -> Dict[str, Call]:
    """Run the network in eval mode and return its layers in forward order.

    Raises: GraphError naming the module in which forward failed, and the input shape it saw.
    """
    seen: Dict[str, Call] = {}
    stack: List[Tuple[str, object]] = []
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(_enter(stack, name)))
        handles.append(module.register_forward_hook(_leave(stack, seen, name)))
    try:
        with torch.no_grad():
            model(*example_inputs)
    except Exception as error:
        name, shape = stack[-1] if stack else ("", "")
        where = f"module {name or '(root)'} with input {shape}"
        detail = " ".join(str(error).split())[:300]
        message = f"forward failed in {where}: {type(error).__name__}: {detail}"
        raise GraphError(f"{message}; check the input shape and the weights") from error
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise GraphError(
            "the network runs no convolution and no linear layer; there is nothing to prune"
        )
    return seen


def layer_specs(
    model: nn.Module, calls: Mapping[str, Call], groups: Sequence[ChannelGroup]
) -> Tuple[LayerSpec, ...]:  # fmt: skip
    """Return the layers in forward order, their channel counts as functions of the prunable groups."""
    return tuple(
        _layer(name, model.get_submodule(name), call, groups) for name, call in calls.items()
    )


def _layer(name: str, module: nn.Module, call: Call, groups: Sequence[ChannelGroup]) -> LayerSpec:
    if isinstance(module, nn.Linear):
        positions = math.prod(call.out_shape[:-1])
        return LayerSpec(
            name=name,
            kind="linear",
            input=_form(f"{name}.weight", 1, module.in_features, 1, groups),
            output=_form(f"{name}.weight", 0, module.out_features, 1, groups),
            kernel=(1, 1),
            stride=(1, 1),
            dilation=(1, 1),
            groups=1,
            in_size=(1, positions),
            out_size=(1, positions),
            calls=call.calls,
            dense_macs=call.calls * positions * module.in_features * module.out_features,
            bias=module.bias is not None,
        )
    if not isinstance(module, CONV):
        raise GraphError(
            f"module {name} is a {type(module).__name__}, which edgeecc does not cost; use 1-d or 2-d layers"
        )
    return _conv_layer(name, module, call, groups)


def _conv_layer(
    name: str, module: nn.Module, call: Call, groups: Sequence[ChannelGroup]
) -> LayerSpec:
    assert isinstance(module, CONV)  # noqa: S101  # for the type checker
    transposed = isinstance(module, TRANSPOSED)
    outer, inner = (1, 0) if transposed else (0, 1)
    kernel, in_size, out_size = (
        _pair(module.kernel_size),
        _pair(call.in_shape[1:]),
        _pair(call.out_shape[1:]),
    )
    weight = f"{name}.weight"
    if is_depthwise(module):
        channels = _form(weight, 0, module.out_channels, 1, groups)
        forms = (channels, channels)
    else:
        in_factor = 1 if transposed else module.groups
        out_factor = module.groups if transposed else 1
        forms = (
            _form(weight, inner, module.in_channels, in_factor, groups),
            _form(weight, outer, module.out_channels, out_factor, groups),
        )
    positions = math.prod(in_size if transposed else out_size)
    per_position = math.prod(kernel) * module.in_channels * module.out_channels // module.groups
    return LayerSpec(
        name=name,
        kind=_kind(module),
        input=forms[0],
        output=forms[1],
        kernel=kernel,
        stride=_pair(module.stride),
        dilation=_pair(module.dilation),
        groups=module.groups,
        in_size=in_size,
        out_size=out_size,
        calls=call.calls,
        dense_macs=call.calls * positions * per_position,
        bias=module.bias is not None,
    )


def _kind(module: nn.Module) -> LayerKind:
    assert isinstance(module, CONV)  # noqa: S101  # for the type checker
    if is_depthwise(module):
        return "depthwise"
    if isinstance(module, TRANSPOSED):
        return "transposed"
    return "grouped" if module.groups > 1 else "conv"


def _form(
    weight: str, axis: int, channels: int, factor: int, groups: Sequence[ChannelGroup]
) -> WidthForm:
    """Return the channel count on one axis; `factor` undoes the folding of grouped convolutions."""
    terms = []
    fixed = channels
    for group in groups:
        pieces = (
            [p for p in group.slices if p.parameter == weight and p.axis == axis]
            if group.prunable
            else []
        )
        owned = factor * sum(piece.per_unit * piece.count for piece in pieces)
        if owned:
            terms.append((group.name, owned // group.width))
            fixed -= owned
    return WidthForm(fixed, tuple(terms))


def _pair(values: Sequence[object]) -> Tuple[int, int]:
    numbers = [int(value) for value in values]  # type: ignore[call-overload]  # torch types sizes loosely
    return (1, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


def _enter(stack: List[Tuple[str, object]], name: str):  # type: ignore[no-untyped-def]
    def hook(_: nn.Module, inputs: Tuple[object, ...]) -> None:
        first = inputs[0] if inputs else None
        stack.append((name, tuple(first.shape) if isinstance(first, torch.Tensor) else "unknown"))

    return hook


def _leave(stack: List[Tuple[str, object]], seen: Dict[str, Call], name: str):  # type: ignore[no-untyped-def]
    def hook(module: nn.Module, inputs: Tuple[object, ...], output: object) -> None:
        stack.pop()
        if isinstance(module, (*LAYERS, nn.Conv3d, nn.ConvTranspose3d)):
            first = inputs[0]
            if name in seen:
                seen[name].calls += 1
            elif isinstance(first, torch.Tensor) and isinstance(output, torch.Tensor):
                seen[name] = Call(tuple(first.shape[1:]), tuple(output.shape[1:]))

    return hook
