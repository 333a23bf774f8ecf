"""Trace the provenance of every index through a dense ONNX graph, node by node."""

from __future__ import annotations

from typing import Dict, Sequence, Tuple

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

from edgeecc.errors import GraphError
from edgeecc.graph.onnx_rules import rule_for
from edgeecc.graph.provenance import FREE, Context, Node, Tag, touched
from edgeecc.graph.spec import IntArray, NetworkSpec

#: Constants up to this many elements are read as shapes, axes and the like.
MAX_SHAPE_ELEMENTS = 4096


def trace_channels(model: onnx.ModelProto, spec: NetworkSpec) -> Dict[str, Tag]:
    """Return the provenance of every tensor of a graph.

    Args:
        model: the dense graph, initializers named as the spec's parameters.
        spec: its groups.
    Raises: GraphError naming the node where channels meet that do not go together, or that cannot be followed.
    """
    context = _context(model)
    tags: Dict[str, Tag] = dict(_parameter_tags(model, spec))
    for value in model.graph.input:
        tags.setdefault(value.name, _free_tag(context.shapes.get(value.name, ())))
    for proto in model.graph.node:
        node = Node(proto, [tags.get(name) if name else None for name in proto.input], context)
        if any(tag is not None and touched(tag) for tag in node.tags):
            results = rule_for(proto.op_type, proto.domain, node)(node)
        else:
            results = [_free_tag(context.shapes.get(name, ())) for name in proto.output]
        tags.update(zip(proto.output, results))
    for value in model.graph.output:
        if touched(tags[value.name]):
            raise GraphError(
                f"output {value.name} of the ONNX graph would lose channels; trace the network again"
            )
    return tags


def _parameter_tags(model: onnx.ModelProto, spec: NetworkSpec) -> Dict[str, Tag]:
    shapes = {parameter.name: parameter.shape for parameter in spec.parameters}
    tags: Dict[str, Tag] = {}
    for tensor in model.graph.initializer:
        dims = tuple(tensor.dims)
        if tensor.name in shapes and shapes[tensor.name] != dims:
            raise GraphError(
                f"{tensor.name} is {dims} in the ONNX graph and {shapes[tensor.name]} in the spec"
            )
        tags[tensor.name] = _free_tag(dims)
    offset = 0
    for group in spec.prunable:
        for piece in group.slices:
            if piece.parameter in tags:
                units = np.arange(piece.first, piece.first + piece.count)
                indices = piece.indices(units)
                tags[piece.parameter][piece.axis][indices] = (offset + units)[:, None]
        offset += group.width
    return tags


def _context(model: onnx.ModelProto) -> Context:
    light = onnx.ModelProto()
    light.CopyFrom(model)
    constants: Dict[str, IntArray] = {}
    shapes: Dict[str, Tuple[int, ...]] = {}
    for tensor in light.graph.initializer:
        shapes[tensor.name] = tuple(tensor.dims)
        is_integer = tensor.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
        if is_integer and int(np.prod(tensor.dims, dtype=np.int64)) <= MAX_SHAPE_ELEMENTS:
            constants[tensor.name] = numpy_helper.to_array(tensor).astype(np.int64)
    inferred = shape_inference.infer_shapes(light, strict_mode=False, data_prop=True)
    for value in [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]:
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(int(dim.dim_value) for dim in dims)
    opset = max(
        (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        default=1,
    )
    return Context(shapes, constants, opset)


def _free_tag(shape: Sequence[int]) -> Tag:
    return tuple(np.full(size, FREE, dtype=np.int64) for size in shape)
