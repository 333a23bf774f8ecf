"""Engines on the fake GPU: real results by ONNX Runtime, on every release, through both packages for CUDA."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeecc.errors import ArtifactError, EdgeeccError, MeterError, RuntimeUnavailableError
from edgeecc.runtimes.build_options import BuildOptions
from edgeecc.runtimes.engine import BuildReport, Engine
from edgeecc.runtimes.engine_cache import EngineCache
from edgeecc.runtimes.tensorrt import DamagedEngineError, TensorRTRuntime, open_engine
from tests.conv_graph import conv_graph, images, relative_error, run_graph
from tests.fake_cuda import WORK_S
from tests.fake_tensorrt import RELEASES, install

pytestmark = pytest.mark.device

GRAPH = conv_graph().SerializeToString()
FP32 = BuildOptions("fp32")
RUBBISH = Engine(b"rubbish", BuildReport("tensorrt", "fp32", "graph", 1.0, 7))


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def refusal(error: pytest.ExceptionInfo[EdgeeccError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 700
    return text


@pytest.mark.parametrize("package", ["cuda", "pycuda"])
def test_an_engine_gives_the_graphs_outputs(
    monkeypatch: pytest.MonkeyPatch, release: str, package: str
) -> None:
    _, gpu = install(monkeypatch, release, package)
    first, second = images(2)
    with open_engine(GRAPH, FP32) as runtime:
        assert runtime.infer([first])[0] == pytest.approx(run_graph(conv_graph(), first), rel=1e-5)
        runtime.run(3)
        assert runtime.infer([second])[0] == pytest.approx(
            run_graph(conv_graph(), second), rel=1e-5
        )
    assert gpu.clean


@pytest.mark.parametrize(("precision", "bound"), [("fp16", 5e-3), ("int8", 0.05)])
def test_lower_precisions_are_near(
    monkeypatch: pytest.MonkeyPatch, release: str, precision: Any, bound: float
) -> None:
    install(monkeypatch, release)
    options = BuildOptions(precision, calibration=images(4) if precision == "int8" else ())
    (value,) = images(1, seed=9)
    with open_engine(GRAPH, options) as runtime:
        found = runtime.infer([value])[0]
    assert found.dtype == np.float32
    assert relative_error(found, run_graph(conv_graph(), value)) < bound


def test_the_name_says_what_runs_where_and_how(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6")
    with open_engine(GRAPH, BuildOptions("fp16")) as runtime:
        assert runtime.name == "tensorrt 8.6.1 fp16 on Orin (sm_87, 8 SMs) (CUDA graph)"
        assert runtime.captured
        assert runtime.built.report.how == "flag"
    install(monkeypatch, "8.2", "pycuda")
    with open_engine(GRAPH, FP32) as runtime:
        assert (
            runtime.name
            == "tensorrt 8.2.1.8 fp32 on NVIDIA Tegra X2 (sm_62, 2 SMs) (enqueued one by one)"
        )
        assert not runtime.captured


def executions(trt: Any) -> int:
    return sum(name.startswith("execute_async") for _, name, _ in trt.calls)


def test_a_captured_graph_leaves_tensorrt_alone(
    monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    trt, gpu = install(monkeypatch, release)
    with open_engine(GRAPH, FP32) as runtime:
        before, clock = executions(trt), gpu.clock_s
        runtime.run(50)
        assert executions(trt) == before
        assert gpu.clock_s == pytest.approx(clock + 50 * WORK_S)


def test_without_a_graph_every_inference_is_enqueued(
    monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    trt, gpu = install(monkeypatch, release)
    trt.faults.add("capture")
    with open_engine(GRAPH, FP32) as runtime:
        assert not runtime.captured
        before, clock = executions(trt), gpu.clock_s
        runtime.run(50)
        assert executions(trt) == before + 50
        assert gpu.clock_s == pytest.approx(clock + 50 * WORK_S)
    assert gpu.clean


def test_an_rtx_engine_that_cannot_be_captured_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, gpu = install(monkeypatch, "rtx")
    monkeypatch.setattr(trt.IExecutionContext, "is_stream_capturable", lambda self, stream: False)
    with open_engine(GRAPH, FP32) as runtime:
        assert not runtime.captured
    assert gpu.clean


@pytest.mark.parametrize("package", ["cuda", "pycuda"])
def test_runs_are_timed_by_the_device(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    _, gpu = install(monkeypatch, "8.6", package)
    with open_engine(GRAPH, FP32) as runtime:
        runtime.infer(images(1))
        times = runtime.device_times(250)
        assert (times.runs, times.clock) == (250, "CUDA events")
        # the first event takes its time too
        assert (times.median_s, times.p95_s, times.p99_s) == pytest.approx([2 * WORK_S] * 3)
    assert gpu.clean


@pytest.mark.parametrize("package", ["cuda", "pycuda"])
def test_slow_inferences_show_in_the_tail(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    _, gpu = install(monkeypatch, "8.6", package)
    slow = {7: 9.0, 150: 5.0, 151: 5.0, 152: 5.0}
    with open_engine(GRAPH, FP32) as runtime:
        plain, done = TensorRTRuntime._put, 0

        def put(self: TensorRTRuntime, count: int) -> None:
            nonlocal done
            plain(self, count)
            if count == 1:
                done += 1
                gpu.put(lambda at=done: setattr(gpu, "clock_s", gpu.clock_s + slow.get(at, 0.0)))

        monkeypatch.setattr(TensorRTRuntime, "_put", put)
        times = runtime.device_times(200)
    assert done == 200
    assert times.median_s == pytest.approx(3 * WORK_S)
    assert times.p95_s == pytest.approx(3 * WORK_S)
    assert 0.01 < times.p99_s <= 5.0 + 3 * WORK_S


def test_a_device_whose_clock_stands_still_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _, gpu = install(monkeypatch, "8.6")
    with open_engine(GRAPH, FP32) as runtime:
        monkeypatch.setattr("tests.fake_cuda.WORK_S", 0.0)
        with pytest.raises(MeterError, match="CUDA events took 0.0 s for an inference"):
            runtime.device_times(3)
    assert gpu.clean


def test_what_is_measured_is_one_fixed_input_whatever_was_inferred(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _trt, gpu = install(monkeypatch, "10")
    with open_engine(GRAPH, FP32) as runtime:
        address = next(a for name, a in runtime._addresses.items() if name == "x")
        standing = bytes(gpu.blocks[address])
        runtime.infer(images(1))
        assert bytes(gpu.blocks[address]) != standing
        runtime.run(1)
        assert bytes(gpu.blocks[address]) == standing


def test_an_engine_is_summed_up(monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    install(monkeypatch, release)
    with open_engine(GRAPH, FP32) as runtime:
        assert runtime.summary.layers == 11
        assert runtime.summary.precisions == {"fp32": 11}
        assert len(runtime.summary.largest) == 5


def test_without_an_inspector_the_layers_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "11")
    trt.faults.add("inspector")
    with open_engine(GRAPH, FP32) as runtime:
        assert (runtime.summary.layers, runtime.summary.precisions) == (11, {})


def two_inputs() -> onnx.ModelProto:
    """Return a graph of two inputs of different types, and two outputs."""
    graph = helper.make_graph(
        [helper.make_node("Cast", ["count"], ["wide"], to=TensorProto.FLOAT),
         helper.make_node("Mul", ["x", "wide"], ["product"]),
         helper.make_node("Neg", ["x"], ["minus"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2,)),
         helper.make_tensor_value_info("count", TensorProto.INT32, (1,))],
        [helper.make_tensor_value_info("product", TensorProto.FLOAT, (2,)),
         helper.make_tensor_value_info("minus", TensorProto.FLOAT, (2,))],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    return model


def test_inputs_and_outputs_keep_the_graphs_order(
    monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    install(monkeypatch, release)
    with open_engine(two_inputs().SerializeToString(), FP32) as runtime:
        runtime.run(1)
        x, count = np.asarray([1.5, -2.0], np.float32), np.asarray([4], np.int32)
        product, minus = runtime.infer([x, count])
        assert product.tolist() == [6.0, -8.0]
        assert minus.tolist() == [-1.5, 2.0]


def test_inputs_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6")
    good = images(1)[0]
    with open_engine(GRAPH, FP32) as runtime:
        for inputs, message in (
            ([], r"0 inputs given, the graph takes 1: x float32\[1, 3, 16, 16\]"),
            (
                [good[:, :2]],
                r"given as float32\[1, 2, 16, 16\], the graph takes x float32\[1, 3, 16, 16\]",
            ),
            ([good.astype(np.float64)], "given as float64"),
        ):
            with pytest.raises(ArtifactError, match=message) as error:
                runtime.infer(inputs)
            refusal(error)
        turned = np.asfortranarray(good)
        assert runtime.infer([turned])[0] == pytest.approx(runtime.infer([good])[0])


def test_graphs_of_open_size_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _trt, gpu = install(monkeypatch, "8.6")
    model = two_inputs()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    with pytest.raises(
        ArtifactError, match=r"tensor x of the graph has shape \[0\], 0 where it is not fixed"
    ):
        open_engine(model.SerializeToString(), FP32)
    assert gpu.clean


def test_engines_of_types_without_numpys_are_refused(
    monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    _trt, gpu = install(monkeypatch, release)
    model = two_inputs()
    model.graph.output.append(helper.make_tensor_value_info("wide2", TensorProto.DOUBLE, (1,)))
    model.graph.node.append(helper.make_node("Cast", ["count"], ["wide2"], to=TensorProto.DOUBLE))
    with pytest.raises(ArtifactError, match="tensor wide2 of the engine is DataType.float64"):
        open_engine(model.SerializeToString(), FP32)
    assert gpu.clean


@pytest.mark.parametrize("package", ["cuda", "pycuda"])
def test_a_full_gpu_keeps_nothing(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    _, gpu = install(monkeypatch, "8.6", package)
    gpu.memory = 30  # the output fits, the input does not
    with pytest.raises(RuntimeUnavailableError, match="no room for 3072 bytes") as error:
        open_engine(GRAPH, FP32)
    refusal(error)
    assert gpu.clean


def test_an_engine_that_does_not_fit_keeps_nothing(
    monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    trt, gpu = install(monkeypatch, release)
    trt.faults.add("context")
    with pytest.raises(
        RuntimeUnavailableError, match="cannot take the engine: Requested amount of GPU"
    ) as error:
        open_engine(GRAPH, FP32)
    refusal(error)
    assert gpu.clean


def test_an_engine_that_is_refused_when_it_runs_is_told(
    monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    trt, gpu = install(monkeypatch, release)
    trt.faults.add("enqueue")
    with pytest.raises(
        RuntimeUnavailableError, match="refuses to run the engine: Cask error"
    ) as error:
        open_engine(GRAPH, FP32)
    refusal(error)
    assert gpu.clean
    trt.faults = {"capture"}
    runtime = open_engine(GRAPH, FP32)
    trt.faults.add("enqueue")
    with runtime, pytest.raises(RuntimeUnavailableError, match="refuses to run"):
        runtime.run(5)
    assert gpu.clean


def test_everything_is_released_even_after_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    _, gpu = install(monkeypatch, "10")
    runtime = open_engine(GRAPH, FP32)
    gpu.faults.update(["cudaGraphLaunch", "cudaStreamSynchronize", "cudaGraphExecDestroy"])
    with runtime, pytest.raises(RuntimeUnavailableError, match="refused the captured graph"):
        runtime.run(1)
    assert not gpu.blocks
    assert gpu.alive == {"stream": 0, "event": 0, "graph": 1}, (
        "what CUDA refuses to free, and nothing else"
    )


def test_an_interrupted_run_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, gpu = install(monkeypatch, "10")
    trt.faults.add("capture")
    with open_engine(GRAPH, BuildOptions("fp32", tf32=False)) as runtime:
        assert "fp32 without TF32 on Orin" in runtime.name
        runtime._enqueue()
        assert gpu.pending
    assert not gpu.pending
    assert gpu.clean


def test_engines_are_taken_from_the_cache(
    monkeypatch: pytest.MonkeyPatch, release: str, tmp_path: Path
) -> None:
    trt, _ = install(monkeypatch, release)
    cache = EngineCache(tmp_path, 2**30)
    (value,) = images(1)
    with open_engine(GRAPH, FP32, cache=cache) as runtime:
        built = runtime.infer([value])[0]
        report = runtime.built.report
        assert not runtime.built.cached
    trt.calls.clear()
    with open_engine(GRAPH, FP32, cache=cache) as runtime:
        assert runtime.built.cached
        assert runtime.built.report == report
        assert np.array_equal(runtime.infer([value])[0], built)
    assert "build_serialized_network" not in {name for _, name, _ in trt.calls}


@pytest.mark.parametrize("what", ["rubbish", "another graph"])
def test_an_engine_that_is_not_this_graphs_is_built_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    trt, gpu = install(monkeypatch, "8.6")
    cache = EngineCache(tmp_path, 2**30)
    with open_engine(two_inputs().SerializeToString(), FP32) as runtime:
        other = runtime.built
    with open_engine(GRAPH, FP32, cache=cache):
        pass
    wrong = other if what == "another graph" else replace(other, data=b"of another board")
    monkeypatch.setattr(EngineCache, "load", lambda self, made_of: replace(wrong, cached=True))
    trt.calls.clear()
    with open_engine(GRAPH, FP32, cache=cache) as runtime:
        assert not runtime.built.cached
        assert "build_serialized_network" in {name for _, name, _ in trt.calls}
    assert gpu.clean
    assert len(list(tmp_path.glob("*.engine"))) == 1


def test_an_engine_that_nothing_can_read_is_told(
    monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    from edgeecc.runtimes.cuda_memory import open_cuda
    from edgeecc.runtimes.trt_api import load_tensorrt

    trt, gpu = install(monkeypatch, release)
    with pytest.raises(
        DamagedEngineError, match="cannot read the engine of 7 bytes: Serialization"
    ) as error:
        TensorRTRuntime(load_tensorrt(), open_cuda(), RUBBISH, "fp32")
    refusal(error)
    assert gpu.clean
    trt.faults.add("start")
    with pytest.raises(RuntimeUnavailableError, match="cannot start"):
        TensorRTRuntime(load_tensorrt(), open_cuda(), RUBBISH, "fp32")
    assert gpu.clean


def test_a_cache_that_cannot_be_written_leaves_nothing_on_the_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, gpu = install(monkeypatch, "8.6")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot write"):
        open_engine(GRAPH, FP32, cache=EngineCache(tmp_path / "file", 2**30))
    assert gpu.clean


def test_a_failed_build_closes_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, gpu = install(monkeypatch, "8.6")
    trt.faults.add("build")
    with pytest.raises(ArtifactError, match="cannot build"):
        open_engine(GRAPH, FP32)
    assert gpu.clean
