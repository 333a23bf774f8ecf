"""ONNX Runtime: what it returns, and one line for everything that it refuses."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any, List

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeecc.errors import ArtifactError, RuntimeUnavailableError
from edgeecc.runtimes.base import random_input
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


class OnCpu:
    """Stands for the GPU: the same calls, and the CPU does the work."""

    def __init__(self, real: Any, *, loads: bool = True) -> None:
        self.real, self.loads = real, loads
        self.sessions: List[Any] = []
        self.moved: List[str] = []

    def session(self, model: bytes, options: Any, providers: List[str]) -> Any:
        assert providers == ["CUDAExecutionProvider"]
        session = self.real.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        told = ["CUDAExecutionProvider"] if self.loads else ["CPUExecutionProvider"]
        self.sessions.append(session)
        return Redirected(
            session, get_providers=lambda: told, io_binding=lambda: self.binding(session)
        )

    def binding(self, session: Any) -> Any:
        binding = session.io_binding()
        outputs = lambda name, place: (self.moved.append(place), binding.bind_output(name, "cpu"))  # noqa: E731
        self.bound = Redirected(binding, bind_output=outputs)
        return self.bound

    def value(self, array: np.ndarray, place: str, index: int) -> Any:
        self.moved.append(place)
        return self.real.OrtValue.ortvalue_from_numpy(array, "cpu", index)


class Redirected:
    """An object with some of its methods exchanged."""

    def __init__(self, real: Any, **methods: Any) -> None:
        self._real = real
        self.__dict__.update(methods)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name != "run_with_iobinding":
            return found
        return lambda binding: found(binding._real)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> OnCpu:
    onnxruntime = pytest.importorskip("onnxruntime")
    stand_in = OnCpu(
        SimpleNamespace(
            InferenceSession=onnxruntime.InferenceSession, OrtValue=onnxruntime.OrtValue
        )
    )
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", stand_in.session)
    monkeypatch.setattr(
        onnxruntime, "OrtValue", SimpleNamespace(ortvalue_from_numpy=stand_in.value)
    )
    return stand_in


def test_what_is_measured_on_a_gpu_stays_in_its_memory(gpu: OnCpu) -> None:
    x = np.random.default_rng(0).standard_normal((1, 3)).astype(np.float32)
    with OnnxRuntime(product(), on_gpu=True) as runtime:
        assert runtime.name == "onnxruntime:cuda"
        np.testing.assert_allclose(runtime.infer([x])[0], x @ WEIGHT, rtol=1e-6)
        runtime.run(2)
    assert gpu.moved == ["cuda", "cuda"], "the input once, the output once, however often it runs"
    np.testing.assert_allclose(
        gpu.bound.copy_outputs_to_cpu()[0], random_input((1, 3)) @ WEIGHT, rtol=1e-6
    )


def test_a_gpu_that_is_not_there_is_one_line(gpu: OnCpu, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    gpu.loads = False
    with pytest.raises(RuntimeUnavailableError, match="found no NVIDIA GPU that it can use"):
        OnnxRuntime(product(), on_gpu=True)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(RuntimeUnavailableError, match="pip install onnxruntime-gpu"):
        OnnxRuntime(product(), on_gpu=True)
