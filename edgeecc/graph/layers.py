"""Run a network once and note what its layers did: order, sizes, multiply-accumulates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import nn

from edgeecc.errors import GraphError
from edgeecc.graph.coupling import CONV, LAYERS, TRANSPOSED, is_depthwise
from edgeecc.graph.spec import ChannelGroup, LayerKind, LayerSpec, WidthForm


@dataclass
class Call:
    """What was seen of one layer.

    Args:
        in_shape, out_shape: of its first call, leading dimensions included.
        positions: places that its kernel or matrix is applied to, over all calls and leading dimensions.
        calls: how often it ran.
    """

    in_shape: Tuple[int, ...]
    out_shape: Tuple[int, ...]
    positions: int = 0
    calls: int = 0


def observe(model: nn.Module, example_inputs: Tuple[torch.Tensor, ...]) -> Dict[str, Call]:
    """Run the network in eval mode and return its layers in forward order.

    Raises: GraphError naming the module in which forward failed, and the input shape it saw.
    """
    seen: Dict[str, Call] = {}
    stack: List[Tuple[str, object]] = []
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(_enter(stack, name), with_kwargs=True))
        handles.append(module.register_forward_hook(_leave(stack, seen, name), with_kwargs=True))
    try:
        with torch.no_grad():
            model(*(x.clone() for x in example_inputs))
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
        rows = math.prod(call.out_shape[:-1])
        return LayerSpec(
            name=name,
            kind="linear",
            input=_form(f"{name}.weight", 1, module.in_features, 1, groups),
            output=_form(f"{name}.weight", 0, module.out_features, 1, groups),
            kernel=(1, 1),
            stride=(1, 1),
            dilation=(1, 1),
            padding=(0, 0),
            groups=1,
            in_size=(1, rows),
            out_size=(1, rows),
            calls=call.calls,
            dense_macs=call.positions * module.in_features * module.out_features,
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
        _pair(call.in_shape[-len(module.kernel_size) :]),
        _pair(call.out_shape[-len(module.kernel_size) :]),
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
    per_position = math.prod(kernel) * module.in_channels * module.out_channels // module.groups
    return LayerSpec(
        name=name,
        kind=_kind(module),
        input=forms[0],
        output=forms[1],
        kernel=kernel,
        stride=_pair(module.stride),
        dilation=_pair(module.dilation),
        padding=_padding(module),
        groups=module.groups,
        in_size=in_size,
        out_size=out_size,
        calls=call.calls,
        dense_macs=call.positions * per_position,
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


def _padding(module: nn.Module) -> Tuple[int, int]:
    """Return the padding before the input; of an odd sum torch puts the larger part behind."""
    assert isinstance(module, CONV)  # noqa: S101  # for the type checker
    if not isinstance(module.padding, str):
        sizes = _pair(module.padding)
    elif module.padding == "valid":
        sizes = (0, 0)
    else:
        spans = zip(_pair(module.dilation), _pair(module.kernel_size))
        above, left = (dilation * (kernel - 1) // 2 for dilation, kernel in spans)
        sizes = (above, left)
    return sizes if len(module.kernel_size) == 2 else (0, sizes[1])


def _positions(module: nn.Module, in_shape: Tuple[int, ...], out_shape: Tuple[int, ...]) -> int:
    """Return how many places one call applies the layer to; a leading dimension may hold more than a batch."""
    if isinstance(module, nn.Linear):
        return math.prod(out_shape[:-1])
    assert isinstance(module, CONV)  # noqa: S101  # for the type checker
    shape = in_shape if isinstance(module, TRANSPOSED) else out_shape
    rank = len(module.kernel_size)
    return math.prod(shape[: -rank - 1]) * math.prod(shape[-rank:])


def _first_tensor(
    inputs: Tuple[object, ...], named: Mapping[str, object]
) -> Optional[torch.Tensor]:
    return next((x for x in (*inputs, *named.values()) if isinstance(x, torch.Tensor)), None)


def _enter(stack: List[Tuple[str, object]], name: str):  # type: ignore[no-untyped-def]
    def hook(_: nn.Module, inputs: Tuple[object, ...], named: Mapping[str, object]) -> None:
        first = _first_tensor(inputs, named)
        stack.append((name, "unknown" if first is None else tuple(first.shape)))

    return hook


def _leave(stack: List[Tuple[str, object]], seen: Dict[str, Call], name: str):  # type: ignore[no-untyped-def]
    def hook(
        module: nn.Module, inputs: Tuple[object, ...], named: Mapping[str, object], output: object
    ) -> None:
        stack.pop()
        first = _first_tensor(inputs, named)
        if not isinstance(module, (*LAYERS, nn.Conv3d, nn.ConvTranspose3d)):
            return
        if first is None or not isinstance(output, torch.Tensor):
            return
        shapes = tuple(first.shape), tuple(output.shape)
        call = seen.setdefault(name, Call(*shapes))
        call.calls += 1
        if isinstance(module, LAYERS):
            call.positions += _positions(module, *shapes)

    return hook
