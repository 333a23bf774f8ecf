"""From a graph to a runtime that is ready to run it: loaded as it is, or built into an engine first."""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Callable, Optional, Tuple, cast

import onnx

from edgeecc.device_names import CPU, ENGINE_RUNTIMES, PACKAGE, DeviceName
from edgeecc.errors import GraphError, RuntimeUnavailableError
from edgeecc.graph.lower_opset import lowered
from edgeecc.meters.jetson import identify
from edgeecc.runtimes.base import Array, Runtime
from edgeecc.runtimes.build_options import BuildOptions, EnginePrecision
from edgeecc.runtimes.engine_cache import EngineCache
from edgeecc.runtimes.onnxrt import OnnxRuntime
from edgeecc.runtimes.tensorrt import open_engine
from edgeecc.runtimes.tensors import graph_inputs
from edgeecc.runtimes.timing_cache import TimingCache
from edgeecc.runtimes.trtexec import TrtexecRuntime

logger = logging.getLogger(__name__)

#: From a graph to a runtime that is ready to run it.
Load = Callable[[onnx.ModelProto], Runtime]
#: Seconds that trtexec may take to build an engine (ours).
BUILD_LIMIT_S = 1800.0
#: Builder optimisation level of what is measured for a calibration: many builds, whose kernels differ little (ours).
SAMPLE_LEVEL = 2
#: Engines that are kept in one folder, bytes of all (ours): hundreds of small networks, some of the largest.
CACHE_BYTES = 2**30


@dataclass(frozen=True)
class Engines:
    """How engines are built.

    Args:
        folder: keeps timings of kernels; None keeps none.
        level: builder optimisation level; None is TensorRT's own.
        calibration: batches of real inputs, for int8; empty takes random ones, which tell no accuracy.
        cache: where engines are kept; None keeps none.
        sparse: whether kernels may be taken that skip the zeros of a 2:4 pattern.
    """

    folder: Optional[Path] = None
    level: Optional[int] = None
    calibration: Tuple[Array, ...] = ()
    cache: Optional[EngineCache] = None
    sparse: bool = False


def engine_cache(folder: Path, name: DeviceName) -> EngineCache:
    """Return what keeps engines of a device in a folder; a Jetson's are of one release of its system."""
    jetson = identify()
    release = f" L4T {jetson.l4t}" if jetson is not None and jetson.l4t else ""
    return EngineCache(folder, CACHE_BYTES, f"{name.board}{release}")


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
    if name.runtime in ENGINE_RUNTIMES:
        return _engines(name, engines or Engines())
    raise RuntimeUnavailableError(
        f"{name.text} names no runtime of edgeecc; give one, such as {name.board}:onnxruntime:fp32"
    )


def eager() -> ModuleType:
    """Return the runtime over torch, `runtimes.eager`.

    Raises: RuntimeUnavailableError when torch is not here.
    """
    try:
        return importlib.import_module("edgeecc.runtimes.eager")
    except ImportError as error:
        raise RuntimeUnavailableError("torch is not here; pip install 'edgeecc[host]'") from error


def _torch(precision: str) -> Load:
    runtime = eager().EagerRuntime
    return lambda model: runtime(model, on_gpu=True, precision=precision)


def _engines(name: DeviceName, engines: Engines) -> Load:
    folder = engines.folder
    timings = None if folder is None else folder / f"timings-{name.runtime}.cache"

    def options(model: onnx.ModelProto) -> BuildOptions:
        given = engines.calibration
        if name.precision == "int8" and not given:
            given = tuple(spec.standing() for spec in graph_inputs(model))
        return BuildOptions(
            cast("EnginePrecision", name.precision),
            engines.level,
            sparse=engines.sparse,
            calibration=given,
        )

    def with_trtexec(model: onnx.ModelProto) -> Runtime:
        return TrtexecRuntime(
            oldest(model).SerializeToString(),
            options(model),
            timings=timings,
            cache=engines.cache,
            limit_s=BUILD_LIMIT_S,
        )

    def with_bindings(model: onnx.ModelProto) -> Runtime:
        return open_engine(
            oldest(model).SerializeToString(), options(model), cache=engines.cache,
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
