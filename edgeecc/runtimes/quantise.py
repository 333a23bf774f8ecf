"""Int8 written into the graph: a pair of QuantizeLinear and DequantizeLinear before every product.

Symmetric, as TensorRT wants it (zero points are 0): activations per tensor with ranges seen on real samples, weights
per output channel. Biases and everything else stay float32. The weights stay float32 too and are quantised by a node,
because releases before 10 take no others.
"""

from __future__ import annotations

from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeecc.errors import ConfigError, GraphError
from edgeecc.runtimes.base import Array
from edgeecc.runtimes.onnxrt import OnnxRuntime
from edgeecc.runtimes.precision import constants_to_initializers, describe, fresh, names_in, opset
from edgeecc.runtimes.tensors import check_inputs, graph_inputs

#: Largest magnitude in int8; -128 is not used, so that the range is symmetric.
STEPS = 127
#: First version of ONNX's operators whose QuantizeLinear takes one scale for each channel.
_LEAST_OPSET = 13


def is_quantised(model: onnx.ModelProto) -> bool:
    """Return whether the graph has quantisation of its own."""
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def activation_ranges(
    model: onnx.ModelProto, batches: Sequence[Array], percentile: float = 100.0
) -> Dict[str, float]:
    """Return the magnitude of what enters each product, seen when the batches run.

    Args:
        model: a float32 graph with one input, static shapes.
        batches: real inputs, each as the graph takes it.
        percentile: of the magnitudes in one batch; 100 is their maximum. Over the batches the largest counts.
    Returns: tensor -> magnitude, at least 0.
    Raises: ConfigError without batches or beyond 0..100; ArtifactError when a batch does not fit the graph;
        RuntimeUnavailableError without onnxruntime.
    """
    if not batches:
        raise ConfigError("int8 needs samples to find its ranges; give calibration batches")
    if not 0.0 < percentile <= 100.0:
        raise ConfigError(f"percentile {percentile} must lie in (0, 100]")
    specs = graph_inputs(model)
    if len(specs) != 1:
        raise GraphError(f"int8 takes graphs with one input, this has {len(specs)}; build in fp16")
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    constants_to_initializers(probe.graph)
    names = list(dict.fromkeys(probe.graph.node[index].input[0] for index in _products(probe)))
    inside = [name for name in names if name != specs[0].name]
    del probe.graph.output[:]
    probe.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inside
    )
    ranges = dict.fromkeys(names, 0.0)
    with OnnxRuntime(probe if inside else model) as runtime:
        for batch in batches:
            check_inputs(specs, [batch])
            seen = dict(zip(inside, runtime.infer([batch])))
            seen[specs[0].name] = batch
            for name in names:
                found = float(np.percentile(np.abs(seen[name]), percentile))
                ranges[name] = max(ranges[name], found)
    return ranges


def quantise(model: onnx.ModelProto, ranges: Mapping[str, float]) -> onnx.ModelProto:
    """Return the graph with int8 products.

    Args:
        model: a float32 graph of operators from version 13 on; not modified.
        ranges: magnitude of what enters each product, see `activation_ranges`.
    Raises: GraphError when the operators are older, the graph is quantised already, or a range is missing.
    """
    if opset(model) < _LEAST_OPSET:
        raise GraphError(
            f"the graph uses operators of version {opset(model)}; int8 needs {_LEAST_OPSET} and later, export it so"
        )
    if is_quantised(model):
        raise GraphError("the graph is quantised already; build it as it is")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants_to_initializers(graph)
    pairs = _Pairs(fresh(names_in(graph)))
    weights = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    products = _products(result)
    rewritten: List[onnx.NodeProto] = []
    for index, node in enumerate(graph.node):
        if index in products:
            source, weight = node.input[0], node.input[1]
            if source not in ranges:
                raise GraphError(f"no range is known of {source}, which {describe(node)} reads")
            node.input[0] = pairs.activation(source, ranges[source], rewritten)
            node.input[1] = pairs.weight(weight, weights[weight], products[index], rewritten)
        rewritten.append(node)
    del graph.node[:]
    graph.node.extend(rewritten)
    graph.initializer.extend(pairs.constants)
    return result


def weight_scales(weight: Array, axis: int) -> Array:
    """Return one scale for each channel along `axis`: its largest magnitude over 127, 1 for a channel of zeros."""
    others = tuple(index for index in range(weight.ndim) if index != axis)
    largest = np.abs(weight).max(axis=others)
    return np.where(largest > 0.0, largest / STEPS, 1.0).astype(np.float32)


class _Pairs:
    """The pairs made so far, one for each tensor, and their constants."""

    def __init__(self, name: Callable[[str], str]) -> None:
        self._name = name
        self._made: Dict[Tuple[str, Optional[int]], str] = {}
        self.constants: List[TensorProto] = []

    def activation(self, source: str, magnitude: float, nodes: List[onnx.NodeProto]) -> str:
        """Return the tensor that stands for `source` in int8; append its nodes."""
        scale = np.float32(magnitude / STEPS if magnitude > 0.0 else 1.0)
        return self._pair(source, np.asarray(scale), None, nodes)

    def weight(self, source: str, value: Array, axis: int, nodes: List[onnx.NodeProto]) -> str:
        """Return the tensor that stands for a weight in int8; append its nodes."""
        return self._pair(source, weight_scales(value, axis), axis, nodes)

    def _pair(
        self, source: str, scale: Array, axis: Optional[int], nodes: List[onnx.NodeProto]
    ) -> str:
        if (source, axis) in self._made:
            return self._made[source, axis]
        scale_name, zero_name = self._name(f"{source}_scale"), self._name(f"{source}_zero")
        low, back = self._name(f"{source}_int8"), self._name(f"{source}_from_int8")
        self.constants.append(numpy_helper.from_array(scale, scale_name))
        self.constants.append(numpy_helper.from_array(np.zeros(scale.shape, np.int8), zero_name))
        for kind, reads, makes in (
            ("QuantizeLinear", source, low),
            ("DequantizeLinear", low, back),
        ):
            node = helper.make_node(
                kind, [reads, scale_name, zero_name], [makes], name=f"{kind}_{makes}"
            )
            if axis is not None:
                node.attribute.append(helper.make_attribute("axis", axis))
            nodes.append(node)
        self._made[source, axis] = back
        return back


def _products(model: onnx.ModelProto) -> Dict[int, int]:
    """Return the products that are quantised: index of the node -> axis of its weight's output channels."""
    ranks = {
        item.name: len(item.dims)
        for item in model.graph.initializer
        if item.data_type == TensorProto.FLOAT
    }
    found = {}
    for index, node in enumerate(model.graph.node):
        rank = ranks.get(node.input[1]) if len(node.input) > 1 else None
        axis = None if rank is None else _channel_axis(node, rank)
        if axis is not None:
            found[index] = axis
    return found


def _channel_axis(node: onnx.NodeProto, rank: int) -> Optional[int]:
    """Return the axis of output channels in the weight of a product; None for other nodes and those left alone."""
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if attributes.get("group", 1) == 1 else None
    if node.op_type == "Gemm" and not attributes.get("transA", 0):
        return 0 if attributes.get("transB", 0) else 1
    return 1 if node.op_type == "MatMul" and rank == 2 else None
