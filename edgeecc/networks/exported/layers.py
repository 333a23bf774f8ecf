"""Layers of an exported program as modules: the operator calls that read parameters become what made them.

Export turns `model.stem(x)` into `aten.conv2d(x, p_stem_weight, p_stem_bias)`. The call tells the settings, the
parameters' names tell the module, so that the state dict keeps its names and training finds its batch norms.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Set, Tuple, Type

import torch
from torch import nn

from edgeecc.errors import GraphError, brief
from edgeecc.networks.exported.aten import bound, kind_of
from edgeecc.networks.exported.program import Program, Value

#: Settings of a call -> the module, without parameters of its own yet.
Maker = Callable[[Mapping[str, Any], Mapping[str, torch.Tensor], int], nn.Module]
_META = torch.device("meta")

_CONVS: Dict[str, Type[nn.Module]] = {
    "conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d, "conv_transpose1d": nn.ConvTranspose1d,
    "conv_transpose2d": nn.ConvTranspose2d, "conv_transpose3d": nn.ConvTranspose3d,
}  # fmt: skip
_BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE_NORMS = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}
_SETTINGS = (
    "stride", "padding", "dilation", "groups", "output_padding", "training", "eps", "momentum", "use_input_stats",
    "num_groups", "normalized_shape",
)  # fmt: skip


def layer_modules(program: Program) -> Tuple[Dict[str, nn.Module], Dict[str, str]]:
    """Return the modules of a program by their original name, and node name -> module name.

    A call whose parameters do not sit together under one module's name stays a function.
    Raises: GraphError where a module is called in two ways, or was exported in training mode.
    """
    aliases = _aliases(program.tensors)
    modules: Dict[str, nn.Module] = {}
    settings: Dict[str, object] = {}
    places: Dict[str, str] = {}
    for operation in program.operations:
        kind = kind_of(operation.target)
        if kind not in MAKERS:
            continue
        call = bound(operation)
        held = _held(call, program, aliases)
        name = _owner(held)
        if name is None:
            continue
        way = (kind, [call.get(key) for key in _SETTINGS], sorted(held))
        if name not in modules:
            rank = program.ranks.get(_input_of(call), 0)
            tensors = {leaf: program.tensors[names[0]] for leaf, names in held.items()}
            modules[name] = _made(name, MAKERS[kind], call, tensors=tensors, rank=rank)
            settings[name] = way
        elif settings[name] != way:
            raise GraphError(
                f"module {name} is called in two ways ({operation.target}); give each its own module"
            )
        places[operation.name] = name
    return modules, places


def _aliases(tensors: Mapping[str, torch.Tensor]) -> Dict[int, List[str]]:
    """Return tensor -> all its names; torch.export names a shared tensor by any of them."""
    found: Dict[int, List[str]] = {}
    for name, tensor in tensors.items():
        found.setdefault(id(tensor), []).append(name)
    return found


def _held(
    call: Mapping[str, object], program: Program, aliases: Mapping[int, List[str]]
) -> Dict[str, List[str]]:  # fmt: skip
    """Return argument -> names of the stored tensor that it is given."""
    return {
        argument: aliases[id(program.tensors[program.state[value.name]])]
        for argument, value in call.items()
        if isinstance(value, Value) and value.name in program.state
    }


def _owner(held: Mapping[str, Sequence[str]]) -> Optional[str]:
    """Return the module under which every tensor has its argument's name, None where there is none."""
    owners: List[Set[str]] = [
        {name.rpartition(".")[0] for name in names if name.rpartition(".")[2] == argument}
        for argument, names in held.items()
    ]
    common = set.intersection(*owners) - {""} if owners else set()
    return min(common) if common else None


def _input_of(call: Mapping[str, object]) -> str:
    value = call.get("input", call.get("self"))
    return value.name if isinstance(value, Value) else ""


def _made(
    name: str, maker: Maker, call: Mapping[str, Any], *, tensors: Mapping[str, torch.Tensor], rank: int
) -> nn.Module:  # fmt: skip
    if call.get("training") and "running_mean" in tensors:
        raise GraphError(
            f"module {name} was exported in training mode; call model.eval() before torch.export.export"
        )
    try:
        return maker(call, tensors, rank)
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise GraphError(
            f"module {name} of the program cannot be rebuilt ({type(error).__name__}: {brief(error)}); export it again"
        ) from error


def _conv(kind: str) -> Maker:
    def make(call: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], rank: int) -> nn.Module:
        outer, inner = tensors["weight"].shape[:2]
        groups = call["groups"]
        transposed = "transpose" in kind
        channels = (outer, inner * groups) if transposed else (inner * groups, outer)
        more = {"output_padding": _sizes(call["output_padding"])} if transposed else {}
        return _CONVS[kind](
            *channels,
            tuple(tensors["weight"].shape[2:]),
            stride=_sizes(call["stride"]),
            padding=_sizes(call["padding"]),
            dilation=_sizes(call["dilation"]),
            groups=groups,
            bias="bias" in tensors,
            device=_META,
            **more,
        )

    return make


def _sizes(value: Any) -> Any:
    """Return a setting as a module keeps it: a word, one number, or a tuple of them."""
    return tuple(value) if isinstance(value, (list, tuple)) and len(value) > 1 else (
        value[0] if isinstance(value, (list, tuple)) else value
    )  # fmt: skip


def _linear(call: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], rank: int) -> nn.Module:
    outer, inner = tensors["weight"].shape
    return nn.Linear(inner, outer, bias="bias" in tensors, device=_META)


def _batch_norm(
    call: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], rank: int
) -> nn.Module:
    size = next(iter(tensors.values())).shape[0]
    return _BATCH_NORMS[rank](
        size, call["eps"], call["momentum"], "weight" in tensors, "running_mean" in tensors, device=_META
    )  # fmt: skip


def _instance_norm(
    call: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], rank: int
) -> nn.Module:
    size = next(iter(tensors.values())).shape[0]
    tracked = "running_mean" in tensors
    return _INSTANCE_NORMS[rank](
        size, call["eps"], call["momentum"], "weight" in tensors, tracked, device=_META
    )  # fmt: skip


def _layer_norm(
    call: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], rank: int
) -> nn.Module:
    return nn.LayerNorm(
        call["normalized_shape"], call["eps"], bias="bias" in tensors, device=_META
    )  # fmt: skip


def _group_norm(
    call: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], rank: int
) -> nn.Module:
    return nn.GroupNorm(
        call["num_groups"], tensors["weight"].shape[0], call["eps"], device=_META
    )  # fmt: skip


def _prelu(call: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], rank: int) -> nn.Module:
    return nn.PReLU(tensors["weight"].shape[0], device=_META)


#: aten operator -> how its module is made.
MAKERS: Dict[str, Maker] = {
    **{kind: _conv(kind) for kind in _CONVS},
    "linear": _linear,
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "prelu": _prelu,
}
