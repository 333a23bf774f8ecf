"""Graphs in float16 and int8 against float32, by ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeecc.errors import ArtifactError, ConfigError, GraphError
from edgeecc.runtimes.precision import to_fp16
from edgeecc.runtimes.quantise import (
    STEPS,
    activation_ranges,
    is_quantised,
    quantise,
    weight_scales,
)
from tests.conv_graph import conv_graph, images, relative_error, run_graph

pytestmark = pytest.mark.device


def small(
    nodes: list, weights: dict, opset: int = 13, kind: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    """Return a graph from x to y, both of shape (1, 4)."""
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", kind, (1, 4))],
        [helper.make_tensor_value_info("y", kind, (1, 4))],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


@pytest.mark.parametrize("seed", range(3))
def test_float16_is_near_float32(seed: int) -> None:
    model = conv_graph(seed)
    before = model.SerializeToString()
    half = to_fp16(model)
    assert model.SerializeToString() == before, "the argument is changed"
    onnx.checker.check_model(half, full_check=True)
    (value,) = images(1, seed)
    found = run_graph(half, value)
    assert found.dtype == np.float32
    assert 0.0 < relative_error(found, run_graph(model, value)) < 5e-3


def test_float16_holds_weights_and_activations_and_keeps_the_sizes_of_a_resize() -> None:
    half = to_fp16(conv_graph())
    kinds = {item.name: item.data_type for item in half.graph.initializer}
    assert kinds["scales_float32"] == TensorProto.FLOAT
    assert {kind for name, kind in kinds.items() if name.startswith("w")} == {TensorProto.FLOAT16}
    inferred = onnx.shape_inference.infer_shapes(half, check_type=True, strict_mode=True)
    inside = {item.name: item.type.tensor_type.elem_type for item in inferred.graph.value_info}
    assert {inside[name] for name in ("c1", "z1", "m1")} == {TensorProto.FLOAT16}


def test_constants_and_types_named_in_nodes_follow() -> None:
    half = numpy_helper.from_array(np.asarray([0.5], np.float32))
    nodes = [
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Constant", [], ["table"], value=numpy_helper.from_array(np.ones((1, 4), np.float32))),
        helper.make_node("Constant", [], ["whole"], value_ints=[1, 1, 1, 1]),
        helper.make_node("Cast", ["whole"], ["ones"], to=TensorProto.FLOAT),
        helper.make_node("ConstantOfShape", ["size"], ["filled"], value=half),
        helper.make_node("Mul", ["x", "two"], ["a"]),
        helper.make_node("Sum", ["a", "table", "ones", "filled"], ["y"]),
    ]  # fmt: skip
    model = small(nodes, {"size": np.asarray([1, 4])})
    value = np.asarray([[1, 2, 3, 4]], np.float32)
    assert np.array_equal(run_graph(to_fp16(model), value), 2 * value + 2.5)


def test_names_that_are_taken_are_left_to_their_owners() -> None:
    weights = {"x_float16": np.full((1, 4), 3.0, np.float32)}
    model = small([helper.make_node("Mul", ["x", "x_float16"], ["y"])], weights)
    value = np.ones((1, 4), np.float32)
    assert run_graph(to_fp16(model), value).tolist() == [[3.0] * 4]


def test_whole_numbers_keep_their_type() -> None:
    model = small([helper.make_node("Neg", ["x"], ["y"])], {}, kind=TensorProto.INT32)
    assert to_fp16(model) == model


def test_weights_that_old_files_list_among_the_inputs_are_cast_too() -> None:
    model = small([helper.make_node("Mul", ["x", "w"], ["y"])], {"w": np.ones((1, 4), np.float32)})
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, (1, 4)))
    onnx.checker.check_model(to_fp16(model), full_check=True)


@pytest.mark.parametrize(
    ("node", "weights", "message"),
    [
        (helper.make_node("RandomNormal", [], ["y"], "noise", shape=[1, 4]), {}, r"node noise \(RandomNormal\)"),
        (helper.make_node("Mul", ["x", "w"], ["y"]), {"w": np.full((1, 4), 7e4, np.float32)}, "weight w reaches 7e"),
        (helper.make_node("Own", ["x"], ["y"], domain="my.ops"), {}, r"node y \(Own\)"),
        (helper.make_node("Upsample", ["x", "x"], ["y"]), {}, "computes its sizes"),
        (
            helper.make_node("If", ["c"], ["y"], then_branch=helper.make_graph([], "t", [], [])),
            {"c": np.asarray(True)},
            "a graph of its own",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_cast_is_refused(node: onnx.NodeProto, weights: dict, message: str) -> None:
    with pytest.raises(GraphError, match=message) as error:
        to_fp16(small([node], weights))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", range(3))
def test_int8_is_near_float32(seed: int) -> None:
    model = conv_graph(seed)
    before = model.SerializeToString()
    low = quantise(model, activation_ranges(model, images(8)))
    assert model.SerializeToString() == before, "the argument is changed"
    onnx.checker.check_model(low, full_check=True)
    assert is_quantised(low)
    assert not is_quantised(model)
    (value,) = images(1, seed=99)
    assert 0.0 < relative_error(run_graph(low, value), run_graph(model, value)) < 0.05


def test_every_product_is_quantised_once() -> None:
    model = conv_graph()
    low = quantise(model, activation_ranges(model, images(1)))
    pairs = [node for node in low.graph.node if node.op_type == "QuantizeLinear"]
    assert len(pairs) == 2 * 6, "six products, each with an activation and a weight"
    made = {node.output[0] for node in low.graph.node if node.op_type == "DequantizeLinear"}
    for node in low.graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            assert {node.input[0], node.input[1]} <= made
    axes = {
        node.input[0]: helper.get_attribute_value(node.attribute[0])
        for node in pairs
        if node.attribute
    }
    assert axes == {"w1": 0, "w2": 0, "w3": 1, "w4": 0, "w5": 0, "w6": 1}
    values = {item.name: numpy_helper.to_array(item) for item in low.graph.initializer}
    zeros = [values[node.input[2]] for node in pairs]
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros), (
        "TensorRT takes zeros only"
    )


def test_a_tensor_that_feeds_two_products_is_quantised_once_and_constants_count_as_weights() -> (
    None
):
    weight = np.eye(4, dtype=np.float32)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weight)),
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["x", "w"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    model = small(nodes, {})
    value = np.asarray([[1.0, -2.0, 3.0, 12.7]], np.float32)
    low = quantise(model, activation_ranges(model, [value]))
    assert sum(node.op_type == "QuantizeLinear" for node in low.graph.node) == 2
    assert run_graph(low, value) == pytest.approx(2 * value, abs=0.1)


def test_what_is_no_plain_product_is_left_alone() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], transA=1),
        helper.make_node("MatMul", ["x", "x2"], ["b"]),
        helper.make_node("Relu", ["x"], ["y"]),
    ]
    model = small(nodes, {"w": np.ones((1, 4), np.float32)})
    assert not is_quantised(quantise(model, {}))


@given(
    st.lists(
        st.floats(-1e4, 1e4, width=32).map(lambda v: v if abs(v) > 1e-3 else 0.0), min_size=12, max_size=12
    )
)  # fmt: skip
def test_a_weight_errs_by_half_a_step_of_its_channel(values: list) -> None:
    weight = np.asarray(values, np.float32).reshape(3, 4)
    scales = weight_scales(weight, 0)
    back = np.clip(np.round(weight / scales[:, None]), -STEPS, STEPS) * scales[:, None]
    assert (np.abs(back - weight) <= 0.5001 * scales[:, None]).all()
    assert (scales > 0.0).all()


def test_a_percentile_cuts_outliers() -> None:
    model = small(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.eye(4, dtype=np.float32)}
    )
    batches = [np.asarray([[1, 1, 1, 100]], np.float32), np.asarray([[0, 0, 0, 2]], np.float32)]
    assert activation_ranges(model, batches) == {"x": 100.0}
    assert activation_ranges(model, batches, 50.0) == {"x": 1.0}


def test_ranges_of_nothing_and_of_wrong_samples_are_refused() -> None:
    model = conv_graph()
    with pytest.raises(ConfigError, match="int8 needs samples"):
        activation_ranges(model, [])
    with pytest.raises(ConfigError, match="percentile 0.0 must lie in"):
        activation_ranges(model, images(1), 0.0)
    with pytest.raises(ArtifactError, match=r"input x is given as float32\[1, 3, 4, 4\]"):
        activation_ranges(model, [np.zeros((1, 3, 4, 4), np.float32)])
    model.graph.input.append(helper.make_tensor_value_info("x2", TensorProto.FLOAT, (1,)))
    with pytest.raises(GraphError, match="one input, this has 2"):
        activation_ranges(model, images(1))


def test_graphs_that_cannot_be_quantised_are_refused() -> None:
    model = conv_graph()
    with pytest.raises(
        GraphError, match=r"no range is known of x, which node first \(Conv\) reads"
    ):
        quantise(model, {})
    low = quantise(model, activation_ranges(model, images(1)))
    with pytest.raises(GraphError, match="quantised already"):
        quantise(low, {})
    with pytest.raises(GraphError, match="operators of version 12; int8 needs 13"):
        quantise(conv_graph(opset=12), {})
