"""Build the engine of an exported run, score and measure it, and judge it by the run's budgets: needs no torch."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, Dict, List, Mapping, Optional

import numpy as np
import onnx

from edgeecc.artifacts import file_sha256, read_json, write_bytes, write_json
from edgeecc.bench import measure_loaded
from edgeecc.check_set import CheckSet, compare_in, read_check, scored
from edgeecc.device_names import ENGINE_RUNTIMES, DeviceName, parse_device
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.graph.onnx_slice import load_model
from edgeecc.machine import resolve
from edgeecc.meters.base import Measurement
from edgeecc.progress import OnProgress, Progress, silent
from edgeecc.run_engines import ranges_for, run_engines
from edgeecc.run_folder import ENGINE_SCHEMA, RESULT_SCHEMA, RunFolder, engine_name
from edgeecc.runtimes.base import Array, Runtime
from edgeecc.runtimes.engine import Engine
from edgeecc.runtimes.onnxrt import OnnxRuntime
from edgeecc.runtimes.tensorrt import TensorRTRuntime
from edgeecc.runtimes.trtexec import TrtexecRuntime
from edgeecc.targets import open_target
from edgeecc.units import Metric
from edgeecc.verdict import HALF_WIDTH, Found, bounds_of
from edgeecc.verify import measuring_of, verdicts_on

#: Images that an engine is scored on through trtexec (ours).
TRTEXEC_IMAGES = 64


def export_engine(
    folder: RunFolder, device: Optional[str] = None, precision: Optional[str] = None, on_progress: OnProgress = silent
) -> Dict[str, Any]:  # fmt: skip
    """Build slim.onnx into an engine and write it with its manifest into the run's folder.

    Args:
        folder: of a run that was exported.
        device: with TensorRT or trtexec; None takes the one that the run's energy was priced on, or the best here.
        precision: for a device that names none.
        on_progress: told of what is done.
    Returns: the manifest: what was built where, accuracy on the run's check images, differences to ONNX Runtime,
        energy and latency with their 95 % intervals, and the verdict on every budget.
    Raises: ArtifactError when the run was not exported or the engine cannot be built; ConfigError for a device
        without engines; RuntimeUnavailableError when it is not this machine's.
    """
    with folder.locked():
        folder.check_settled()
        for file in ("slim.onnx", "check.safetensors", "result.json"):
            if not folder.has(file):
                raise ArtifactError(
                    f"{folder.path} has no {file}; run edgeecc export first, where torch is"
                )
        name = engine_device(folder, device, precision)
        result = read_json(folder.file("result.json"), RESULT_SCHEMA)
        model = load_model(folder.file("slim.onnx"))
        ranges, check = ranges_for(folder, name, read_check(folder))
        check = _check_set(name, check)
        protocol = measuring_of(result, folder.file("result.json")).energy
        engines = run_engines(folder, name, ranges)
        on_progress(Progress("engine", 0, 3, note=f"building it for {name.text}"))
        with open_target(name, engines) as target, target.load(model) as runtime:
            on_progress(Progress("engine", 1, 3, note="scoring it"))
            scores, error = compare_in(runtime, check)
            on_progress(Progress("engine", 2, 3, note="measuring it"))
            found = measure_loaded(runtime, target, protocol, events=True)
            built = _built(runtime)
            told: Dict[str, Any] = {
                "device": name.text,
                "engine": str(folder.file(engine_name(name.precision))),
                "engine_sha256": hashlib.sha256(built.data).hexdigest(),
                "onnx_sha256": file_sha256(folder.file("slim.onnx")),
                **_engine(runtime, built),
                "ranges": ranges.told(),
                **scored(check.task, scores),
                "images": len(check.images),
                "max_abs_error": error,
                **_differences(runtime, model, check),
                **_measured(found),
            }
        energy: Found = None if found.energy_j is None else (found.energy_j, found.meter)
        measured = {Metric.ENERGY: energy, Metric.LATENCY: (found.latency_s, found.meter)}
        told.update(verdicts_on(folder, result, model, measured))
        write_bytes(folder.file(engine_name(name.precision)), built.data)
        write_json(folder.file(f"{engine_name(name.precision)}.json"), ENGINE_SCHEMA, told)
        return told


def engine_device(folder: RunFolder, device: Optional[str], precision: Optional[str]) -> DeviceName:
    """Return the device to build for, see `export_engine`.

    Raises: ConfigError when it builds no engines; RuntimeUnavailableError when there is none here; ArtifactError when
        the run is not finished.
    """
    if device is None:
        source = folder.file("result.json")
        bounds = bounds_of(read_json(source, RESULT_SCHEMA), source)
        priced = [bound.device for bound in bounds if bound.device.count(":") > 1]
        device = next(iter(priced), "auto")
    name = parse_device(resolve(device, precision))
    if name.runtime not in ENGINE_RUNTIMES:
        raise ConfigError(
            f"{name.text} builds no engines; give --device BOARD:tensorrt or BOARD:trtexec, on that board"
        )
    return name


def _check_set(name: DeviceName, check: CheckSet) -> CheckSet:
    """Return the images that an engine is scored on: trtexec takes a process for each, so fewer of them."""
    if name.runtime != "trtexec":
        return check
    return replace(
        check,
        images=check.images[:TRTEXEC_IMAGES],
        labels=check.labels[:TRTEXEC_IMAGES],
        reference=check.reference[:TRTEXEC_IMAGES],
    )


def _engine(runtime: Runtime, built: Engine) -> Dict[str, object]:
    told: Dict[str, object] = {"runtime": runtime.name}
    if isinstance(runtime, TensorRTRuntime):
        told["summary"] = runtime.summary.to_json()
    return {**told, "build": {**built.report.to_json(), "cached": built.cached}}


def _built(runtime: Runtime) -> Engine:
    if not isinstance(runtime, (TensorRTRuntime, TrtexecRuntime)):
        raise ConfigError(f"{runtime.name} is no engine")
    return runtime.built


def _differences(runtime: Runtime, model: onnx.ModelProto, check: CheckSet) -> Dict[str, float]:
    """Return how far outputs are from ONNX Runtime's: at most, and in the mean square relative to them."""
    ours: List[Array] = []
    others: List[Array] = []
    with OnnxRuntime(model) as other:
        for image in check.images[: len(check.reference)]:
            ours.append(runtime.infer([image[None]])[0])
            others.append(other.infer([image[None]])[0])
    one, two = np.concatenate(ours), np.concatenate(others)
    return {
        "onnxruntime_max_abs": float(np.abs(one - two).max()),
        "onnxruntime_relative": float(
            np.sqrt(np.mean((one - two) ** 2) / max(1e-30, float(np.mean(two**2))))
        ),
    }


def _measured(found: Measurement) -> Dict[str, object]:
    return {
        "energy_j": found.energy_j,
        "energy_interval_j": _interval(found.energy_j, found.energy_error_j),
        "latency_s": found.latency_s,
        "latency_interval_s": _interval(found.latency_s, found.latency_se_s),
        "meter": found.meter,
        **found.events_told(),
        "windows": found.windows,
        "converged": found.converged,
        "conditions": None if found.conditions is None else found.conditions.to_json(),
    }


def _interval(value: Optional[float], error: Optional[float]) -> Optional[Mapping[str, float]]:
    if value is None or error is None:
        return None
    return {"low": max(0.0, value - HALF_WIDTH * error), "high": value + HALF_WIDTH * error}
