"""What a variant does, node by node, without building it: the input of the virtual devices."""

from __future__ import annotations

import math
from typing import Dict, List, Optional, Tuple

import numpy as np
import onnx

from edgeecc.graph.onnx_slice import SlicePlan
from edgeecc.graph.provenance import fitting
from edgeecc.graph.spec import NetworkSpec, Widths
from edgeecc.workload import NodeWork

Shapes = Dict[str, Tuple[int, ...]]

#: Nodes that a framework runs as a view or not at all.
FREE_OPS = frozenset(
    (
        "Constant",
        "Dropout",
        "Flatten",
        "Identity",
        "Reshape",
        "Shape",
        "Slice",
        "Split",
        "Squeeze",
        "Unsqueeze",
    )
)


def work(plan: SlicePlan, widths: Widths) -> Tuple[NodeWork, ...]:
    """Return the work of every node that runs as a kernel, at the given widths, batch 1.

    Raises: GraphError naming a node whose inputs do not fit it.
    """
    shapes = plan.shapes(widths)
    return tuple(
        _node_work(plan, node, shapes) for node in plan.graph.node if node.op_type not in FREE_OPS
    )


def work_of(model: onnx.ModelProto) -> Tuple[NodeWork, ...]:
    """Return the work of a graph as it is.

    Raises: GraphError as `work`, and where the graph cannot be followed.
    """
    inputs = tuple(
        tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in model.graph.input
    )
    return work(SlicePlan.build(model, NetworkSpec("", inputs, (), (), ())), {})


def _node_work(plan: SlicePlan, node: onnx.NodeProto, shapes: Shapes) -> NodeWork:
    with fitting(node):
        return _counted(plan, node, shapes)


def _counted(plan: SlicePlan, node: onnx.NodeProto, shapes: Shapes) -> NodeWork:
    weights = [name for name in node.input if name in plan.constants]
    reads = [name for name in node.input if name and name not in plan.constants]
    macs, inner, outer, groups = _product(node, shapes)
    return NodeWork(
        name=_name(node, weights),
        op=node.op_type,
        macs=macs,
        weight_bytes=sum(_bytes(shapes[name], plan, name) for name in weights),
        read_bytes=sum(_bytes(shapes[name], plan, name) for name in reads),
        written_bytes=sum(
            _bytes(shapes[name], plan, name) for name in node.output if name in shapes
        ),
        in_channels=inner,
        out_channels=outer,
        conv_groups=groups,
    )


def _product(node: onnx.NodeProto, shapes: Shapes) -> Tuple[float, int, int, int]:
    """Return (MACs, input channels per group, output channels per group, groups) of a node."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0.0, 0, 0, 1
    first, second, made = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
    if node.op_type == "MatMul":
        return float(math.prod(made) * first[-1]), first[-1], made[-1], 1
    if node.op_type == "Gemm":
        summed = first[0] if _attribute(node, "transA", 0) else first[1]
        return float(math.prod(made) * summed), summed, made[1], 1
    kernel = math.prod(second[2:])
    if node.op_type == "Conv":
        groups = (
            first[1] // second[1]
        )  # not the dense node's: a depthwise convolution's follow its width
        return float(math.prod(made) * kernel * second[1]), second[1], made[1] // groups, groups
    groups = made[1] // second[1]
    return float(math.prod(first) * kernel * second[1]), first[1] // groups, second[1], groups


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    for attribute in node.attribute:
        if attribute.name == name:
            return int(attribute.i)
    return default


def _name(node: onnx.NodeProto, weights: List[str]) -> str:
    owner: Optional[str] = weights[0].rpartition(".")[0] if weights else None
    return owner or node.name or node.output[0]


def _bytes(shape: Tuple[int, ...], plan: SlicePlan, name: str) -> float:
    constant = plan.constants.get(name)
    size = 4 if constant is None else np.dtype(constant.dtype).itemsize
    return float(math.prod(shape) * size)
