"""How each ONNX operator passes provenance from its inputs to its outputs.

A rule returns one `Tag` per output. It is asked only where a prunable channel arrives; what it cannot follow
it refuses by a GraphError that names the node.
"""

from __future__ import annotations

from typing import Callable, Dict, List, Sequence

import numpy as np

from edgeecc.graph.provenance import FREE, Node, Tag, touched
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
    if node.has(2):
        node.same(node.tag(2)[0], made, "bias")
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
    if node.has(2):
        node.same(node.tag(2)[0], made, "bias")
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
    for place in range(1, len(node.tags)):
        if node.has(place):
            node.same(image[1], node.tag(place)[0], "per-channel parameter")
    return [image] + [node.free(output) for output in range(1, len(node.outputs))]


def _same(node: Node) -> List[Tag]:
    return [node.tag(0) for _ in node.outputs]


def _elementwise(node: Node) -> List[Tag]:
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


def _concat(node: Node) -> List[Tag]:
    tags = [tag for tag in node.tags if tag is not None]
    axis = node.integer("axis", 0) % len(tags[0])
    for other in tags[1:]:
        for place in range(len(other)):
            if place != axis:
                node.same(tags[0][place], other[place], "the other axes")
    joined = np.concatenate([tag[axis] for tag in tags])
    return [_with(tags[0], axis, joined)]


def _split(node: Node) -> List[Tag]:
    tag = node.tag(0)
    axis = node.integer("axis", 0) % len(tag)
    sizes = [node.shape(output)[axis] for output in range(len(node.outputs))]
    ends = np.cumsum(sizes)
    return [_with(tag, axis, tag[axis][end - size : end]) for size, end in zip(sizes, ends)]


def _slice(node: Node) -> List[Tag]:
    tag = node.tag(0)
    starts, ends = node.constant(1), node.constant(2)
    if starts is None or ends is None:
        raise node.fault("has computed bounds")
    axes = node.constant(3) if node.constant(3) is not None else np.arange(len(starts))
    steps = (
        node.constant(4) if node.constant(4) is not None else np.ones(len(starts), dtype=np.int64)
    )
    if axes is None or steps is None:
        raise node.fault("has computed axes or steps")
    made = tag
    for start, end, axis, step in zip(starts, ends, axes, steps):
        place = int(axis) % len(tag)
        if step != 1:
            node.untouched(tag[place], "a slice with steps")
        length = len(tag[place])
        bounds = slice(int(start), int(end) if abs(int(end)) < 2**31 else None, int(step))
        made = _with(made, place, tag[place][np.arange(length)[bounds]])
    return [made]


def _reshape(node: Node) -> List[Tag]:
    """Follow a reshape: axes that multiply to the same block are matched, then the owner is moved over.

    1. A free block stays free.
    2. Equal blocks of one axis pass.
    3. Otherwise the provenance of the whole block is laid out row-major in the new axes; it may vary along
       exactly one of them.
    """
    return [regroup(node, node.tag(0), node.shape())]


def regroup(node: Node, tag: Tag, shape: Sequence[int]) -> Tag:
    """Return the provenance after a reshape to `shape`."""
    made: List[IntArray] = []
    old, new = 0, 0
    sizes = [len(axis) for axis in tag]
    while new < len(shape) or old < len(sizes):
        old_end, new_end = _block(sizes, shape, old, new)
        made.extend(_move(node, tag[old:old_end], shape[new:new_end]))
        old, new = old_end, new_end
    return tuple(made)


def _block(sizes: Sequence[int], shape: Sequence[int], old: int, new: int) -> tuple[int, int]:
    """Return the ends of the smallest runs of axes with equal products."""
    old_end, new_end = old + (old < len(sizes)), new + (new < len(shape))
    left = int(np.prod(sizes[old:old_end], dtype=np.int64))
    right = int(np.prod(shape[new:new_end], dtype=np.int64))
    while left != right:
        if left < right:
            left *= sizes[old_end]
            old_end += 1
        else:
            right *= shape[new_end]
            new_end += 1
    return old_end, new_end


def _move(node: Node, tag: Tag, shape: Sequence[int]) -> List[IntArray]:
    free = [np.full(size, FREE, dtype=np.int64) for size in shape]
    if not touched(tag):
        return free
    owners = [axis for axis in tag if bool((axis != FREE).any())]
    if len(owners) > 1:
        raise node.fault("merges two prunable axes")
    place = next(index for index, axis in enumerate(tag) if axis is owners[0])
    view = [1] * len(tag)
    view[place] = -1
    full = np.broadcast_to(owners[0].reshape(view), [len(axis) for axis in tag]).reshape(
        tuple(shape)
    )
    for axis in range(len(shape)):
        first = np.moveaxis(full, axis, 0).reshape(shape[axis], -1)
        if bool((first == first[:, :1]).all()):
            free[axis] = first[:, 0].copy()
            return free
    raise node.fault("mixes prunable channels into an axis")


def _flatten(node: Node) -> List[Tag]:
    return [regroup(node, node.tag(0), node.shape())]


def _transpose(node: Node) -> List[Tag]:
    tag = node.tag(0)
    order = node.attribute("perm") or list(range(len(tag)))[::-1]
    return [tuple(tag[axis] for axis in order)]  # type: ignore[attr-defined]  # perm is a list of integers


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
    node.untouched(tag[node.integer("axis", -1)], "a normalisation")
    return [tag]


def _spatial_only(node: Node) -> List[Tag]:
    """Pass axes whose length stays; an axis that changes length must be free (padding, resizing)."""
    tag = node.tag(0)
    made: List[IntArray] = []
    for axis, size in zip(tag, node.shape()):
        if len(axis) != size:
            node.untouched(axis, "a change of its length")
        made.append(axis if len(axis) == size else np.full(size, FREE, dtype=np.int64))
    return [tuple(made)]


def _expand(node: Node) -> List[Tag]:
    return [
        _broadcast(node, [node.tag(0), node.free()])
        if not touched(node.tag(0))
        else _expanded(node)
    ]


def _expanded(node: Node) -> Tag:
    tag, free = node.tag(0), node.free()
    lead = len(free) - len(tag)
    made = list(free)
    for place, axis in enumerate(tag):
        if len(axis) == len(free[lead + place]):
            made[lead + place] = axis
        else:
            node.untouched(axis, "an expanded axis")
    return tuple(made)


def _with(tag: Tag, axis: int, value: IntArray) -> Tag:
    return (*tag[:axis], value, *tag[axis + 1 :])


_UNARY = (
    "Abs", "Cast", "CastLike", "Ceil", "Clip", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
    "HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid",
    "Sign", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu",
)  # fmt: skip
_ELEMENTWISE = ("Add", "Div", "Max", "Mean", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum", "Where")
_POOLS = ("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool")
_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare",
)  # fmt: skip

RULES: Dict[str, Rule] = {
    "BatchNormalization": _per_channel,
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "InstanceNormalization": _per_channel,
    "LogSoftmax": _over_axis,
    "MatMul": _matmul,
    "Pad": _spatial_only,
    "Reshape": _reshape,
    "Resize": _spatial_only,
    "Slice": _slice,
    "Softmax": _over_axis,
    "Split": _split,
    "Squeeze": _reshape,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
    **{op: _same for op in _UNARY},
    **{op: _elementwise for op in _ELEMENTWISE},
    **{op: _pool for op in _POOLS},
    **{op: _reduce for op in _REDUCTIONS},
}
