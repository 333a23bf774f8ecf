"""Verify an exported network on the machine where it will run: needs no torch.

What is checked was written by export: the slim ONNX file, and a `CheckSet`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Container, Dict, List, Mapping, Optional, Tuple

import onnx
from onnx import numpy_helper

from edgeecc.artifacts import number, read_json, write_json
from edgeecc.bench import measure_graph
from edgeecc.check_set import compare, read_check, scored
from edgeecc.config import ENERGY_PROTOCOL, LATENCY_PROTOCOL, MeasureProtocol, VerifyConfig
from edgeecc.cost.exact import mac_cost, size_cost
from edgeecc.cost.hardware import Hardware, from_values
from edgeecc.cost.systolic import LayerEnergy, Shape, network_energy, shapes_of
from edgeecc.device_names import parse_device
from edgeecc.errors import ArtifactError, ConfigError, RuntimeUnavailableError
from edgeecc.graph.onnx_slice import load_model
from edgeecc.graph.onnx_work import work_of
from edgeecc.graph.spec import NetworkSpec
from edgeecc.meters.base import ClockMeter, Measurement
from edgeecc.meters.measure import measure
from edgeecc.meters.virtual import VirtualDevice
from edgeecc.pattern import Array, Pattern, pattern_of
from edgeecc.run_engines import run_engines
from edgeecc.run_folder import RESULT_SCHEMA, VERIFY_SCHEMA, RunFolder
from edgeecc.runtimes.onnxrt import OnnxRuntime
from edgeecc.targets import open_target
from edgeecc.units import Metric
from edgeecc.verdict import Found, bounds_of, energy_device, judged, overall

#: Windows that a result may ask a measurement for: a few hours of them.
MAX_WINDOWS = 10_000


def verify(folder: RunFolder, config: Optional[VerifyConfig] = None) -> Dict[str, Any]:
    """Check the slim network of a run; returns what `edgeecc verify --json` prints, also in verify.json.

    Raises: ArtifactError when the run was not exported or its files do not belong together.
    """
    with folder.locked():
        folder.check_settled()
        return verify_locked(folder, config or VerifyConfig())


@dataclass(frozen=True)
class Costs:
    """What was measured of a network.

    Args:
        energy: on the run's device; None where that has no meter here.
        latency: in ONNX Runtime on this machine.
    """

    energy: Optional[Measurement]
    latency: Measurement


def verify_locked(
    folder: RunFolder, config: VerifyConfig, costs: Optional[Costs] = None
) -> Dict[str, object]:
    """Verify a run whose lock is held.

    Args:
        folder: of the run.
        config: what is tolerated.
        costs: of slim.onnx, where they are measured already.
    """
    for name in ("slim.onnx", "check.safetensors", "result.json"):
        if not folder.has(name):
            raise ArtifactError(f"{folder.path} has no {name}; run edgeecc export first")
    result = read_json(folder.file("result.json"), RESULT_SCHEMA)
    model = load_model(folder.file("slim.onnx"))
    check = read_check(folder)
    scores, error = compare(model, check)
    costs = costs or measure_costs(folder, result, model)
    energy, latency = costs.energy, costs.latency
    outcome: Dict[str, object] = {
        "run": str(folder.path),
        "max_abs_error": error,
        "outputs_agree": error <= config.max_abs_error,
        **scored(check.task, scores),
        "images": len(check.images),
        "energy_j": None if energy is None else energy.energy_j,
        "energy_se_j": None if energy is None else energy.energy_error_j,
        "meter": None if energy is None else energy.meter,
        "latency_s": latency.latency_s,
        "latency_se_s": latency.latency_se_s,
        "latency_iqr_s": latency.latency_iqr_s,
        "latency_meter": latency.meter,
        **_events(energy),
    }
    outcome.update(verdicts_on(folder, result, model, _measured(energy, latency)))
    outcome["pattern"] = _pattern_verdict(folder, result, model)
    write_json(folder.file("verify.json"), VERIFY_SCHEMA, outcome)
    return outcome


logger = logging.getLogger(__name__)


def verdicts_on(
    folder: RunFolder,
    result: Mapping[str, object],
    model: onnx.ModelProto,
    measured: Mapping[Metric, Found],
) -> Dict[str, object]:
    """Return the verdict on every budget of a run, see `verdict.overall`.

    Args:
        folder: of the run.
        result: what its result.json holds.
        model: the slim graph.
        measured: value and meter of energy and latency, None where nothing tells it; the rest is counted.
    """
    verdicts = []
    for bound in bounds_of(result, folder.file("result.json")):
        counted = bound.metric not in measured
        found = _counted(folder, bound.metric, result, model) if counted else measured[bound.metric]
        verdicts.append(judged(bound, found))
    return overall(verdicts)


@dataclass(frozen=True)
class Measuring:
    """How a run's networks are measured: more finely where the run was brought close to its budget."""

    energy: MeasureProtocol = ENERGY_PROTOCOL
    latency: MeasureProtocol = LATENCY_PROTOCOL

    @staticmethod
    def to(tolerance: float, max_windows: int, metrics: Container[Metric]) -> Measuring:
        """Return protocols that end at a relative standard error, or after so many windows, for these metrics.

        Raises: ConfigError for values that no protocol takes.
        """
        energy, latency = (
            replace(usual, tolerance=tolerance, max_windows=max(max_windows, usual.min_windows))
            if metric in metrics
            else usual
            for metric, usual in (
                (Metric.ENERGY, ENERGY_PROTOCOL),
                (Metric.LATENCY, LATENCY_PROTOCOL),
            )
        )
        return Measuring(energy, latency)


def measuring_of(result: Mapping[str, object], source: Path) -> Measuring:
    """Return how a run is measured, from its result.

    Raises: ArtifactError when what result.json says of it is no protocol.
    """
    fit = result.get("fit_budget")
    if fit is None:
        return Measuring()
    values = fit if isinstance(fit, dict) else {}
    windows = number(values.get("max_windows"), "max_windows", source)
    tolerance = number(values.get("tolerance"), "tolerance", source)
    try:
        metrics = {bound.metric for bound in bounds_of(result, source)}
        return Measuring.to(tolerance, min(int(windows), MAX_WINDOWS), metrics)
    except ConfigError as error:
        raise ArtifactError(
            f"{source} is damaged: {error}; run edgeecc export --fit-budget again"
        ) from error


def measure_costs(folder: RunFolder, result: Mapping[str, object], model: onnx.ModelProto) -> Costs:
    """Measure a network of a run as its budgets ask: once, as on a device each measurement may cost a build."""
    source = folder.file("result.json")
    measuring, device = measuring_of(result, source), energy_device(bounds_of(result, source))
    energy = measure_energy(model, device, measuring.energy, folder, events=True)
    return Costs(energy, measure_latency(model, measuring.latency))


def measure_energy(
    model: onnx.ModelProto,
    device: str,
    protocol: MeasureProtocol = Measuring.energy,
    folder: Optional[RunFolder] = None,
    *,
    events: bool = False,
) -> Optional[Measurement]:
    """Return the energy of one inference by the device's meter, or None where it has none here.

    Args:
        model: the network.
        device: its name.
        protocol: how it is measured.
        folder: of the run, which says how its engines are built and kept; None keeps none.
        events: times single inferences too, where the device has a clock.
    """
    if not device.startswith("virtual:"):
        return _measured_here(model, device, protocol, folder, events=events)
    virtual = VirtualDevice.named(device)
    virtual.load(work_of(model))
    return measure(virtual.run, virtual, protocol)


def _measured_here(
    model: onnx.ModelProto,
    device: str,
    protocol: MeasureProtocol,
    folder: Optional[RunFolder],
    *,
    events: bool,
) -> Optional[Measurement]:
    """Return what a device that is there measures, None where this machine is another, or it is no board."""
    try:
        name = parse_device(device)
    except ConfigError:  # such as an array whose energy is counted
        return None
    if not name.runtime or name.metric is not Metric.ENERGY:
        return None
    try:
        engines = None if folder is None else run_engines(folder, name)
        with open_target(name, engines) as target:
            return measure_graph(model, target, protocol, events=events)
    except RuntimeUnavailableError as error:
        logger.warning("the energy is not measured here: %s", error)
        return None


def measure_latency(
    model: onnx.ModelProto, protocol: MeasureProtocol = Measuring.latency
) -> Measurement:
    """Return the measured latency of one inference in ONNX Runtime on this machine's CPU."""
    with OnnxRuntime(model) as runtime:
        return measure(runtime.run, ClockMeter(runtime.name), protocol)


def zeros_energy(model: onnx.ModelProto, spec: NetworkSpec, array: Hardware) -> List[LayerEnergy]:
    """Return the exact energy of every layer with the zeros that the weights and input masks of a graph have.

    Raises: ArtifactError when a layer's weight is not in the graph.
    """
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    shapes = shapes_of(spec)
    weights, masks = {}, {}
    for shape in shapes:
        weights[shape.name] = _weight(arrays, shape) != 0
        mask = arrays.get(f"{shape.name}.input_mask")
        if mask is not None:
            masks[shape.name] = numpy_helper.to_array(mask) != 0
    return network_energy(shapes, array, weights=weights, masks=masks)


def pattern_holds(model: onnx.ModelProto, spec: NetworkSpec, pattern: Pattern) -> Dict[str, bool]:
    """Return layer name -> whether the weights of a graph have a pattern, for every layer to which it applies.

    Raises: ArtifactError when such a layer's weight is not in the graph.
    """
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    return {
        shape.name: pattern.holds(_weight(arrays, shape))
        for shape in shapes_of(spec)
        if shape.can_have(pattern)
    }


def array_of(result: Mapping[str, object], source: Path) -> Hardware:
    """Return the hardware that a run was priced on, from its result.

    Raises: ArtifactError when result.json names none.
    """
    values = result.get("hardware")
    if not isinstance(values, dict) or not isinstance(values.get("name"), str):
        raise ArtifactError(f"{source} names no hardware; run edgeecc prune again")
    numbers = {name: value for name, value in values.items() if name != "name"}
    return from_values(values["name"], numbers, str(source))


def _measured(energy: Optional[Measurement], latency: Measurement) -> Dict[Metric, Found]:
    """Return what was measured, and by which meter; None for energy where it cannot be told here."""
    joules = None if energy is None or energy.energy_j is None else (energy.energy_j, energy.meter)
    return {Metric.ENERGY: joules, Metric.LATENCY: (latency.latency_s, latency.meter)}


def _events(energy: Optional[Measurement]) -> Dict[str, object]:
    """Return the times of single inferences on the device that the energy is of, where it tells them."""
    if energy is None or energy.device_times is None:
        return {}
    told = energy.device_times.to_json(energy.latency_s)
    return {"latency_events_s": {**told, "meter": energy.meter}}


def _pattern_verdict(
    folder: RunFolder, result: Mapping[str, object], model: onnx.ModelProto
) -> Optional[Dict[str, object]]:
    """Return how many layers the pattern applies to, and whether all of them have it in the file."""
    pattern = pattern_of(result, folder.file("result.json"))
    if pattern is None:
        return None
    found = pattern_holds(model, folder.read_spec(), pattern)
    broken = [name for name, holds in found.items() if not holds]
    return {"text": pattern.text, "layers": len(found), "holds": not broken, "broken": broken}


def _weight(arrays: Mapping[str, onnx.TensorProto], shape: Shape) -> Array:
    tensor = arrays.get(f"{shape.name}.weight")
    if tensor is None or tuple(tensor.dims) != shape.weight_shape:
        raise ArtifactError(
            f"slim.onnx has no weight of {shape.name} of shape {shape.weight_shape}; run edgeecc export again"
        )
    return numpy_helper.to_array(tensor)


def _counted(
    folder: RunFolder, metric: Metric, result: Mapping[str, object], model: onnx.ModelProto
) -> Tuple[float, str]:  # fmt: skip
    """Return a cost that needs no device, and how it was found."""
    spec = folder.read_spec()
    if metric is Metric.ACCESSES:
        array = array_of(result, folder.file("result.json"))
        return sum(layer.total for layer in zeros_energy(model, spec, array)), array.meter
    widths = {name: len(units) for name, units in folder.read_keep(spec).items()}
    cost = mac_cost(spec) if metric is Metric.MACS else size_cost(spec)
    return cost.predict(spec.vector(widths)), cost.meter
