"""Write a graph for an older set of ONNX operators: TensorRT 8.2, the last of the Jetson TX2, reads opset 13.

From 18, which the exporter writes, to 13: what changed between them in operators of convolutional networks. The rest
reads the same in both, or is refused by the checker of ONNX.
"""

from __future__ import annotations

from typing import Callable, Dict, List, Optional

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeecc.errors import GraphError, brief
from edgeecc.graph.channels import array_of

OPSET, IR_VERSION = 13, 7
_NEWEST = 18
#: Reductions whose axes were an attribute up to 17; those of ReduceSum are an input since 13.
_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSumSquare",
)  # fmt: skip
#: Attributes that later versions added, with the value at which they say nothing.
_ADDED: Dict[str, Dict[str, object]] = {
    "Resize": {"antialias": 0, "keep_aspect_ratio_policy": b"stretch"},
    "BatchNormalization": {"training_mode": 0},
    "Shape": {"start": 0},
}


def lowered(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same graph in opset 13.

    Raises: GraphError naming a node that opset 13 cannot say.
    """
    version = max((one.version for one in model.opset_import if not one.domain), default=OPSET)
    if version <= OPSET:
        return model
    if version > _NEWEST:
        raise GraphError(
            f"the graph is of opset {version}, and only those up to {_NEWEST} can be written for opset {OPSET}; "
            "export it so"
        )
    found = onnx.ModelProto()
    found.CopyFrom(model)
    constants = _Constants(found.graph)
    nodes: List[onnx.NodeProto] = []
    for node in found.graph.node:
        nodes += _said(node, constants)
    del found.graph.node[:]
    found.graph.node.extend(nodes)
    constants.drop_unread()
    del found.opset_import[:]
    found.opset_import.append(helper.make_opsetid("", OPSET))
    found.ir_version = IR_VERSION
    try:
        onnx.checker.check_model(found)
    except Exception as error:
        raise GraphError(
            f"opset {OPSET} has no such graph: {brief(error)}; take a newer TensorRT"
        ) from error
    return found


def _said(node: onnx.NodeProto, constants: _Constants) -> List[onnx.NodeProto]:
    """Return what says a node in opset 13.

    Raises: GraphError when nothing does, or the node lacks what its operator has.
    """
    rule = _RULES.get(node.op_type)
    try:
        _drop_added(node)
        return [node] if rule is None else rule(node, constants)
    except (LookupError, TypeError, ValueError, ZeroDivisionError) as error:
        raise _unsaid(node, f"it is malformed ({brief(error)})") from error


class _Constants:
    """The constants of a graph, by name."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._tensors.update(
            (node.output[0], node.attribute[0].t)
            for node in graph.node
            if node.op_type == "Constant"
            and node.output
            and [one.name for one in node.attribute] == ["value"]
        )

    def ints(self, node: onnx.NodeProto, at: int) -> Optional[List[int]]:
        """Return an input as whole numbers; None where it is left out.

        Raises: GraphError when it is computed.
        """
        if len(node.input) <= at or not node.input[at]:
            return None
        tensor = self._tensors.get(node.input[at])
        if tensor is None:
            raise _unsaid(node, f"its {node.input[at]} is computed")
        return [int(value) for value in array_of(tensor).reshape(-1)]

    def rank(self, name: str) -> Optional[int]:
        """Return how many axes a value has, where the graph tells."""
        known = (*self._graph.value_info, *self._graph.input, *self._graph.output)
        for value in known:
            if value.name == name and value.type.tensor_type.HasField("shape"):
                return len(value.type.tensor_type.shape.dim)
        return None

    def add(self, node: onnx.NodeProto, what: str, values: List[int]) -> str:
        """Return the name of a new constant."""
        name = f"{node.output[0]}.{what}"
        array = np.array(values, dtype=np.int64)
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def drop_unread(self) -> None:
        """Remove constants that no node reads any longer."""
        read = {name for node in self._graph.node for name in node.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in read]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)


def _drop_added(node: onnx.NodeProto) -> None:
    added = _ADDED.get(node.op_type, {})
    kept = []
    for attribute in node.attribute:
        if attribute.name not in added:
            kept.append(attribute)
        elif helper.get_attribute_value(attribute) != added[attribute.name]:
            raise _unsaid(node, f"its {attribute.name} is {helper.get_attribute_value(attribute)}")
    del node.attribute[:]
    node.attribute.extend(kept)


def _reduction(node: onnx.NodeProto, constants: _Constants) -> List[onnx.NodeProto]:
    axes = constants.ints(node, 1)
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    if not axes and attributes.pop("noop_with_empty_axes", 0):
        return [helper.make_node("Identity", node.input[:1], node.output, name=node.name)]
    attributes.pop("noop_with_empty_axes", None)
    if axes:
        attributes["axes"] = axes
    return [
        helper.make_node(node.op_type, node.input[:1], node.output, name=node.name, **attributes)
    ]


def _split(node: onnx.NodeProto, constants: _Constants) -> List[onnx.NodeProto]:
    """Equal parts need no sizes; a smaller last part cannot be told without the size of the whole."""
    kept = [one for one in node.attribute if one.name != "num_outputs"]
    del node.attribute[:]
    node.attribute.extend(kept)
    return [node]


def _pad(node: onnx.NodeProto, constants: _Constants) -> List[onnx.NodeProto]:
    axes = constants.ints(node, 3)
    if axes is None:
        return [node]
    rank, pads = constants.rank(node.input[0]), constants.ints(node, 1)
    if rank is None or pads is None:
        raise _unsaid(node, "how many axes it pads is not told")
    whole = [0] * (2 * rank)
    for at, axis in enumerate(axes):
        whole[axis % rank], whole[rank + axis % rank] = pads[at], pads[len(axes) + at]
    inputs = [node.input[0], constants.add(node, "pads", whole), *node.input[2:3]]
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    return [helper.make_node("Pad", inputs, node.output, name=node.name, **attributes)]


def _resize(node: onnx.NodeProto, constants: _Constants) -> List[onnx.NodeProto]:
    if any(one.name == "axes" for one in node.attribute):
        raise _unsaid(node, "it names its axes")
    return [node]


def _reshape(node: onnx.NodeProto, constants: _Constants) -> List[onnx.NodeProto]:
    """Without a 0 among the sizes, what a 0 stands for does not matter."""
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    if attributes.get("allowzero") and 0 in (constants.ints(node, 1) or []):
        raise _unsaid(node, "one of its sizes is 0")
    return [helper.make_node("Reshape", node.input, node.output, name=node.name)]


def _hard_swish(node: onnx.NodeProto, constants: _Constants) -> List[onnx.NodeProto]:
    gate = f"{node.output[0]}.gate"
    return [
        helper.make_node(
            "HardSigmoid", node.input, [gate], name=f"{node.name}.gate", alpha=1.0 / 6.0, beta=0.5
        ),
        helper.make_node("Mul", [node.input[0], gate], node.output, name=node.name),
    ]


def _refused(node: onnx.NodeProto, constants: _Constants) -> List[onnx.NodeProto]:
    raise _unsaid(node, "it came later")


_RULES: Dict[str, Callable[[onnx.NodeProto, _Constants], List[onnx.NodeProto]]] = {
    **dict.fromkeys(_REDUCTIONS, _reduction),
    **dict.fromkeys(("CastLike", "GroupNormalization", "LayerNormalization", "Mish"), _refused),
    "HardSwish": _hard_swish,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Split": _split,
}


def _unsaid(node: onnx.NodeProto, why: str) -> GraphError:
    return GraphError(
        f"node {node.name or ', '.join(node.output)} ({node.op_type}) cannot be said in opset {OPSET}: {why}; take a "
        "newer TensorRT, or another runtime"
    )
