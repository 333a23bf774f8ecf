"""Graphs in opset 13 are the same function, and what it cannot say is named."""

from __future__ import annotations

from typing import Any, Tuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeecc.errors import GraphError
from edgeecc.graph.lower_opset import OPSET, lowered
from edgeecc.graph.to_onnx import to_onnx
from edgeecc.runtimes.onnxrt import OnnxRuntime
from tests import onnx_nodes, zoo

#: What opset 13 lacks.
LATER = {
    "convnext": "LayerNormalization",
    "group_norm": "CastLike",
    "layer_norm": "LayerNormalization",
}


def node(op: str, shape: Tuple[int, ...], *constants: Any, **more: Any) -> onnx.ModelProto:
    """Return a graph of one node that tells the shapes of its outputs."""
    return onnx.shape_inference.infer_shapes(onnx_nodes.node(op, shape, *constants, **more))


def check_same(model: onnx.ModelProto, inputs: Any) -> onnx.ModelProto:
    before = model.SerializeToString()
    found = lowered(model)
    assert model.SerializeToString() == before, "the graph that was given stays as it is"
    assert [(one.domain, one.version) for one in found.opset_import] == [("", OPSET)]
    with OnnxRuntime(model) as one, OnnxRuntime(found) as other:
        for wanted, value in zip(one.infer(inputs), other.infer(inputs)):
            np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)
    return found


#: With every operator that changed, and most others, between them.
NETWORKS = (
    "adaptive", "aspp", "attention", "channel_softmax", "chunk", "cropped", "hourglass", "instance_norm", "mbconv",
    "padded_shortcut", "pixel_shuffle", "prelu", "selected", "shuffle_unit", "split_concat", "tokens", "unet",
)  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_the_same_function(name: str) -> None:
    model, inputs = zoo.build(name)
    check_same(to_onnx(model, inputs), [value.numpy() for value in inputs])


@pytest.mark.parametrize("name", sorted(LATER))
def test_operators_that_came_later_are_named(name: str) -> None:
    model, inputs = zoo.build(name)
    with pytest.raises(
        GraphError, match=rf"\({LATER[name]}\) cannot be said in opset 13: it came later"
    ):
        lowered(to_onnx(model, inputs))


MAP = (2, 4, 6, 8)
X = np.random.default_rng(0).standard_normal(MAP).astype(np.float32)


def ints(*values: int) -> Any:
    return np.array(values, dtype=np.int64)


@pytest.mark.parametrize(
    "model",
    [
        node("ReduceMax", MAP, ints(1, -1), keepdims=0),
        node("ReduceMean", MAP),
        node("ReduceL2", MAP, ints(2)),
        node("ReduceMean", MAP, noop_with_empty_axes=1),
        node("Split", MAP, outputs=2, axis=1, num_outputs=2),
        node("Pad", MAP, ints(1, 0, 2, 3), np.float32(0.5), ints(-1, 1)),
        node("Pad", MAP, ints(0, 0, 1, 1, 0, 0, 1, 2), mode="reflect"),
        node("Resize", MAP, None, None, ints(2, 4, 12, 4), mode="linear", antialias=0),
        node("Reshape", MAP, ints(0, -1), allowzero=0),
        node("Reshape", MAP, ints(2, 192), allowzero=1),
    ],
)
def test_operators_that_changed_say_the_same(model: onnx.ModelProto) -> None:
    found = check_same(model, [X])
    read = {name for one in found.graph.node for name in one.input}
    assert {tensor.name for tensor in found.graph.initializer} <= read


def test_hard_swish_is_its_parts() -> None:
    found = check_same(node("HardSwish", MAP), [4.0 * X])
    assert [one.op_type for one in found.graph.node] == ["HardSigmoid", "Mul"]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (node("Reshape", (2, 0), ints(0, 3), allowzero=1), "one of its sizes is 0"),
        (
            node("Resize", MAP, None, None, ints(2, 4, 12, 4), mode="linear", antialias=1),
            "its antialias is 1",
        ),
        (
            node("Resize", MAP, None, None, ints(12, 4), mode="linear", axes=[2, 3]),
            "it names its axes",
        ),
        (node("Mish", MAP), "it came later"),
    ],
)
def test_what_it_cannot_say_is_named(model: onnx.ModelProto, why: str) -> None:
    with pytest.raises(GraphError, match=f"node it .* cannot be said in opset 13: {why}"):
        lowered(model)


def test_axes_that_are_computed_are_refused() -> None:
    model = node("ReduceMean", MAP, ints(1))
    del model.graph.initializer[:]
    model.graph.input.append(helper.make_tensor_value_info("c0", TensorProto.INT64, (1,)))
    with pytest.raises(GraphError, match="its c0 is computed"):
        lowered(model)


def test_other_opsets_are_left_or_refused() -> None:
    model = node("Relu", MAP)
    model.opset_import[0].version = 13
    assert lowered(model) is model
    model.opset_import[0].version = 21
    with pytest.raises(GraphError, match="the graph is of opset 21"):
        lowered(model)
