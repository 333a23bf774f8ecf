"""ONNX Runtime: what it returns, and one line for everything that it refuses."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeecc.errors import ArtifactError, RuntimeUnavailableError
from edgeecc.runtimes.onnxrt import OnnxRuntime

pytestmark = pytest.mark.device

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


def product(shape: tuple = (1, 3), kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """Return input @ WEIGHT."""
    weight = numpy_helper.from_array(WEIGHT.astype(helper.tensor_dtype_to_np_dtype(kind)), "w")
    ends = [
        helper.make_tensor_value_info(name, kind, size)
        for name, size in (("x", shape), ("y", (shape[0], 4)))
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def refusal(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_outputs_are_the_graphs() -> None:
    pytest.importorskip("onnxruntime")
    x = np.random.default_rng(0).standard_normal((1, 3)).astype(np.float32)
    with OnnxRuntime(product()) as runtime:
        np.testing.assert_allclose(runtime.infer([x])[0], x @ WEIGHT, rtol=1e-6)
        runtime.run(3)
        assert runtime.name == "onnxruntime:cpu (1 thread)"
    with OnnxRuntime(product(), threads=2) as runtime:
        assert runtime.name == "onnxruntime:cpu (2 threads)"


@pytest.mark.parametrize(
    "inputs",
    [[np.zeros((1, 4), np.float32)], [np.zeros((1, 3))], []],
    ids=["shape", "type", "none"],
)
def test_inputs_that_are_not_the_graphs_are_one_line(inputs: list) -> None:
    pytest.importorskip("onnxruntime")
    with OnnxRuntime(product()) as runtime, pytest.raises(
        ArtifactError, match="refuses these inputs"
    ) as error:
        runtime.infer(inputs)
    refusal(error)


@pytest.mark.parametrize(
    ("shape", "kind"), [(("N", 3), TensorProto.FLOAT), ((1, 3), TensorProto.INT64)]
)
def test_graphs_that_cannot_be_timed_are_one_line(shape: tuple, kind: int) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(ArtifactError, match="only float32 with fixed sizes") as error:
        OnnxRuntime(product(shape, kind))
    assert "input x" in refusal(error)


def test_a_broken_graph_is_one_line() -> None:
    pytest.importorskip("onnxruntime")
    model = product()
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ArtifactError, match="refuses the graph") as error:
        OnnxRuntime(model)
    refusal(error)


def test_without_onnxruntime_the_message_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'edgeecc\[ort\]'"):
        OnnxRuntime(product())
