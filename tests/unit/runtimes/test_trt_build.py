"""Building on every release of the fake TensorRT: each touches only what it has."""

from __future__ import annotations

import enum
import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeecc.errors import (
    ArtifactError,
    ConfigError,
    EdgeeccError,
    GraphError,
    RuntimeUnavailableError,
)
from edgeecc.runtimes import timing_cache
from edgeecc.runtimes.build_options import BuildOptions
from edgeecc.runtimes.cuda_memory import Cuda
from edgeecc.runtimes.cuda_python import CudaPython
from edgeecc.runtimes.engine import EngineBuildError
from edgeecc.runtimes.sparse_kernels import SparseKernels
from edgeecc.runtimes.timing_cache import TimingCache
from edgeecc.runtimes.trt_api import TensorRT, load_tensorrt
from edgeecc.runtimes.trt_build import build
from tests.conv_graph import conv_graph, images
from tests.fake_cuda import FakeGpu, cuda_python
from tests.fake_tensorrt import PATTERN, RELEASES, WEAK, fake_tensorrt

pytestmark = pytest.mark.device

GRAPH = conv_graph().SerializeToString()
FP32 = BuildOptions("fp32")


@pytest.fixture
def gpu() -> FakeGpu:
    return FakeGpu()


@pytest.fixture
def cuda(gpu: FakeGpu) -> Cuda:
    return CudaPython(cuda_python(gpu), 0)


@pytest.fixture(params=RELEASES)
def module(request: pytest.FixtureRequest, gpu: FakeGpu) -> Any:
    return fake_tensorrt(request.param, gpu)


def calls(module: Any, name: str) -> list:
    """Return the arguments of every call of a method, or every value of an attribute."""
    return [arguments for _, method, arguments in module.calls if method == name]


def flags(module: Any) -> set:
    return {flag.name for (flag,) in calls(module, "set_flag")}


def refusal(error: pytest.ExceptionInfo[EdgeeccError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 700
    return text


def test_fp32_builds_everywhere(module: Any, cuda: Cuda) -> None:
    engine = build(TensorRT(module), cuda, GRAPH, FP32)
    assert engine.report.how == "graph"
    assert engine.report.engine_bytes == len(engine.data) > 0
    assert engine.report.network_layers == 11
    assert engine.report.tensorrt == f"{module.__name__} {module.__version__}"
    assert engine.report.to_json()["notes"] == []
    assert flags(module) == ({"REQUIRE_USER_ALLOCATION"} if module.release == "rtx" else set())
    assert calls(module, "create_network") == [(1 if module.release in WEAK else 0,)]


def test_fp16_is_a_flag_where_there_is_one_and_casts_elsewhere(module: Any, cuda: Cuda) -> None:
    engine = build(TensorRT(module), cuda, GRAPH, BuildOptions("fp16"))
    weak = module.release in WEAK
    assert engine.report.how == ("flag" if weak else "casts")
    assert ("FP16" in flags(module)) == weak
    assert (b"x_float16" in engine.data) == (not weak)


def test_int8_calibrates_where_it_can_and_is_written_into_the_graph_elsewhere(
    module: Any, cuda: Cuda, gpu: FakeGpu
) -> None:
    samples = images(3)
    engine = build(TensorRT(module), cuda, GRAPH, BuildOptions("int8", calibration=samples))
    weak = module.release in WEAK
    assert engine.report.how == ("calibrator" if weak else "q/dq")
    assert ("INT8" in flags(module)) == weak
    assert (b"QuantizeLinear" in engine.data) == (not weak)
    if weak:
        assert module.calibrated_with == [sample.tobytes() for sample in samples]
    assert not gpu.blocks, "the sample's memory is given back"


def test_a_quantised_graph_is_built_as_it_is(module: Any, cuda: Cuda) -> None:
    from edgeecc.runtimes.quantise import activation_ranges, quantise

    graph = quantise(conv_graph(), activation_ranges(conv_graph(), images(1))).SerializeToString()
    engine = build(TensorRT(module), cuda, graph, BuildOptions("int8"))
    assert engine.report.how == "graph"
    with pytest.raises(ConfigError, match="quantised and would not be fp16"):
        build(TensorRT(module), cuda, graph, BuildOptions("fp16"))


def test_options_reach_tensorrt_as_far_as_it_knows_them(module: Any, cuda: Cuda) -> None:
    options = BuildOptions("fp32", level=1, workspace_bytes=2**28, tf32=False)
    report = build(TensorRT(module), cuda, GRAPH, options).report
    assert [flag.name for (flag,) in calls(module, "clear_flag")] == ["TF32"]
    if module.release == "8.2":
        assert calls(module, "max_workspace_size") == [(2**28,)]
        assert report.notes == (
            f"{report.tensorrt} has no builder optimisation level; 1 is ignored",
        )
    else:
        assert [size for _, size in calls(module, "set_memory_pool_limit")] == [2**28]
        assert calls(module, "builder_optimization_level") == [(1,)]
        assert report.notes == ()
        assert not calls(module, "max_workspace_size")


def sparse_graph() -> bytes:
    """Return the graph with the pattern in one weight."""
    model = conv_graph()
    for tensor in model.graph.initializer:
        if tensor.name == "w4":
            kept = PATTERN.restrict(onnx.numpy_helper.to_array(tensor))
            tensor.CopyFrom(onnx.numpy_helper.from_array(kept, "w4"))
    return model.SerializeToString()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_sparse_kernels_are_taken_by_leave_alone(module: Any, cuda: Cuda, precision: Any) -> None:
    trt = TensorRT(module)
    plain = build(trt, cuda, sparse_graph(), BuildOptions(precision))
    assert "SPARSE_WEIGHTS" not in flags(module)
    assert plain.report.sparse is None
    leave = BuildOptions(precision, sparse=True)
    assert build(trt, cuda, sparse_graph(), leave).report.sparse == SparseKernels(1, 0)
    assert "SPARSE_WEIGHTS" in flags(module)
    assert build(trt, cuda, GRAPH, leave).report.sparse == SparseKernels(0, 0)
    module.faults.add("mute on sparsity")
    report = build(trt, cuda, sparse_graph(), leave).report
    assert report.sparse is None, "what an earlier build told is forgotten"
    assert report.notes == ()


def test_a_release_without_sparse_kernels_says_so(cuda: Cuda, gpu: FakeGpu) -> None:
    module = fake_tensorrt("rtx", gpu)
    known = [
        (flag.name, flag.value) for flag in module.BuilderFlag if flag.name != "SPARSE_WEIGHTS"
    ]
    module.BuilderFlag = enum.IntEnum("BuilderFlag", known)
    report = build(TensorRT(module), cuda, sparse_graph(), BuildOptions("fp32", sparse=True)).report
    assert report.sparse is None
    assert report.notes == ("tensorrt_rtx 1.7.1.116 has no sparse kernels; zeros are multiplied",)


def test_without_a_bound_only_old_releases_are_given_workspace(module: Any, cuda: Cuda) -> None:
    build(TensorRT(module), cuda, GRAPH, FP32)
    assert len(calls(module, "max_workspace_size")) == (module.release == "8.2")
    assert not calls(module, "set_memory_pool_limit")


def test_a_gpu_that_is_slow_in_a_precision_is_noted(cuda: Cuda, gpu: FakeGpu) -> None:
    module = fake_tensorrt("8.2", gpu)
    module.faults.add("slow int8")
    options = BuildOptions("int8", calibration=images(1))
    assert build(TensorRT(module), cuda, GRAPH, options).report.notes == (
        "this GPU is not faster in int8",
    )


def test_timings_are_shared_and_saved(module: Any, cuda: Cuda, tmp_path: Path) -> None:
    path = tmp_path / "samples" / "timing.cache"
    timings = TimingCache(path)
    for graph in (GRAPH, conv_graph(1).SerializeToString()):
        report = build(TensorRT(module), cuda, graph, FP32, timings).report
    if module.release == "rtx":
        assert "has no timing cache" in report.notes[0]
        assert not path.exists()
        return
    assert report.notes == ()
    assert path.read_bytes().count(b"timed:") == 2
    assert TimingCache(path).data == timings.data
    (empty,), (given,) = calls(module, "create_timing_cache")
    assert empty == b""
    assert given.count(b"timed:") == 1


@pytest.mark.parametrize("content", [b"rubbish", b"timings 7.0.0 timed:1"])
def test_timings_of_another_device_or_damaged_are_started_anew(
    cuda: Cuda, gpu: FakeGpu, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "timing.cache"
    path.write_bytes(content)
    report = build(TensorRT(fake_tensorrt("10", gpu)), cuda, GRAPH, FP32, TimingCache(path)).report
    assert "started anew" in report.notes[0]
    assert b"timed:" in path.read_bytes()
    assert content not in path.read_bytes()


def test_a_build_may_take_no_timings_at_all(cuda: Cuda, gpu: FakeGpu) -> None:
    module = fake_tensorrt("10", gpu)
    module.faults.add("timings")
    timings = TimingCache()
    assert build(TensorRT(module), cuda, GRAPH, FP32, timings).report.notes == (
        "this build takes no timing cache",
    )
    assert timings.data == b""


def test_timings_without_news_are_not_written(tmp_path: Path) -> None:
    timings = TimingCache(tmp_path / "timing.cache")
    timings.keep(b"")
    assert not list(tmp_path.iterdir())


def test_a_tensorrt_that_gives_no_reason_is_quoted_so(gpu: FakeGpu) -> None:
    trt = TensorRT(fake_tensorrt("10", gpu))
    trt.messages.clear()
    assert "cannot start: it gives no reason;" in str(trt.without_gpu())


def test_unreadable_timings_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArtifactError, match="cannot read"):
        TimingCache(tmp_path)
    path = tmp_path / "timing.cache"
    path.write_bytes(b"12345")
    monkeypatch.setattr(timing_cache, "MAX_BYTES", 4)
    with pytest.raises(ArtifactError, match="larger than 4 bytes"):
        TimingCache(path)


def test_an_operator_that_it_lacks_is_named(module: Any, cuda: Cuda) -> None:
    model = conv_graph()
    model.graph.node[1].op_type = "NoSuchOperator"
    with pytest.raises(
        EngineBuildError, match=r"node relu \(NoSuchOperator\): No importer registered"
    ) as error:
        build(TensorRT(module), cuda, model.SerializeToString(), FP32)
    refusal(error)


def test_many_faults_are_counted_and_nodes_without_names_go_by_their_output(
    cuda: Cuda, gpu: FakeGpu
) -> None:
    model = conv_graph()
    for node in model.graph.node:
        node.op_type, node.name = "NoSuchOperator", ""
    with pytest.raises(EngineBuildError, match=r"node c1 \(NoSuchOperator\).*and 8 more") as error:
        build(TensorRT(fake_tensorrt("8.2", gpu)), cuda, model.SerializeToString(), FP32)
    refusal(error)


def test_a_parser_that_refuses_the_whole_graph_is_heard(
    cuda: Cuda, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = TensorRT(fake_tensorrt("8.6", gpu))
    monkeypatch.setattr(TensorRT, "network_flags", lambda self: 0)
    with pytest.raises(
        EngineBuildError, match="cannot read the graph: This version of the ONNX parser only"
    ):
        build(trt, cuda, GRAPH, FP32)


def test_a_build_that_fails_says_the_cause_and_the_end(module: Any, cuda: Cuda) -> None:
    module.faults.add("build")
    with pytest.raises(
        EngineBuildError, match="in fp32: Could not find any.*out of memory; Engine could not"
    ) as error:
        build(TensorRT(module), cuda, GRAPH, FP32)
    refusal(error)


def test_without_a_gpu_the_builder_does_not_start(module: Any, cuda: Cuda) -> None:
    module.faults.add("start")
    with pytest.raises(
        RuntimeUnavailableError, match="cannot start: CUDA initialization failure"
    ) as error:
        build(TensorRT(module), cuda, GRAPH, FP32)
    refusal(error)


def test_nothing_reaches_stdout(module: Any, cuda: Cuda, capfd: pytest.CaptureFixture[str]) -> None:
    module.faults.add("build")
    with pytest.raises(EngineBuildError):
        build(TensorRT(module), cuda, GRAPH, FP32)
    assert capfd.readouterr() == ("", "")


def test_a_calibrator_that_cannot_feed_stops_the_build(cuda: Cuda, gpu: FakeGpu) -> None:
    options = BuildOptions("int8", calibration=images(2))
    gpu.faults.add("cudaMemcpyAsync")
    with pytest.raises(RuntimeUnavailableError, match="cannot copy"):
        build(TensorRT(fake_tensorrt("8.6", gpu)), cuda, GRAPH, options)
    assert not gpu.blocks
    gpu.faults.clear()
    gpu.memory = 8
    with pytest.raises(RuntimeUnavailableError, match="no room for 3072 bytes"):
        build(TensorRT(fake_tensorrt("8.6", gpu)), cuda, GRAPH, options)


def test_samples_that_do_not_fit_are_refused(module: Any, cuda: Cuda) -> None:
    trt = TensorRT(module)
    with pytest.raises(ConfigError, match="int8 needs samples"):
        build(trt, cuda, GRAPH, BuildOptions("int8"))
    with pytest.raises(ArtifactError, match="input x is given as float64"):
        build(trt, cuda, GRAPH, BuildOptions("int8", calibration=(np.zeros((1, 3, 16, 16)),)))
    model = conv_graph()
    model.graph.input.append(onnx.helper.make_tensor_value_info("x2", 1, (1,)))
    with pytest.raises(GraphError, match="one input, this has 2"):
        build(trt, cuda, model.SerializeToString(), BuildOptions("int8", calibration=images(1)))


@pytest.mark.parametrize("data", [b"", b"rubbish", b"\x00" * 100])
def test_bytes_that_are_no_graph_are_refused(cuda: Cuda, gpu: FakeGpu, data: bytes) -> None:
    with pytest.raises(ArtifactError, match=f"{len(data)} bytes hold") as error:
        build(TensorRT(fake_tensorrt("10", gpu)), cuda, data, FP32)
    refusal(error)


def test_options_are_checked() -> None:
    for options, message in (
        ({"precision": "bf16"}, "unknown precision 'bf16'; known are fp32, fp16, int8"),
        ({"precision": "fp32", "level": 6}, "level 6 must lie in 0..5"),
        ({"precision": "fp32", "workspace_bytes": 0}, "workspace of 0 bytes"),
        ({"precision": "int8", "calibration": (np.zeros(3), np.zeros(4))}, "batches differ"),
        ({"precision": "int8", "calibration": (np.full(3, np.nan),)}, "holds NaN"),
    ):
        with pytest.raises(ConfigError, match=message):
            BuildOptions(**options)  # type: ignore[arg-type]


def test_what_distinguishes_options_is_in_their_json() -> None:
    one, other = (BuildOptions("int8", calibration=images(1, seed)).to_json() for seed in (1, 2))
    assert one != other
    assert one == BuildOptions("int8", calibration=images(1, 1)).to_json()


def test_the_first_package_that_imports_is_taken(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeGpu
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake_tensorrt("rtx", gpu))
    assert load_tensorrt().name == "tensorrt_rtx 1.7.1.116"


def test_without_bindings_the_message_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        RuntimeUnavailableError, match="bindings cannot be imported; on a Jetson"
    ) as error:
        load_tensorrt()
    refusal(error)


def test_bindings_without_their_libraries_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(
        RuntimeUnavailableError, match=r"tensorrt: libnvinfer.so.10: cannot open"
    ) as error:
        load_tensorrt()
    refusal(error)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_real_tensorrt_for_rtx_builds_our_graphs(cuda: Cuda, precision: str) -> None:
    """It builds without a GPU, so that this needs only its wheels."""
    rtx = pytest.importorskip("tensorrt_rtx")
    calibration = images(2) if precision == "int8" else ()
    engine = build(TensorRT(rtx), cuda, GRAPH, BuildOptions(precision, calibration=calibration))  # type: ignore[arg-type]
    assert engine.report.how == {"fp32": "graph", "fp16": "casts", "int8": "q/dq"}[precision]
    assert engine.report.engine_bytes > 1000
