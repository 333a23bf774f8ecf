"""Devices that are really there: what measures them, and what runs networks on them.

A target is opened by its name (see `device_names`), and refused where the machine at hand is another one: a cost model
is of one board, and a figure of another would pass for its.
"""

from __future__ import annotations

import logging
import re
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Tuple, cast

import onnx

from edgeecc.device_names import AUTO, CPU, ORT_CPU, PACKAGE, RUNS_IN, DeviceName, parse_device
from edgeecc.errors import ConfigError, EdgeeccError, GraphError, RuntimeUnavailableError
from edgeecc.graph.lower_opset import lowered
from edgeecc.meters.base import ClockMeter, Meter
from edgeecc.meters.conditions import Sensors
from edgeecc.meters.ina3221 import RailSource, find_rails
from edgeecc.meters.jetson import JetsonSensors, identify
from edgeecc.meters.nvml import open_gpu
from edgeecc.meters.rails import choose_rails
from edgeecc.meters.rapl import RaplMeter, find_domains
from edgeecc.meters.sampled import SampledMeter
from edgeecc.runtimes.base import Array, Runtime, random_input
from edgeecc.runtimes.build_options import BuildOptions, EnginePrecision
from edgeecc.runtimes.cuda_memory import open_cuda
from edgeecc.runtimes.engine_cache import EngineCache
from edgeecc.runtimes.onnxrt import OnnxRuntime, check_gpu
from edgeecc.runtimes.tensorrt import open_engine
from edgeecc.runtimes.timing_cache import TimingCache
from edgeecc.runtimes.trt_api import load_tensorrt
from edgeecc.runtimes.trtexec import TrtexecRuntime, find_trtexec

logger = logging.getLogger(__name__)

#: From a graph to a runtime that is ready to run it.
Load = Callable[[onnx.ModelProto], Runtime]
_ROOT = Path("/")
#: Engines that are kept, all together, bytes; and seconds that trtexec may take to build one (ours).
MAX_ENGINE_BYTES, BUILD_LIMIT_S = 2 * 2**30, 1800.0
#: Builder optimisation level of what is measured for a calibration: many builds, whose kernels differ little (ours).
SAMPLE_LEVEL = 2
#: The rail that is read where none is named: the paper's.
USUAL_RAIL = "gpu"


@dataclass(frozen=True)
class Target:
    """A device that is ready to be measured.

    Args:
        name: which it is.
        meter: reads its energy, or is only a clock.
        sensors: say what it is like; None where nothing does.
        load: makes a graph ready to run on it.
    """

    name: DeviceName
    meter: Meter
    sensors: Optional[Sensors]
    load: Load


@dataclass(frozen=True)
class Engines:
    """How engines are built.

    Args:
        folder: keeps timings of kernels, and engines; None keeps neither.
        level: builder optimisation level; None is TensorRT's own.
        calibration: batches of real inputs, for int8; empty takes random ones, which tell no accuracy.
    """

    folder: Optional[Path] = None
    level: Optional[int] = None
    calibration: Tuple[Array, ...] = ()


@contextmanager
def open_target(
    name: DeviceName, engines: Optional[Engines] = None, root: Optional[Path] = None
) -> Iterator[Target]:
    """Open a device for measuring, and let it go in the end.

    Args:
        name: which; not a virtual one.
        engines: how engines are built, where its runtime builds any.
        root: of the file system; None is this machine's.
    Raises: RuntimeUnavailableError when this machine is another one, or lacks what it takes; MeterError when its meter
        cannot be read.
    """
    with ExitStack() as stack:
        meter, sensors = _board(name, root or _ROOT, stack)
        yield Target(name, meter, sensors, loader(name, engines))


def boards_here(root: Optional[Path] = None) -> Tuple[Dict[str, str], Dict[str, str]]:
    """Return the boards that this machine is or has, with what is known of them, and why others cannot be read."""
    root = root or _ROOT
    found: Dict[str, str] = {}
    missing: Dict[str, str] = {}
    jetson = identify(root)
    if jetson is not None:
        found[jetson.name] = " ".join(
            part for part in (jetson.model, jetson.l4t and f"L4T {jetson.l4t}") if part
        )
    else:
        try:
            with open_gpu() as gpu:
                told = "; ".join(gpu.missing)
                if gpu.meter is None:
                    missing[gpu_board(gpu.board.identity.model)] = told
                else:
                    found[gpu_board(gpu.board.identity.model)] = told or gpu.meter.name
        except EdgeeccError as error:
            missing["nvidia"] = str(error)
    try:
        found[PACKAGE] = RaplMeter(find_domains(root)).name
    except EdgeeccError as error:
        missing[PACKAGE] = str(error)
    found[CPU] = "the clock of this machine"
    return found, missing


def runtimes_here() -> Tuple[Dict[str, str], Dict[str, str]]:
    """Return what can run networks on this machine's GPU or Jetson, the quickest first, and why others cannot."""
    found: Dict[str, str] = {}
    missing: Dict[str, str] = {}
    for runtime, look in _LOOKS.items():
        try:
            found[runtime] = look()
        except EdgeeccError as error:
            missing[runtime] = str(error)
    return found, missing


def resolve(text: str, precision: Optional[str] = None, root: Optional[Path] = None) -> str:
    """Return a device's whole name: "auto" is the best board here, and a board without a runtime gets the quickest.

    Args:
        text: as it was given.
        precision: for a device that names none; None is fp32.
        root: of the file system; None is this machine's.
    Raises: ConfigError for an unknown device, or a precision that it names otherwise; RuntimeUnavailableError when
        nothing here runs networks on the board.
    """
    if text == AUTO:
        text = next(iter(boards_here(root)[0]))
        text = ORT_CPU if text == CPU else f"{text}:onnxruntime" if text == PACKAGE else text
    board, _, rest = text.partition(":")
    runtime, _, named = rest.partition(":")
    if precision is not None and named and named.partition(":")[0] != precision:
        raise ConfigError(
            f"{text} names another precision than --precision {precision}; leave one out"
        )
    if not board.startswith(("jetson-", "nvidia-")):
        return parse_device(text).text
    if not runtime:
        found, missing = runtimes_here()
        usable = [name for name in found if (precision or "fp32") in RUNS_IN[name]]
        if not usable:
            told = "; ".join(missing.values())
            raise RuntimeUnavailableError(
                f"nothing here runs networks on {board} in {precision or 'fp32'}: {told}"
            )
        runtime = usable[0]
    return parse_device(f"{board}:{runtime}:{named or precision or 'fp32'}").text


def _look_at_tensorrt() -> str:
    trt, cuda = load_tensorrt(), open_cuda()
    try:
        return f"{trt.name} on {cuda.device}"
    finally:
        cuda.close()


def _look_at_onnxruntime() -> str:
    check_gpu()
    return "onnxruntime's CUDA provider"


def _look_at_torch() -> str:
    try:
        import torch
    except ImportError as error:
        raise RuntimeUnavailableError("torch is not here; pip install 'edgeecc[host]'") from error
    if not torch.cuda.is_available():
        raise RuntimeUnavailableError("torch finds no NVIDIA GPU; install its build for CUDA")
    return f"torch {torch.__version__} on {torch.cuda.get_device_name()}"


_LOOKS: Dict[str, Callable[[], str]] = {
    "tensorrt": _look_at_tensorrt,
    "trtexec": lambda: str(find_trtexec()),
    "onnxruntime": _look_at_onnxruntime,
    "torch": _look_at_torch,
}


def gpu_board(model: str) -> str:
    """Return the name of a board, of the model that NVML tells, such as "nvidia-h200"."""
    slug = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
    slug = slug[len("nvidia-") :] if slug.startswith("nvidia-") else slug
    return f"nvidia-{slug or 'gpu'}"[:67].rstrip("-")


def loader(name: DeviceName, engines: Optional[Engines] = None) -> Load:
    """Return what makes graphs ready to run on a device.

    Args:
        name: of the device.
        engines: how engines are built, where the runtime builds any.
    Raises: RuntimeUnavailableError when what runs them is not here.
    """
    on_gpu = name.board not in (CPU, PACKAGE)
    if name.runtime == "onnxruntime":
        return lambda model: OnnxRuntime(model, on_gpu=on_gpu)
    if name.runtime == "torch":
        return _torch(name.precision)
    if name.runtime in ("tensorrt", "trtexec"):
        return _engines(name, engines or Engines())
    raise RuntimeUnavailableError(
        f"{name.text} names no runtime of edgeecc; give one, such as {name.board}:onnxruntime:fp32"
    )


def _torch(precision: str) -> Load:
    try:
        from edgeecc.runtimes.eager import EagerRuntime
    except ImportError as error:
        raise RuntimeUnavailableError("torch is not here; pip install 'edgeecc[host]'") from error
    return lambda model: EagerRuntime(model, on_gpu=True, precision=precision)


def _engines(name: DeviceName, engines: Engines) -> Load:
    folder = engines.folder
    timings = None if folder is None else folder / f"timings-{name.runtime}.cache"

    def options(model: onnx.ModelProto) -> BuildOptions:
        given = engines.calibration
        if name.precision == "int8" and not given:
            given = tuple(random_input(shape) for shape in input_shapes(model))
        return BuildOptions(
            cast("EnginePrecision", name.precision), engines.level, calibration=given
        )

    def with_trtexec(model: onnx.ModelProto) -> Runtime:
        return TrtexecRuntime(
            oldest(model).SerializeToString(),
            options(model),
            timings=timings,
            limit_s=BUILD_LIMIT_S,
        )

    def with_bindings(model: onnx.ModelProto) -> Runtime:
        cache = None if folder is None else EngineCache(folder / "engines", MAX_ENGINE_BYTES)
        return open_engine(
            oldest(model).SerializeToString(), options(model), cache=cache,
            timings=None if timings is None else TimingCache(timings),
        )  # fmt: skip

    return with_trtexec if name.runtime == "trtexec" else with_bindings


def oldest(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph in the opset that every TensorRT reads, or as it is where that cannot say it."""
    try:
        return lowered(model)
    except GraphError as error:
        logger.debug("the graph is built in its own opset: %s", error)
        return model


def input_shapes(model: onnx.ModelProto) -> List[Tuple[int, ...]]:
    """Return the shapes of a graph's inputs."""
    return [
        tuple(dim.dim_value for dim in one.type.tensor_type.shape.dim) for one in model.graph.input
    ]


def _board(name: DeviceName, root: Path, stack: ExitStack) -> Tuple[Meter, Optional[Sensors]]:
    if name.board == CPU:
        return ClockMeter("clock"), None
    if name.board == PACKAGE:
        return RaplMeter(find_domains(root)), None
    if name.board.startswith("jetson-"):
        return _jetson(name, root, stack)
    return _gpu(name, stack)


def _jetson(name: DeviceName, root: Path, stack: ExitStack) -> Tuple[Meter, Sensors]:
    board = identify(root)
    _check_here(name, [] if board is None else [board.name])
    rails = choose_rails(find_rails(root), name.meter or USUAL_RAIL)
    return stack.enter_context(SampledMeter(RailSource(rails))), JetsonSensors(root)


def _gpu(name: DeviceName, stack: ExitStack) -> Tuple[Meter, Sensors]:
    gpu = stack.enter_context(open_gpu())
    _check_here(name, [gpu_board(gpu.board.identity.model)])
    meters: Dict[str, Optional[Meter]] = {"": gpu.meter, "counter": gpu.counter, "power": None}
    if name.meter == "power" and gpu.power is not None:
        meters["power"] = stack.enter_context(SampledMeter(gpu.power))
    meter = meters.get(name.meter)
    if meter is None:
        why = "; ".join(gpu.missing) or "a GPU has counter and power"
        raise RuntimeUnavailableError(
            f"{name.text} has no meter {name.meter or 'of its energy'}: {why}"
        )
    return meter, gpu.sensors


def _check_here(name: DeviceName, found: List[str]) -> None:
    if name.board not in found:
        machine = found[0] if found else "no Jetson"
        raise RuntimeUnavailableError(
            f"{name.board} is not here, this machine is {machine}; run edgeecc on that board, or name it in a fleet "
            "with --fleet"
        )
