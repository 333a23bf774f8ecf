"""trtexec as a runtime, over a program that behaves like it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Callable, FrozenSet, List, Tuple

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgeecc.errors import ArtifactError, ConfigError, EdgeeccError, RuntimeUnavailableError
from edgeecc.runtimes import child, trtexec, trtexec_build, trtexec_output
from edgeecc.runtimes.build_options import BuildOptions
from edgeecc.runtimes.child import Child, last_words
from edgeecc.runtimes.engine import EngineBuildError
from edgeecc.runtimes.engine_cache import EngineCache
from edgeecc.runtimes.sparse_kernels import SparseKernels
from edgeecc.runtimes.tensors import TensorSpec
from edgeecc.runtimes.trtexec import TrtexecRuntime, find_trtexec, run_arguments
from edgeecc.runtimes.trtexec_build import build_arguments
from edgeecc.runtimes.trtexec_output import options_in, parse_timing, read_outputs
from tests import fake_trtexec
from tests.conv_graph import conv_graph, images, relative_error, run_graph

pytestmark = pytest.mark.device

GRAPH = conv_graph().SerializeToString()
FP32 = BuildOptions("fp32")
Opener = Callable[..., TrtexecRuntime]


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Path]:
    """Return what makes a trtexec of a release with a fault."""

    def make(release: str = "8.6", fault: str = "none") -> Path:
        path = tmp_path / "bin" / "trtexec"
        path.parent.mkdir(exist_ok=True)
        return fake_trtexec.program(path, release, fault)

    return make


@pytest.fixture
def opened(program: Callable[..., Path]) -> Opener:
    """Return what opens a graph with such a trtexec."""

    def make(
        release: str = "8.6",
        fault: str = "none",
        options: BuildOptions = FP32,
        graph: bytes = GRAPH,
    ) -> TrtexecRuntime:
        return TrtexecRuntime(graph, options, program=program(release, fault), limit_s=20.0)

    return make


def refusal(error: pytest.ExceptionInfo[EdgeeccError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 700
    return text


@pytest.mark.parametrize("release", list(fake_trtexec.OPTIONS))
def test_every_release_takes_our_arguments(opened: Opener, release: str) -> None:
    with opened(release) as runtime:
        runtime.run(1)
        assert runtime.name == "trtexec fp32"
        times = runtime.device_times(10)
        assert times.median_s == pytest.approx(1e-3 * fake_trtexec.MEDIAN_MS)
        assert times.p99_s == pytest.approx(2.4e-3)
        assert times.p95_s == (None if release == "8.2" else pytest.approx(2.2e-3))
        assert (times.runs, times.clock) == (1500, "CUDA events of trtexec")


def builds(program: Path) -> int:
    """Return how often a trtexec that counts was asked to build."""
    log = program.with_name("asked")
    return log.read_text().count("--onnx=") if log.exists() else 0


@pytest.mark.parametrize("fault", ["none", "foreign", "damaged"])
def test_an_engine_is_built_once_and_again_where_it_does_not_run(
    program: Callable[..., Path], tmp_path: Path, fault: str
) -> None:
    path = fake_trtexec.counting(program())
    cache = EngineCache(tmp_path / "engines", 2**30, "jetson-tx2 L4T 32.7.4")

    def opened() -> TrtexecRuntime:
        return TrtexecRuntime(GRAPH, FP32, program=path, cache=cache, limit_s=20.0)

    with opened() as runtime:
        assert not runtime.built.cached
        assert runtime.built.report.tensorrt == "trtexec of TensorRT 8601"
        data = runtime.built.data
    (engine,) = (tmp_path / "engines").glob("*.engine")
    if fault == "damaged":
        engine.write_bytes(data[:-1])
    if fault == "foreign":  # it is whole, but trtexec does not run it
        path.write_text(path.read_text().replace("'none'", "'no start'"))
    with opened() as runtime:
        again = fault != "none"
        assert runtime.built.cached == (not again)
        assert runtime.built.data == data
        assert builds(path) == 1 + again
        assert runtime.built.report.build_s > 0.0


def test_engines_of_another_program_precision_or_board_are_not_taken(
    program: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "engines"

    def is_cached(path: Path, options: BuildOptions = FP32, board: str = "") -> bool:
        cache = EngineCache(folder, 2**30, board)
        with TrtexecRuntime(GRAPH, options, program=path, cache=cache, limit_s=20.0) as runtime:
            return runtime.built.cached

    assert not is_cached(program())
    assert is_cached(program())
    assert not is_cached(program(), board="jetson-nano L4T 32.7.1")
    assert not is_cached(program(), BuildOptions("fp16"))
    assert not is_cached(program("8.2"))


def test_outputs_are_the_graphs(opened: Opener) -> None:
    (value,) = images(1)
    with opened() as runtime:
        assert runtime.infer([value])[0] == pytest.approx(run_graph(conv_graph(), value), rel=1e-5)


@pytest.mark.parametrize(
    ("release", "precision", "mark"),
    [("8.6", "fp16", None), ("11", "fp16", b"x_float16"), ("8.6", "int8", b"QuantizeLinear")],
)
def test_lower_precisions_are_flags_or_in_the_graph(
    opened: Opener, release: str, precision: str, mark: bytes
) -> None:
    calibration = images(2) if precision == "int8" else ()
    options = BuildOptions(precision, calibration=calibration)  # type: ignore[arg-type]
    (value,) = images(1, seed=3)
    with opened(release, options=options) as runtime:
        graph = runtime._engine.read_bytes()
        assert mark is None or mark in graph
        assert relative_error(runtime.infer([value])[0], run_graph(conv_graph(), value)) < 0.05


def test_int8_needs_samples(opened: Opener) -> None:
    with pytest.raises(ConfigError, match="int8 needs samples"):
        opened(options=BuildOptions("int8"))


def test_order_and_names_with_colons_are_kept(opened: Opener) -> None:
    graph = helper.make_graph(
        [helper.make_node("Cast", ["count:0"], ["wide"], to=TensorProto.FLOAT),
         helper.make_node("Mul", ["x:0", "wide"], ["product"]),
         helper.make_node("Neg", ["x:0"], ["minus"])],
        "g",
        [helper.make_tensor_value_info("x:0", TensorProto.FLOAT, (2,)),
         helper.make_tensor_value_info("count:0", TensorProto.INT32, (1,))],
        [helper.make_tensor_value_info("product", TensorProto.FLOAT, (2,)),
         helper.make_tensor_value_info("minus", TensorProto.FLOAT, (2,))],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    with opened(graph=model.SerializeToString()) as runtime:
        x, count = np.asarray([1.5, -2.0], np.float32), np.asarray([4], np.int32)
        product, minus = runtime.infer([x, count])
        assert (product.tolist(), minus.tolist()) == ([6.0, -8.0], [-1.5, 2.0])
        with pytest.raises(ArtifactError, match="1 inputs given, the graph takes 2"):
            runtime.infer([x])


def test_readings_fall_between_the_first_and_the_last_inference(opened: Opener) -> None:
    readings: List[int] = []

    def read() -> int:
        readings.append(len(readings))
        return readings[-1]

    with opened() as runtime:
        found = runtime.observe(read, windows=3, window_s=0.01, settle_s=0.0)
    assert found.readings == (0, 1, 2, 3)
    assert found.timing.rate_hz == fake_trtexec.RATE_HZ
    assert found.timing.median_s == pytest.approx(1e-3 * fake_trtexec.MEDIAN_MS)
    assert found.timing.gpu_share == pytest.approx(0.9)


def test_a_run_that_ends_before_the_last_window_gives_no_reading(opened: Opener) -> None:
    with opened(fault="short") as runtime, pytest.raises(
        RuntimeUnavailableError, match="the last of 1 windows"
    ):
        runtime.observe(lambda: 0, windows=1, window_s=0.5, settle_s=0.0)


def test_a_meter_that_fails_ends_the_run(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "GRACE_S", 0.1)
    with opened(fault="deaf") as runtime:
        with pytest.raises(ZeroDivisionError):
            runtime.observe(lambda: 1 // 0, windows=1, window_s=0.01, settle_s=0.0)
        number = int(runtime._engine.with_suffix(".pid").read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


@pytest.mark.parametrize(
    ("windows", "window_s", "settle_s"), [(0, 1.0, 0.0), (1, 0.0, 0.0), (1, 1.0, -1.0)]
)
def test_windows_are_checked(
    opened: Opener, windows: int, window_s: float, settle_s: float
) -> None:
    with opened() as runtime, pytest.raises(ConfigError, match="none can be read"):
        runtime.observe(lambda: 0, windows=windows, window_s=window_s, settle_s=settle_s)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("build", r"\(status 1\): .*node number 0 \[Conv\]:; .*out of memory"),
        ("no engine", r"cannot build the engine \(status 0\)"),
    ],
)
def test_a_failed_build_is_told(opened: Opener, fault: str, message: str) -> None:
    with pytest.raises(EngineBuildError, match=message) as error:
        opened(fault=fault)
    refusal(error)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("status", "ended with status 3"),
        ("no start", r"ended with status 1: .*\[E\] Error Code 1: Cuda Runtime"),
        ("mute", "printed no timing summary"),
        ("nan", "printed no timing summary"),
    ],
)
def test_a_failed_run_is_told(opened: Opener, fault: str, message: str) -> None:
    with opened(fault=fault) as runtime, pytest.raises(
        RuntimeUnavailableError, match=message
    ) as error:
        runtime.run(1)
    refusal(error)


def test_a_run_that_never_starts_is_told(opened: Opener) -> None:
    with opened(fault="no start") as runtime, pytest.raises(
        RuntimeUnavailableError, match="before 'Starting"
    ):
        runtime.observe(lambda: 0, windows=1, window_s=0.01)


def test_a_run_that_hangs_is_stopped(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trtexec, "_START_S", -9.7)  # ten seconds are allowed for one inference
    with opened(fault="hang") as runtime, pytest.raises(
        RuntimeUnavailableError, match="was stopped after 0.3 s: .*allow it more time"
    ) as error:
        runtime.run(1)
    refusal(error)


def test_a_build_that_hangs_is_stopped_and_leaves_nothing(
    program: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with pytest.raises(RuntimeUnavailableError, match="was stopped after 0.3 s"):
        TrtexecRuntime(GRAPH, FP32, program=program(fault="slow build"), limit_s=0.3)
    assert not list((tmp_path / "temporary").iterdir())


def test_ctrl_c_ends_the_program(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(child, "GRACE_S", 0.1)
    with opened(fault="deaf") as runtime:
        with pytest.raises(KeyboardInterrupt):
            runtime.observe(interrupt, windows=1, window_s=0.01, settle_s=0.0)
        number = int(runtime._engine.with_suffix(".pid").read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


def test_a_program_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    path = tmp_path / "trtexec"
    path.write_text("no program")
    with pytest.raises(RuntimeUnavailableError, match="cannot start .*Permission denied"):
        TrtexecRuntime(GRAPH, FP32, program=path, limit_s=1.0)


def test_a_program_of_another_kind_is_told(opened: Opener) -> None:
    with pytest.raises(RuntimeUnavailableError, match="lists no option --onnx"):
        opened(fault="stranger")


def test_a_long_line_and_rubbish_bytes_do_no_harm() -> None:
    code = "import sys; sys.stdout.buffer.write(b'x' * 200000 + b'\\xff\\n'); print('done')"
    with Child([sys.executable, "-c", code], 20.0) as program:
        assert program.finish() == 0
        assert program.printed("done")


def test_a_program_that_falls_silent_and_stays_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "GRACE_S", 0.1)
    code = "import os, time; os.close(1); os.close(2); time.sleep(60)"
    message = "was stopped after 1 s: it says nothing"
    with Child([sys.executable, "-c", code], 1.0) as program, pytest.raises(
        RuntimeUnavailableError, match=message
    ):
        program.finish()


def test_trtexec_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = tmp_path / "trtexec"
    found.write_text("")
    monkeypatch.setattr(shutil, "which", lambda name: str(found))
    assert find_trtexec() == found
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(trtexec, "JETPACK_PATH", found)
    assert find_trtexec() == found
    assert find_trtexec(found) == found
    monkeypatch.setattr(trtexec, "JETPACK_PATH", tmp_path / "absent")
    with pytest.raises(RuntimeUnavailableError, match="neither on the PATH nor at") as error:
        find_trtexec()
    refusal(error)
    with pytest.raises(RuntimeUnavailableError, match="is no file"):
        find_trtexec(tmp_path / "absent")


def arguments(release: str, options: BuildOptions) -> Tuple[str, ...]:
    known = frozenset(fake_trtexec.OPTIONS[release].split())
    return tuple(build_arguments(known, options, (Path("a.onnx"), Path("a.engine")), Path("t"))[2:])


@pytest.mark.parametrize("release", list(fake_trtexec.OPTIONS))
def test_sparse_kernels_are_taken_by_leave_alone(opened: Opener, release: str) -> None:
    assert "--sparsity=enable" not in arguments(release, BuildOptions("fp16"))
    leave = BuildOptions("fp16", sparse=True)
    assert "--sparsity=enable" in arguments(release, leave)
    with opened(release, options=leave) as runtime:
        told = SparseKernels(fake_trtexec.ELIGIBLE, fake_trtexec.CHOSEN)
        assert runtime.built.report.sparse == told
    with opened(release, options=BuildOptions("fp16")) as runtime:
        assert runtime.built.report.sparse is None
        assert runtime.built.report.notes == ()


def test_a_release_without_sparse_kernels_says_so(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trtexec, "options_in", without_sparsity)
    monkeypatch.setattr(trtexec_build, "options_in", without_sparsity)
    with opened(options=BuildOptions("fp32", sparse=True)) as runtime:
        assert runtime.built.report.sparse is None
        assert runtime.built.report.notes == (
            "trtexec of TensorRT 8601 has no sparse kernels; zeros are multiplied",
        )


def without_sparsity(text: str) -> FrozenSet[str]:
    return options_in(text) - {"sparsity"}


def test_builds_use_what_the_release_knows() -> None:
    options = BuildOptions("fp16", level=2, workspace_bytes=2**28, tf32=False)
    timings = "--timingCacheFile=t"
    level = "--builderOptimizationLevel=2"
    pools = "--memPoolSize=workspace:256"
    assert arguments("8.2", options) == (
        "--buildOnly",
        "--fp16",
        "--noTF32",
        "--workspace=256",
        timings,
    )
    assert arguments("8.6", options) == (
        "--skipInference",
        "--fp16",
        "--noTF32",
        level,
        pools,
        timings,
    )
    assert arguments("11", options) == ("--skipInference", "--noTF32", level, pools, timings)


def test_runs_are_alike_in_every_release() -> None:
    def extra(release: str) -> List[str]:
        return run_arguments(frozenset(fake_trtexec.OPTIONS[release].split()), Path("e"), count=7)[
            5:
        ]

    assert extra("8.2") == extra("8.6") == ["--useCudaGraph", "--noDataTransfers"]
    assert extra("11") == ["--noSpinWait"]


def test_timings_are_saved_where_asked(program: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "timing.cache"
    with TrtexecRuntime(GRAPH, FP32, program=program(), timings=path, limit_s=20.0):
        assert path.read_bytes() == b"timings"


def test_a_summary_without_wall_times_counts_as_busy() -> None:
    text = (
        "=== Performance summary ===\n[I] Throughput: 5e+02 qps\n"
        "[I] GPU Compute Time: min = 1 ms, max = 3 ms, mean = 2 ms, median = 1.5 ms, percentile(99%) = 3 ms\n"
    )
    timing = parse_timing(text)
    assert (timing.rate_hz, timing.gpu_share) == (500.0, 1.0)
    assert (timing.mean_s, timing.median_s) == pytest.approx((2e-3, 1.5e-3))


@pytest.mark.parametrize(
    "text", ["", "=== Performance summary ===", "GPU Compute Time: mean = 1 ms, median = 1 ms"]
)
def test_no_summary_is_told(text: str) -> None:
    with pytest.raises(RuntimeUnavailableError, match="no timing summary") as error:
        parse_timing(text)
    refusal(error)


def test_last_words_are_one_line() -> None:
    assert last_words("") == "it says nothing"
    assert last_words("a\n\n") == "a"
    assert last_words("x\n[E] first\ny\n[E] last\nz") == "[E] first; [E] last"
    assert options_in("  --onnx=<file>  ONNX model\n  --fp16   --int8") == {"onnx", "fp16", "int8"}


SPEC = TensorSpec("y", (1, 2), np.float32)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "cannot be read"),
        ("{}", "wrote no output y"),
        ('[{"name": "y", "values": [1]}]', r"wrote 1 numbers for output y float32\[1, 2\]"),
        ('[{"name": "y", "values": ["a", "b"]}]', "holds no numbers"),
        ('[{"name": "y", "values": [1, nan]}]', "cannot be read"),
        ('[3, {"name": 5}]', "wrote no output y"),
    ],
)
def test_outputs_that_cannot_be_read_are_told(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "outputs.json"
    path.write_text(content)
    with pytest.raises(ArtifactError, match=message) as error:
        read_outputs(path, [SPEC])
    refusal(error)


def test_absent_and_huge_outputs_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArtifactError, match="wrote no outputs: No such file"):
        read_outputs(tmp_path / "absent", [SPEC])
    path = tmp_path / "outputs.json"
    path.write_text(json.dumps([{"name": "y", "values": [1, 2]}]))
    assert read_outputs(path, [SPEC])[0].tolist() == [[1.0, 2.0]]
    monkeypatch.setattr(trtexec_output, "_MAX_OUTPUT_BYTES", 5)
    with pytest.raises(ArtifactError, match="larger than 5 bytes"):
        read_outputs(path, [SPEC])


def test_a_program_that_is_gone_is_not_signalled(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(group: int, number: int) -> None:
        raise AssertionError(f"{group} may be somebody else's by now")

    monkeypatch.setattr(os, "killpg", refuse)
    with Child([sys.executable, "-c", "print('hello')"], 20.0) as program:
        assert program.finish() == 0
