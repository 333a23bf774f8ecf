"""The graph of a `torch.export` program as values: what its JSON says, checked, with nothing looked up or run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, Optional, Set, Tuple

import torch

from edgeecc.errors import GraphError

#: Number in the file -> dtype.
DTYPES: Dict[int, torch.dtype] = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16,
    7: torch.float32, 8: torch.float64, 9: torch.complex32, 10: torch.complex64, 11: torch.complex128, 12: torch.bool,
    13: torch.bfloat16,
}  # fmt: skip
_MEMORY_FORMATS = {
    1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format,
}  # fmt: skip
_NAME = re.compile(r"\w+(\.\w+){0,31}", re.ASCII)


@dataclass(frozen=True)
class Value:
    """An argument that is another value of the graph."""

    name: str

    def __post_init__(self) -> None:
        _text(self.name)


@dataclass(frozen=True)
class Operation:
    """One node of a program.

    Args:
        name: of the node.
        target: dotted name of the operator, not yet looked up.
        arguments: parameter name of the operator -> constant, `Value`, or list of them.
        positional: how many of the arguments are positional; the others are given by name.
        results: names of what it returns; a list of them where it returns a list.
    """

    name: str
    target: str
    arguments: Mapping[str, object]
    positional: int
    results: Tuple[object, ...]


@dataclass(frozen=True)
class Input:
    """A tensor that the program is given.

    Args:
        name: of the value.
        sizes: batch first; None where the program takes any.
        example: the sizes that it was exported with, None where the file does not say.
        dtype: of its elements.
    """

    name: str
    sizes: Tuple[Optional[int], ...]
    example: Tuple[Optional[int], ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Program:
    """An exported network.

    Args:
        inputs, outputs: in the order of the flattened arguments and results.
        operations: in execution order.
        state: value name -> name in `tensors`.
        tensors: parameters and buffers by their name in the original state dict, and constants; names that share
            one tensor hold the same object.
        persistent: the names in `tensors` that belong to the state dict.
        ranks: value name -> number of dimensions.
    """

    inputs: Tuple[Input, ...]
    outputs: Tuple[str, ...]
    operations: Tuple[Operation, ...]
    state: Mapping[str, str]
    tensors: Mapping[str, torch.Tensor]
    persistent: FrozenSet[str]
    ranks: Mapping[str, int]


@dataclass(frozen=True)
class Signature:
    """What goes in and out of a program.

    Args:
        inputs, outputs, state: as in `Program`.
        transient: tensors that are not in the state dict.
    """

    inputs: Tuple[Input, ...]
    outputs: Tuple[str, ...]
    state: Mapping[str, str]
    transient: FrozenSet[str]


def read_signature(graph: Mapping[str, Any], signature: Mapping[str, Any]) -> Signature:
    """Return what goes in and out.

    Raises: GraphError for arguments and results that are no tensors, and for a program in training mode; any of
        KeyError, TypeError, ValueError for damaged JSON.
    """
    inputs, state, transient = _inputs(graph, signature["input_specs"])
    return Signature(inputs, _outputs(signature["output_specs"]), state, frozenset(transient))


def _inputs(
    graph: Mapping[str, Any], specs: List[Mapping[str, Any]]
) -> Tuple[Tuple[Input, ...], Dict[str, str], Set[str]]:  # fmt: skip
    """Return the user's inputs, value name -> tensor name, and the tensors that are not in the state dict."""
    inputs: List[Input] = []
    state: Dict[str, str] = {}
    transient: Set[str] = set()
    for spec in specs:
        ((kind, entry),) = spec.items()
        if kind == "user_input" and "as_tensor" in entry["arg"]:
            inputs.append(_input(entry["arg"]["as_tensor"]["name"], graph["tensor_values"]))
        elif kind in ("parameter", "buffer", "tensor_constant"):
            name = entry[f"{kind}_name"]
            state[entry["arg"]["name"]] = name
            if kind == "tensor_constant" or (kind == "buffer" and not entry["persistent"]):
                transient.add(name)
        else:
            what = "no tensor" if kind in ("user_input", "constant_input") else f"a {kind}"
            raise GraphError(
                f"forward takes an argument that is {what}; give it a default and export with tensors only"
            )
    return tuple(inputs), state, transient


def _input(name: str, metas: Mapping[str, Any]) -> Input:
    meta = metas[name]
    sizes = tuple(size(item) if "as_int" in item else None for item in meta["sizes"])
    hints = ((item.get("as_expr") or {}).get("hint") or {} for item in meta["sizes"])
    example = tuple(
        hint.get("as_int") if known is None else known for known, hint in zip(sizes, hints)
    )
    return Input(name, sizes, example, DTYPES[meta["dtype"]])


def _outputs(specs: List[Mapping[str, Any]]) -> Tuple[str, ...]:
    names = []
    for spec in specs:
        ((kind, entry),) = spec.items()
        if kind == "buffer_mutation":
            raise GraphError(
                f"it was exported in training mode (it changes {entry['buffer_name']}); call model.eval() "
                "before torch.export.export"
            )
        if kind != "user_output":
            raise GraphError(f"forward returns a {kind}; return tensors only")
        if "as_tensor" in entry["arg"]:
            names.append(_text(entry["arg"]["as_tensor"]["name"]))
        elif set(entry["arg"]) - {"as_none", "as_int", "as_float", "as_bool", "as_string"}:
            raise GraphError("forward returns what is no tensor; return tensors only")
    return tuple(names)


def is_name(text: object) -> bool:
    """Return whether this is a dotted name of letters, digits and underscores, at most 32 deep."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def size(entry: Mapping[str, Any]) -> int:
    """Return a size that is known.

    Raises: ValueError when it is no sensible size, KeyError when it is free.
    """
    found = entry["as_int"]
    if type(found) is not int or not 0 <= found < 2**48:
        raise ValueError(f"size {found!r}")
    return found


def _text(name: object) -> str:
    """Return the name of a value.

    Raises: TypeError when it is none.
    """
    if not isinstance(name, str):
        raise TypeError(f"{type(name).__name__} where a name should be")
    return name


def read_operation(node: Mapping[str, Any]) -> Operation:
    """Return one node of a graph.

    Raises: GraphError for an argument that is not read; KeyError, TypeError or ValueError for damaged JSON.
    """
    results: List[object] = []
    for result in node["outputs"]:
        ((kind, entry),) = result.items()
        if kind == "as_tensors":
            results.append([_text(item["name"]) for item in entry])
        elif kind == "as_tensor":
            results.append(_text(entry["name"]))
        elif kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
            results.append(_text(entry["as_name"]))
        else:
            results.append(None)
    arguments = {}
    for item in node["inputs"]:
        arguments[item["name"]] = _argument(node["target"], item["arg"])
    positional = sum(item.get("kind") != 2 for item in node["inputs"])
    return Operation(
        str(node["name"]), str(node["target"]), arguments, positional, tuple(results)
    )  # fmt: skip


def _argument(target: str, argument: Mapping[str, Any]) -> object:
    ((kind, entry),) = argument.items()
    if kind not in _READERS:
        raise GraphError(
            f"{target} takes an argument that edgeecc does not read ({kind[3:]}); leave that part out of the network"
        )
    return _READERS[kind](entry)


def _tensor(entry: Any) -> object:
    return Value(entry["name"])


def _optional(entry: Any) -> object:
    return _tensor(entry["as_tensor"]) if "as_tensor" in entry else None


def _symbolic(entry: Any) -> object:
    return Value(entry["as_name"]) if "as_name" in entry else _constant(entry["as_int"])


def _constant(entry: object) -> object:
    """Return a number or word; JSON has no infinity, which torch writes as a word."""
    if entry in ("Infinity", "-Infinity"):
        return float(str(entry))
    if not isinstance(entry, (int, float, str)):
        raise TypeError(f"constant {entry!r}")
    return entry


def _each(reader: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda entry: [reader(item) for item in entry]


#: Kind of an argument -> its value. Devices are dropped: everything runs where its inputs are.
_READERS: Dict[str, Callable[[Any], object]] = {
    **{f"as_{kind}": lambda entry: None for kind in ("none", "device")},
    **{f"as_{kind}": _constant for kind in ("int", "float", "bool", "string")},
    **{f"as_{kind}": _each(_constant) for kind in ("ints", "floats", "bools")},
    "as_tensor": _tensor,
    "as_tensors": _each(_tensor),
    "as_optional_tensor": _optional,
    "as_optional_tensors": _each(_optional),
    "as_sym_int": _symbolic,
    "as_sym_ints": _each(_symbolic),
    "as_scalar_type": DTYPES.__getitem__,
    "as_memory_format": _MEMORY_FORMATS.__getitem__,
    "as_layout": lambda entry: torch.strided,
}
