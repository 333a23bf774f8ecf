"""Lower precision written into the graph: casts to float16.

TensorRT from 11 on, and TensorRT for RTX, compute in the types of the graph.
"""

from __future__ import annotations

from typing import Callable, Dict, Iterable, List, Optional, Set

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from edgeecc.errors import GraphError
from edgeecc.runtimes.base import Array

#: Inputs that ONNX wants in float32 whatever the rest is: operator -> positions.
_FLOAT32_INPUTS = {"Resize": (1, 2), "Upsample": (1,)}
#: Operators that cannot be cast by rule: random numbers and quantised graphs have types of their own.
_REFUSED = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
    "MatMulInteger", "NonMaxSuppression", "RandomNormal", "RandomUniform", "Bernoulli", "Multinomial",
}  # fmt: skip
#: Largest float16; a weight beyond it would become infinite.
_LARGEST = float(np.finfo(np.float16).max)


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph in float16: weights and activations, with casts at its float32 inputs and outputs.

    Args:
        model: a graph in float32; not modified.
    Raises: GraphError when a node cannot be cast by rule, or a weight is beyond float16.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    _refuse(graph.node)
    constants_to_initializers(graph)
    taken = names_in(graph)
    _cast_initializers(graph, fresh(taken))
    for node in graph.node:
        _retarget_casts(node)
    _cast_borders(graph, fresh(taken))
    del graph.value_info[:]  # the types noted there were those of float32
    return result


def names_in(graph: onnx.GraphProto) -> Set[str]:
    """Return every name of a tensor in the graph."""
    used = {item.name for item in (*graph.input, *graph.output, *graph.initializer)}
    return used.union(*({*node.input, *node.output} for node in graph.node))


def fresh(taken: Set[str]) -> Callable[[str], str]:
    """Return a function that makes names which are not taken yet, and takes them."""

    def name(base: str) -> str:
        found, number = base, 1
        while found in taken:
            found, number = f"{base}_{number}", number + 1
        taken.add(found)
        return found

    return name


def describe(node: onnx.NodeProto) -> str:
    """Return what to call a node in a message."""
    return f"node {node.name or (node.output[0] if node.output else '?')} ({node.op_type})"


def _refuse(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        if node.op_type in _REFUSED or node.domain not in ("", "ai.onnx"):
            raise GraphError(
                f"{describe(node)} cannot be cast to float16 by rule; build in fp32, or export in float16"
            )
        if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
            raise GraphError(
                f"{describe(node)} holds a graph of its own, which cannot be cast to float16; build in fp32"
            )


def constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Move float constants from their nodes to the initialisers, where the rest finds them."""
    kept = []
    for node in graph.node:
        value = _constant(node)
        if value is None or value.dtype != np.float32:
            kept.append(node)
        else:
            graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)


def _constant(node: onnx.NodeProto) -> Optional[Array]:
    if node.op_type != "Constant":
        return None
    (attribute,) = node.attribute
    if attribute.name == "value":
        return numpy_helper.to_array(attribute.t)
    if attribute.name in ("value_float", "value_floats"):
        return np.asarray(helper.get_attribute_value(attribute), np.float32)
    return None


def _cast_initializers(graph: onnx.GraphProto, name: Callable[[str], str]) -> None:
    kept_as: Dict[str, str] = {}  # float32 initialiser -> its copy that stays float32
    values = {item.name: item for item in graph.initializer if item.data_type == TensorProto.FLOAT}
    for node in graph.node:
        for position in _FLOAT32_INPUTS.get(node.op_type, ()):
            source = node.input[position] if position < len(node.input) else ""
            if source in values:
                node.input[position] = kept_as.setdefault(source, name(f"{source}_float32"))
            elif source:
                raise GraphError(
                    f"{describe(node)} computes its sizes; export it with fixed ones, or build in fp32"
                )
    copies = []
    for source, copy in kept_as.items():
        item = TensorProto()
        item.CopyFrom(values[source])
        item.name = copy
        copies.append(item)
    for item in values.values():
        array = numpy_helper.to_array(item)
        if np.abs(array).max(initial=0.0) > _LARGEST:
            raise GraphError(
                f"weight {item.name} reaches {np.abs(array).max():.4g}, beyond float16's {_LARGEST:.5g}; build in fp32"
            )
        item.CopyFrom(numpy_helper.from_array(array.astype(np.float16), item.name))
    graph.initializer.extend(copies)


def _retarget_casts(node: onnx.NodeProto) -> None:
    """Let nodes that name float32 as a type of theirs name float16."""
    for attribute in node.attribute:
        if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        elif attribute.type == AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
            value = numpy_helper.to_array(attribute.t).astype(np.float16)
            attribute.t.CopyFrom(numpy_helper.from_array(value))


def _cast_borders(graph: onnx.GraphProto, name: Callable[[str], str]) -> None:
    constants = {item.name for item in graph.initializer}
    before, after = [], []
    for item in graph.input:
        if item.type.tensor_type.elem_type != TensorProto.FLOAT:
            continue
        if item.name in constants:  # old files list weights among the inputs too
            item.type.tensor_type.elem_type = TensorProto.FLOAT16
            continue
        inside = name(f"{item.name}_float16")
        rename(graph.node, {item.name: inside})
        before.append(_cast(item.name, inside, TensorProto.FLOAT16))
    for item in graph.output:
        if item.type.tensor_type.elem_type == TensorProto.FLOAT:
            inside = name(f"{item.name}_float16")
            rename(graph.node, {item.name: inside})
            after.append(_cast(inside, item.name, TensorProto.FLOAT))
    middle = list(graph.node)
    del graph.node[:]
    graph.node.extend([*before, *middle, *after])


def rename(nodes: Iterable[onnx.NodeProto], names: Dict[str, str]) -> None:
    """Rename tensors in nodes, where they are read and where they are made."""
    for node in nodes:
        node.input[:] = [names.get(item, item) for item in node.input]
        node.output[:] = [names.get(item, item) for item in node.output]


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=kind)


def opset(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that a graph uses."""
    versions: List[int] = [
        item.version for item in model.opset_import if item.domain in ("", "ai.onnx")
    ]
    return max(versions, default=1)
