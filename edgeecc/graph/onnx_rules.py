"""How each ONNX operator passes provenance from its inputs to its outputs.

A rule returns one `Tag` per output. It is asked only where a prunable channel arrives; what it cannot follow
it refuses by a GraphError that names the node.
"""

from __future__ import annotations

from typing import Callable, Dict, Iterable, List, Sequence

import numpy as np

from edgeecc.graph import onnx_moves
from edgeecc.graph.provenance import FREE, Node, Tag, is_touched
from edgeecc.graph.spec import IntArray

Rule = Callable[[Node], List[Tag]]


def rule_for(op: str, domain: str, node: Node) -> Rule:
    """Return the rule of an operator.

    Raises: GraphError naming the node when there is none.
    """
    if domain not in ("", "ai.onnx") or op not in RULES:
        raise node.fault("is an operator that prunable channels cannot be followed through")
    return RULES[op]


def _conv(node: Node) -> List[Tag]:
    image, weight = node.tag(0), node.tag(1)
    groups = node.integer("group", 1)
    spatial = node.free()[2:]
    if is_depthwise(groups, len(image[1]), len(weight[0])):
        node.same(image[1], weight[0], "input and depthwise weight")
        made = weight[0]
    else:
        for part in _parts(node, image[1], groups):
            node.same(part, weight[1], "input and weight")
        made = weight[0]
        _parts(node, made, groups)
    _per_index(node, range(2, len(node.tags)), made, "bias")
    return [(image[0], made, *spatial)]


def _conv_transpose(node: Node) -> List[Tag]:
    image, weight = node.tag(0), node.tag(1)
    groups = node.integer("group", 1)
    node.same(image[1], weight[0], "input and weight")
    if groups > 1 and len(weight[1]) == 1:
        made = weight[0]
    else:
        _parts(node, weight[0], groups)
        made = np.tile(weight[1], groups)
    _per_index(node, range(2, len(node.tags)), made, "bias")
    return [(image[0], made, *node.free()[2:])]


def is_depthwise(groups: int, inputs: int, outputs: int) -> bool:
    """Return whether a convolution carries each channel alone."""
    return groups > 1 and groups == inputs == outputs


def _parts(node: Node, channels: IntArray, groups: int) -> List[IntArray]:
    """Return the channels of each convolution group; all must lose the same units."""
    parts = list(channels.reshape(groups, -1))
    for part in parts[1:]:
        node.same(parts[0], part, "convolution groups")
    return parts


def _gemm(node: Node) -> List[Tag]:
    left, right = node.tag(0), node.tag(1)
    if node.integer("transA", 0):
        left = left[::-1]
    if node.integer("transB", 0):
        right = right[::-1]
    node.same(left[1], right[0], "the summed axis")
    made = (left[0], right[1])
    if node.has(2):
        node.adopt(2, -1, made[1])
        _broadcast(node, [made, node.tag(2)])
    return [made]


def _matmul(node: Node) -> List[Tag]:
    left, right = node.tag(0), node.tag(1)
    if len(left) < 2 or len(right) < 2:
        raise node.fault("multiplies vectors")
    node.same(left[-1], right[-2], "the summed axis")
    batch = _broadcast(node, [left[:-2], right[:-2]])
    return [(*batch, left[-2], right[-1])]


def _per_channel(node: Node) -> List[Tag]:
    image = node.tag(0)
    _per_index(node, range(1, len(node.tags)), image[1], "per-channel parameter")
    return [image] + [node.free(output) for output in range(1, len(node.outputs))]


def _per_index(node: Node, places: Iterable[int], owners: IntArray, what: str) -> None:
    """Check vectors that hold one value per channel."""
    for place in places:
        if node.has(place):
            node.adopt(place, 0, owners)
            node.same(owners, node.tag(place)[0], what)


def _same(node: Node) -> List[Tag]:
    return [node.tag(0) for _ in node.outputs]


def _elementwise(node: Node) -> List[Tag]:
    rank = max(len(tag) for tag in node.tags if tag is not None)
    for axis in range(-rank, 0):
        present = [tag[axis] for tag in node.tags if tag is not None and len(tag) >= -axis]
        owners = next((owned for owned in present if is_touched(owned)), None)
        for place, tag in enumerate(node.tags):
            if owners is not None and tag is not None and len(tag) >= -axis:
                node.adopt(place, axis, owners)
    return [_broadcast(node, [tag for tag in node.tags if tag is not None])]


def _broadcast(node: Node, tags: Sequence[Tag]) -> Tag:
    rank = max(len(tag) for tag in tags)
    made: List[IntArray] = []
    for place in range(rank):
        axes = [tag[place - rank + len(tag)] for tag in tags if place - rank + len(tag) >= 0]
        long = [axis for axis in axes if len(axis) > 1] or [axes[0]]
        for other in long[1:]:
            node.same(long[0], other, "operands")
        for short in axes:
            if len(short) == 1 < len(long[0]):
                node.untouched(short, "a broadcast axis")
        made.append(long[0])
    return tuple(made)


def _pool(node: Node) -> List[Tag]:
    tag = node.tag(0)
    for axis in tag[2:]:
        node.untouched(axis, "pooling")
    return [(tag[0], tag[1], *node.free(output)[2:]) for output in range(len(node.outputs))]


def _reduce(node: Node) -> List[Tag]:
    tag = node.tag(0)
    axes = node.integers("axes", 1)
    places = set(range(len(tag))) if axes is None else {axis % len(tag) for axis in axes}
    for place in places:
        node.untouched(tag[place], "a reduction")
    if node.integer("keepdims", 1):
        one = np.full(1, FREE, dtype=np.int64)
        return [tuple(one if place in places else axis for place, axis in enumerate(tag))]
    return [tuple(axis for place, axis in enumerate(tag) if place not in places)]


def _over_axis(node: Node) -> List[Tag]:
    tag = node.tag(0)
    if node.opset >= 13:
        axes = [node.integer("axis", -1) % len(tag)]
    else:  # older sets take the axis and all behind it together
        axes = list(range(node.integer("axis", 1) % len(tag), len(tag)))
    for axis in axes:
        node.untouched(tag[axis], "a normalisation")
    return [tag]


_UNARY = (
    "Abs", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu",
    "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal",
    "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh",
    "ThresholdedRelu",
)  # fmt: skip
_ELEMENTWISE = (
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod",
    "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
)  # fmt: skip
_POOLS = ("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool")
_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare",
)  # fmt: skip

RULES: Dict[str, Rule] = {
    "BatchNormalization": _per_channel,
    "Concat": onnx_moves.concat,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Expand": onnx_moves.expand,
    "Flatten": onnx_moves.reshape,
    "Gather": onnx_moves.gather,
    "Gemm": _gemm,
    "InstanceNormalization": _per_channel,
    "LogSoftmax": _over_axis,
    "MatMul": _matmul,
    "Pad": onnx_moves.pad,
    "Reshape": onnx_moves.reshape,
    "Resize": onnx_moves.resize,
    "Slice": onnx_moves.slice_,
    "Softmax": _over_axis,
    "Split": onnx_moves.split,
    "Squeeze": onnx_moves.reshape,
    "Tile": onnx_moves.tile,
    "Transpose": onnx_moves.transpose,
    "Unsqueeze": onnx_moves.reshape,
    **{op: _same for op in _UNARY},
    **{op: _elementwise for op in _ELEMENTWISE},
    **{op: _pool for op in _POOLS},
    **{op: _reduce for op in _REDUCTIONS},
}
