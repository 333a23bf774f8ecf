"""A small network for seeds: its spec and its dense graph, written by hand, so that no torch is needed."""

from __future__ import annotations

from typing import Dict, List, Tuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeecc.graph.spec import (
    ChannelGroup,
    LayerSpec,
    NetworkSpec,
    ParameterSpec,
    Role,
    Slice,
    WidthForm,
)

Shapes = Dict[str, Tuple[int, ...]]
_SHAPES: Shapes = {
    "stem.weight": (8, 3, 3, 3),
    "stem.bias": (8,),
    "norm.weight": (8,),
    "norm.bias": (8,),
    "norm.mean": (8,),
    "norm.var": (8,),
    "deep.weight": (8, 1, 3, 3),
    "point.weight": (12, 8, 1, 1),
    "fc.weight": (10, 80),
    "fc.bias": (10,),
}


def spec() -> NetworkSpec:
    """Return the spec: a stem whose channels a depthwise layer carries, a pointwise layer, a flattened head."""
    first = ChannelGroup(
        "stem",
        8,
        (
            _slice("stem.weight", 0, "out", 8),
            *(_slice(name, 0, "through", 8) for name in _SHAPES if name.startswith("norm")),
            _slice("stem.bias", 0, "out", 8),
            _slice("deep.weight", 0, "through", 8),
            _slice("point.weight", 1, "in", 8),
            _slice("fc.weight", 1, "in", 8, step=4, block=4),
        ),
    )
    second = ChannelGroup(
        "point",
        12,
        (
            _slice("point.weight", 0, "out", 12),
            _slice("fc.weight", 1, "in", 12, start=32, step=4, block=4),
        ),
    )
    output = ChannelGroup(
        "fc", 10, (_slice("fc.weight", 0, "out", 10),), prunable=False, reason="an output"
    )
    return NetworkSpec(
        "small",
        ((1, 3, 8, 8),),
        (first, second, output),
        tuple(_layers()),
        tuple(ParameterSpec(name, shape, "mean" not in name) for name, shape in _SHAPES.items()),
    )


def moves_spec() -> NetworkSpec:
    """Return the spec of `moves`: one group, which a transposed convolution reads at the end."""
    group = ChannelGroup(
        "stem", 8, (_slice("stem.weight", 0, "out", 8), _slice("up.weight", 0, "in", 8))
    )
    shapes = {"stem.weight": (8, 3, 3, 3), "up.weight": (8, 8, 2, 2)}
    return NetworkSpec(
        "moves",
        ((1, 3, 8, 8),),
        (group,),
        (),
        tuple(ParameterSpec(name, shape, trained=True) for name, shape in shapes.items()),
    )


def _slice(
    parameter: str, axis: int, role: Role, count: int, **more: int
) -> Slice:  # as `Slice` takes them
    places = {"start": 0, "step": 1, "first": 0, **more}
    return Slice(parameter, axis, role, count=count, **places)


def _layers() -> List[LayerSpec]:
    stem, point = WidthForm(0, (("stem", 1),)), WidthForm(0, (("point", 1),))
    one, three = (1, 1), (3, 3)
    same = {"dilation": one, "calls": 1}
    return [
        LayerSpec("stem", "conv", WidthForm(3), stem, three, (2, 2), padding=one, groups=1,
                  in_size=(8, 8), out_size=(4, 4), dense_macs=3456, bias=True, **same),
        LayerSpec("deep", "depthwise", stem, stem, three, one, padding=one, groups=8,
                  in_size=(4, 4), out_size=(4, 4), dense_macs=1152, bias=False, **same),
        LayerSpec("point", "conv", stem, point, one, one, padding=(0, 0), groups=1,
                  in_size=(4, 4), out_size=(4, 4), dense_macs=1536, bias=False, **same),
        LayerSpec("fc", "linear", WidthForm(0, (("stem", 4), ("point", 4))), WidthForm(10), one,
                  one, padding=(0, 0), groups=1, in_size=one, out_size=one, dense_macs=800,
                  bias=True, **same),
    ]  # fmt: skip


def graph() -> onnx.ModelProto:
    """Return the dense graph of `spec`: convolutions, batch norm, a sum, a join, pooling, flatten, Gemm."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "stem.weight", "stem.bias"], ["c"], "stem", strides=[2, 2],
             pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        node("BatchNormalization", ["c", "norm.weight", "norm.bias", "norm.mean", "norm.var"], ["n"], "norm"),
        node("Relu", ["n"], ["r"], "relu"),
        node("Conv", ["r", "deep.weight"], ["d"], "deep", group=8, pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        node("Add", ["d", "r"], ["s"], "sum"),
        node("Conv", ["s", "point.weight"], ["p"], "point", kernel_shape=[1, 1]),
        node("Concat", ["s", "p"], ["j"], "join", axis=1),
        node("MaxPool", ["j"], ["m"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["m"], ["f"], "flatten"),
        node("Gemm", ["f", "fc.weight", "fc.bias"], ["y"], "fc", transB=1),
    ]  # fmt: skip
    return _model(nodes, _SHAPES, (1, 10))


def moves() -> onnx.ModelProto:
    """Return a graph of the operators that move values: reshape, transpose, slice, split, pad, resize, reduce."""
    node = helper.make_node
    weights: Shapes = {"stem.weight": (8, 3, 3, 3), "up.weight": (8, 8, 2, 2)}
    integers = {
        "shape": [1, 8, 64], "starts": [0], "ends": [4], "axes": [2], "halves": [4, 4],
        "pads": [0, 0, 0, 1, 0, 0, 0, 0], "flat": [1, -1], "over": [2, 3], "times": [1, 1, 2, 1],
        "wide": [1, 8, 8, 8],
    }  # fmt: skip
    nodes = [
        node("Conv", ["x", "stem.weight"], ["c"], "stem", pads=[1, 1, 1, 1]),
        node("Reshape", ["c", "shape"], ["row"], "row"),
        node("Transpose", ["row"], ["turned"], "turn", perm=[0, 2, 1]),
        node("Transpose", ["turned"], ["back"], "back", perm=[0, 2, 1]),
        node("Reshape", ["back", "wide"], ["w"], "four"),
        node("Split", ["w", "halves"], ["a", "b"], "split", axis=1),
        node("Concat", ["a", "b"], ["j"], "join", axis=1),
        node("Slice", ["j", "starts", "ends", "axes"], ["cut"], "cut"),
        node("ConvTranspose", ["cut", "up.weight"], ["u"], "up", strides=[2, 2]),
        node("Pad", ["u", "pads"], ["q"], "pad"),
        node("Resize", ["q", "", "scales"], ["z"], "resize", mode="nearest"),
        node("Softmax", ["z"], ["so"], "softmax", axis=3),
        node("Tile", ["so", "times"], ["ti"], "tile"),
        node("ReduceMean", ["ti", "over"], ["g"], "mean", keepdims=0),
        node("Constant", [], ["half"], "half", value=numpy_helper.from_array(np.float32(0.5))),
        node("Mul", ["g", "half"], ["h"], "scale"),
        node("Reshape", ["h", "flat"], ["y"], "flat"),
    ]  # fmt: skip
    model = _model(nodes, weights, (1, 8))
    for name, values in integers.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    scales = np.array([1, 1, 2, 2], np.float32)
    model.graph.initializer.append(numpy_helper.from_array(scales, "scales"))
    return model


def _model(
    nodes: List[onnx.NodeProto], weights: Shapes, result: Tuple[int, ...]
) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    made = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, result)],
        [
            numpy_helper.from_array(random.random(shape).astype(np.float32), name)
            for name, shape in weights.items()
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    return model
