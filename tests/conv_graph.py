"""A small convolutional network as an ONNX graph, with every kind of product, scaled as training leaves them."""

from __future__ import annotations

from typing import Dict, List, Tuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPE = (1, 3, 16, 16)


def conv_graph(seed: int = 0, opset: int = 13) -> onnx.ModelProto:
    """Return convolution, depthwise and transposed convolution, residual sum, resize, Gemm and MatMul in one graph."""
    random = np.random.default_rng(seed)
    weights: Dict[str, np.ndarray] = {}

    def weight(name: str, *shape: int) -> str:
        spread = np.sqrt(2.0 / np.prod(shape[1:]))
        channels = random.uniform(0.5, 2.0, (shape[0],) + (1,) * (len(shape) - 1))
        weights[name] = (channels * spread * random.standard_normal(shape)).astype(np.float32)
        return name

    weights["bias"] = random.standard_normal(8).astype(np.float32)
    weights["scales"] = np.asarray([1, 1, 2, 2], np.float32)
    nodes: List[onnx.NodeProto] = [
        helper.make_node("Conv", ["x", weight("w1", 8, 3, 3, 3), "bias"], ["c1"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu"),
        helper.make_node("Conv", ["r1", weight("w2", 8, 1, 3, 3)], ["c2"], "depthwise", group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["a1"], "sum"),
        helper.make_node("ConvTranspose", ["a1", weight("w3", 8, 8, 2, 2)], ["u1"], "up", strides=[2, 2]),
        helper.make_node("Resize", ["u1", "", "scales"], ["z1"], "resize", mode="nearest"),
        helper.make_node("Conv", ["z1", weight("w4", 12, 8, 1, 1)], ["c3"], "pointwise"),
        helper.make_node("GlobalAveragePool", ["c3"], ["g1"], "pool"),
        helper.make_node("Flatten", ["g1"], ["f1"], "flatten"),
        helper.make_node("Gemm", ["f1", weight("w5", 10, 12)], ["m1"], "linear", transB=1),
        helper.make_node("MatMul", ["m1", weight("w6", 10, 6)], ["y"], "last"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 6))],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def images(count: int, seed: int = 1) -> Tuple[np.ndarray, ...]:
    """Return inputs for it."""
    random = np.random.default_rng(seed)
    return tuple(random.standard_normal(SHAPE).astype(np.float32) for _ in range(count))


def run_graph(model: onnx.ModelProto, value: np.ndarray) -> np.ndarray:
    """Return its first output, by ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {session.get_inputs()[0].name: value})[0])


def relative_error(found: np.ndarray, exact: np.ndarray) -> float:
    """Return the root mean square of the error over that of the exact values."""
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
