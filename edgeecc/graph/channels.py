"""Trace the provenance of every index through a dense ONNX graph, node by node."""

from __future__ import annotations

import math
from typing import Dict, List, Mapping, Sequence, Tuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper, shape_inference

from edgeecc.errors import GraphError, brief
from edgeecc.graph.onnx_rules import rule_for
from edgeecc.graph.provenance import (
    FREE,
    Context,
    FollowError,
    Node,
    Tag,
    fitting,
    touched,
    units_of,
)
from edgeecc.graph.spec import NetworkSpec

#: Constants up to this many elements are read as shapes, axes and the like.
MAX_SHAPE_ELEMENTS = 4096
#: Longest axis that is followed; a flattened feature map of any real network is shorter.
MAX_AXIS = 2**24
#: Most indices of all axes of all tensors together: each takes eight bytes, and a file of a kilobyte can promise any.
MAX_INDICES = 2**25
#: Largest tensor: nothing computes with more elements.
MAX_ELEMENTS = 2**48


def trace_channels(model: onnx.ModelProto, spec: NetworkSpec) -> Dict[str, Tag]:
    """Return the provenance of every tensor of a graph.

    Args:
        model: the dense graph, initializers named as the spec's parameters.
        spec: its groups.
    Raises: FollowError naming the node where channels meet that do not go together, or that cannot be followed;
        GraphError where the graph is not one of fixed, sensible shapes.
    """
    context = _context(model, spec)
    tags: Dict[str, Tag] = dict(_parameter_tags(model, spec))
    for value in model.graph.input:
        if value.name not in tags:
            tags[value.name] = _free_tag(_shape(context, value.name))
    for proto in model.graph.node:
        with fitting(proto):
            node = Node(proto, [tags.get(name) if name else None for name in proto.input], context)
        tags.update(zip(proto.output, _results(node, proto, context)))
        tags.update(node.adopted)
    for value in model.graph.output:
        tag = tags.get(value.name, ())
        if touched(tag):
            raise FollowError(
                f"output {value.name} of the ONNX graph would lose channels", units_of(tag)
            )
    return tags


def _results(node: Node, proto: onnx.NodeProto, context: Context) -> List[Tag]:
    if not any(tag is not None and touched(tag) for tag in node.tags):
        return [_free_tag(_shape(context, name)) if name else () for name in proto.output]
    try:
        return rule_for(proto.op_type, proto.domain, node)(node)
    except GraphError:
        raise
    except Exception as error:  # the graph may come from anywhere, its sizes and attributes too
        raise node.fault(f"is malformed ({type(error).__name__}: {error})") from error


def _shape(context: Context, name: str) -> Tuple[int, ...]:
    if name not in context.shapes:
        raise GraphError(f"{name} of the ONNX graph has no fixed shape; export with static shapes")
    return context.shapes[name]


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


def _context(model: onnx.ModelProto, spec: NetworkSpec) -> Context:
    light = _without_weights(model)
    try:
        inferred = shape_inference.infer_shapes(light, strict_mode=False, data_prop=True)
    except Exception as error:
        detail = " ".join(str(error).split())[:200]
        raise GraphError(
            f"the shapes of the ONNX graph do not fit together: {detail}; export it again"
        ) from error
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for value in [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]:
        if not value.type.tensor_type.HasField("shape"):
            continue
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in dims):
            shapes.setdefault(value.name, tuple(int(dim.dim_value) for dim in dims))
    _check_sizes(shapes)
    constants = {
        tensor.name: array_of(tensor).astype(np.int64)
        for tensor in light.graph.initializer
        if tensor.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
    }
    own = {parameter.name for parameter in spec.parameters}
    loose = frozenset(tensor.name for tensor in model.graph.initializer) - own
    opset = max(
        (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        default=1,
    )
    return Context(shapes, constants, loose, opset)


def array_of(tensor: onnx.TensorProto) -> npt.NDArray[np.generic]:
    """Return the values of a tensor.

    Raises: GraphError when they do not fit its shape or are of an unknown type.
    """
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:  # of a kind for every way in which a tensor can be malformed
        raise GraphError(
            f"{tensor.name} of the ONNX graph, of data type {tensor.data_type}, cannot be read: {brief(error)}; export "
            "it again"
        ) from error


def _check_sizes(shapes: Mapping[str, Tuple[int, ...]]) -> None:
    """Check that every tensor is one that a network can have, before anything is kept of its axes."""
    for name, shape in shapes.items():
        if max(shape, default=0) > MAX_AXIS or math.prod(shape) > MAX_ELEMENTS:
            raise GraphError(
                f"{name} of the ONNX graph is {'x'.join(map(str, shape))}; axes may have {MAX_AXIS} indices, tensors "
                f"{MAX_ELEMENTS} elements"
            )
    total = sum(sum(shape) for shape in shapes.values())
    if total > MAX_INDICES:
        raise GraphError(
            f"the axes of the ONNX graph have {total} indices, more than {MAX_INDICES}; export it for a smaller input"
        )


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph for shape inference, in which large constants are inputs without data."""
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.name = model.graph.name
    for field in ("node", "input", "output", "value_info"):
        getattr(graph, field).extend(getattr(model.graph, field))
    declared = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        if int(np.prod(tensor.dims, dtype=np.int64)) <= MAX_SHAPE_ELEMENTS:
            graph.initializer.append(tensor)
        elif tensor.name not in declared:
            graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return light


def _free_tag(shape: Sequence[int]) -> Tag:
    return tuple(np.full(size, FREE, dtype=np.int64) for size in shape)
