"""Torch's kernels against ONNX Runtime's, network by network and operator by operator."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from edgeecc.errors import ArtifactError, GraphError, RuntimeUnavailableError
from edgeecc.graph.to_onnx import to_onnx
from edgeecc.runtimes.base import Array, TimedByDevice
from edgeecc.runtimes.eager import EagerRuntime
from edgeecc.runtimes.onnxrt import OnnxRuntime
from tests import zoo
from tests.onnx_nodes import node

#: With every operator of the zoo between them.
NETWORKS = (
    "aspp", "attention", "convnext", "deconv_decoder", "group_norm", "hourglass", "layer_norm", "mbconv",
    "pixel_shuffle", "prelu", "selected", "shuffle_unit", "siamese", "split_concat", "tokens", "two_outputs",
    "unet", "upsampled",
)  # fmt: skip
RANDOM = np.random.default_rng(0)


def of(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


def check_same(model: onnx.ModelProto, inputs: Sequence[Array], rtol: float = 1e-4) -> None:
    with EagerRuntime(model) as ours, OnnxRuntime(model) as other:
        for one, wanted in zip(ours.infer(inputs), other.infer(inputs)):
            assert one.shape == wanted.shape
            np.testing.assert_allclose(one, wanted, rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_the_same_function(name: str) -> None:
    model, inputs = zoo.build(name)
    check_same(to_onnx(model, inputs), [value.numpy() for value in inputs], rtol=1e-3)


def ints(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


MAP = (2, 4, 7, 9)
CASES: List[Tuple[str, Tuple[int, ...], Tuple[Any, ...], Dict[str, Any]]] = [
    ("Conv", MAP, (of(6, 4, 3, 3), of(6)), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ("Conv", MAP, (of(4, 1, 3, 3),), {"group": 4, "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("Conv", MAP, (of(6, 4, 2, 2),), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ("Conv", MAP, (of(6, 2, 3, 3),), {"group": 2, "dilations": [2, 2], "pads": [2] * 4}),
    ("Conv", (2, 4, 9), (of(3, 4, 3), of(3)), {}),
    ("ConvTranspose", MAP, (of(4, 3, 3, 3), of(3)), {"strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 0]}),
    ("MaxPool", MAP, (), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 0, 1]}),
    ("MaxPool", MAP, (), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", MAP, (), {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1]}),
    ("AveragePool", MAP, (), {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1, "strides": [2, 2]}),
    ("GlobalMaxPool", MAP, (), {}),
    ("GlobalAveragePool", MAP, (), {}),
    ("BatchNormalization", MAP, (of(4), of(4), of(4), np.abs(of(4))), {"epsilon": 1e-2}),
    ("InstanceNormalization", MAP, (of(4), of(4)), {"epsilon": 1e-2}),
    ("LayerNormalization", MAP, (of(7, 9), of(7, 9)), {"axis": 2}),
    ("Gemm", (3, 5), (of(4, 5), of(4)), {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Gemm", (5, 3), (of(5, 4),), {"transA": 1}),
    ("MatMul", (3, 5), (of(5, 2),), {}),
    ("Clip", MAP, (np.float32(-0.5), np.float32(0.5)), {}),
    ("Clip", MAP, (None, np.float32(0.5)), {}),
    ("Reshape", MAP, (ints(0, -1),), {}),
    ("Flatten", MAP, (), {"axis": -2}),
    ("Flatten", MAP, (), {"axis": 0}),
    ("Squeeze", (2, 1, 3, 1), (ints(1, -1),), {}),
    ("Squeeze", (2, 1, 3, 1), (), {}),
    ("Unsqueeze", (2, 3), (ints(0, -1),), {}),
    ("Slice", MAP, (ints(1, -3), ints(4, 100), ints(1, -1)), {}),
    ("Slice", MAP, (ints(0, 1), ints(2, 4), ints(0, 1), ints(1, 2)), {}),
    ("Slice", (6, 5), (ints(1), ints(-1)), {}),
    ("Pad", MAP, (ints(0, 1, 2, 0, 0, 0, 1, 3), np.float32(0.25)), {}),
    ("Pad", MAP, (ints(0, 0, 2, 1, 0, 0, 1, 3),), {"mode": "reflect"}),
    ("Pad", MAP, (ints(0, 0, 2, 1, 0, 0, 1, 3),), {"mode": "edge"}),
    ("Pad", MAP, (ints(1, 2), None, ints(-1)), {}),
    ("Resize", MAP, (None, np.array([1, 1, 2, 3], np.float32)),
     {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
    ("Resize", MAP, (None, None, ints(2, 4, 14, 5)), {"mode": "linear"}),
    ("Resize", MAP, (None, None, ints(2, 4, 14, 20)),
     {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
    ("ReduceMean", MAP, (ints(2, 3),), {"keepdims": 0}),
    ("ReduceMax", MAP, (ints(1),), {}),
    ("ReduceSum", MAP, (), {}),
    ("HardSigmoid", MAP, (), {"alpha": 0.3}),
    ("LeakyRelu", MAP, (), {"alpha": 0.2}),
    ("Elu", MAP, (), {"alpha": 0.5}),
    ("PRelu", MAP, (of(4, 1, 1),), {}),
    ("LogSoftmax", MAP, (), {"axis": 1}),
    ("Softmax", MAP, (), {"axis": 1}),
    ("Transpose", MAP, (), {"perm": [0, 2, 3, 1]}),
    ("Transpose", MAP, (), {}),
    ("DepthToSpace", MAP, (), {"blocksize": 2}),
    ("DepthToSpace", MAP, (), {"blocksize": 2, "mode": "CRD"}),
    ("Gather", MAP, (ints(3, -1, 0),), {"axis": 1}),
    ("Gather", MAP, (np.int64(2),), {"axis": -1}),
    *[(op, MAP, (), {}) for op in ("Abs", "Erf", "Exp", "HardSwish", "Identity", "Relu", "Selu", "Sigmoid", "Tanh")],
    *[(op, MAP, (of(4, 1, 1),), {}) for op in ("Add", "Div", "Mul", "Sub")],
]  # fmt: skip


@pytest.mark.parametrize(("op", "shape", "constants", "attributes"), CASES)
def test_operators_are_what_onnx_says(
    op: str, shape: Tuple[int, ...], constants: Tuple[Any, ...], attributes: Dict[str, Any]
) -> None:
    check_same(node(op, shape, *constants, **attributes), [of(*shape)])


@pytest.mark.parametrize(
    ("sizes", "attributes", "count"),
    [(ints(1, 3), {"axis": 1}, 2), (None, {"axis": 2, "num_outputs": 2}, 2)],
)
def test_a_split_gives_all_its_parts(sizes: Any, attributes: Dict[str, Any], count: int) -> None:
    check_same(
        node("Split", MAP, *([] if sizes is None else [sizes]), outputs=count, **attributes),
        [of(*MAP)],
    )


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (node("LRN", MAP, size=3), "node it (LRN) is not run by torch here"),
        (node("BatchNormalization", MAP, *[of(4)] * 4, outputs=3, training_mode=1), "is not run by torch"),
    ],
)  # fmt: skip
def test_nodes_that_are_not_run_are_named(model: onnx.ModelProto, words: str) -> None:
    with pytest.raises(GraphError) as caught:
        EagerRuntime(model)
    assert words in str(caught.value)
    assert "take another runtime" in str(caught.value)


@pytest.mark.parametrize(
    "model",
    [
        node("ConvTranspose", MAP, of(4, 3, 3, 3), pads=[0, 1, 1, 1]),
        node("AveragePool", MAP, kernel_shape=[2, 2], ceil_mode=1),
        node("Slice", MAP, ints(3), ints(0), ints(1), ints(-1)),
        node("Pad", MAP, ints(0, 1, 0, 0, 0, 0, 0, 0), mode="reflect"),
        node("Resize", MAP, None, None, ints(2, 8, 7, 9)),
        node("Resize", MAP, None, None, ints(2, 4, 14, 18), mode="cubic"),
        node("Split", MAP, outputs=2, axis=1, opset=13),
    ],
)
def test_what_an_operator_cannot_do_is_said(model: onnx.ModelProto) -> None:
    with EagerRuntime(model) as runtime, pytest.raises(
        GraphError, match="is not run by torch here"
    ):
        runtime.infer([of(*MAP)])


def test_wrong_inputs_and_graphs_are_one_line() -> None:
    with EagerRuntime(node("Relu", MAP)) as runtime:
        runtime.run(2)
        for wrong in ([], [of(1, 2)], [of(*MAP).astype(np.float64)]):
            with pytest.raises(ArtifactError, match="inputs given, the graph takes|is given as"):
                runtime.infer(wrong)
    with EagerRuntime(node("MatMul", (3, 5), of(4, 2))) as runtime, pytest.raises(
        ArtifactError, match="torch refuses node it: "
    ) as caught:
        runtime.run(1)
    assert "\n" not in str(caught.value)
    model = node("Relu", MAP)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(ArtifactError, match="is not float32, which alone can be run"):
        EagerRuntime(model)
    model.graph.input[0].type.tensor_type.shape.dim[0].ClearField("dim_value")
    with pytest.raises(ArtifactError, match="0 where it is not fixed"):
        EagerRuntime(model)


class Event:
    """A CUDA event of the test: each is one millisecond after the one before it."""

    now = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        Event.now += 1
        self.at = Event.now

    def elapsed_time(self, last: Event) -> float:
        return float(last.at - self.at)


def test_single_inferences_are_timed_by_the_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with EagerRuntime(node("Relu", MAP)) as runtime:
        assert isinstance(runtime, TimedByDevice)
        assert runtime.device_times(3) is None, "the CPU has no clock of its own"
        runs: list = []
        monkeypatch.setattr(runtime, "_device", torch.device("cuda"))
        monkeypatch.setattr(runtime, "_run", lambda: runs.append(Event.now))
        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: runs.append("waited"))
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        times = runtime.device_times(3)
    assert runs == [1, 3, 5, "waited"]
    assert (times.runs, times.median_s, times.clock) == (3, 1e-3, "CUDA events")


def test_half_precision_is_close_and_gives_float32() -> None:
    model, inputs = zoo.build("mbconv")
    graph = to_onnx(model, inputs)
    feed = [value.numpy() for value in inputs]
    with EagerRuntime(graph, precision="fp16") as half, EagerRuntime(graph) as whole:
        (one,), (other,) = half.infer(feed), whole.infer(feed)
    assert one.dtype == np.float32
    assert 0.0 < float(np.abs(one - other).max()) < 0.02 * float(np.abs(other).max())
    assert "fp16" in half.name


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_message_says_so() -> None:
    with pytest.raises(RuntimeUnavailableError, match="torch finds no NVIDIA GPU"):
        EagerRuntime(node("Relu", MAP), on_gpu=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("name", ["residual", "upsampled", "padded_shortcut", "mbconv"])
def test_a_recorded_graph_computes_the_same(name: str) -> None:
    model, inputs = zoo.build(name)
    graph = to_onnx(model, inputs)
    feed = [value.numpy() for value in inputs]
    with EagerRuntime(graph, on_gpu=True) as ours, OnnxRuntime(graph) as other:
        ours.run(3)
        for one, wanted in zip(ours.infer(feed), other.infer(feed)):
            np.testing.assert_allclose(one, wanted, rtol=1e-2, atol=1e-3)
