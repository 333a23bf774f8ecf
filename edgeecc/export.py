"""Export a pruned run: slim physically, write ONNX, prove that nothing changed, verify against the budget."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping

import numpy as np
import onnx
from torch import nn

from edgeecc.artifacts import read_json, write_bytes, write_json, write_tensors
from edgeecc.check_set import CheckSet, compare, scored, write_check
from edgeecc.config import VerifyConfig
from edgeecc.cost.exact import parameter_count, size_cost
from edgeecc.export_parts import (
    agree,
    data_of,
    mac_count,
    make_check,
    network_of,
    outputs,
    range_images,
)
from edgeecc.graph.onnx_slice import SlicePlan
from edgeecc.graph.spec import IntArray, NetworkSpec, Widths
from edgeecc.graph.surgery import slim
from edgeecc.graph.to_onnx import to_onnx
from edgeecc.own_code import check_own_code
from edgeecc.progress import OnProgress, silent
from edgeecc.run_engines import write_ranges
from edgeecc.run_folder import REPORT_SCHEMA, RESULT_SCHEMA, RunFolder
from edgeecc.run_profiles import METERED, Measured, Seen, corrections, measured_value
from edgeecc.run_request import tensors_of
from edgeecc.runtimes.onnxrt import OnnxRuntime
from edgeecc.sources import NetworkSource
from edgeecc.telling import staged
from edgeecc.training.tasks import make_task
from edgeecc.units import Metric
from edgeecc.verdict import bounds_of, energy_device
from edgeecc.verify import Costs, measure_costs, measure_latency, measuring_of, verify_locked

#: Parts of an export that progress tells.
STAGES = 7


def export(
    folder: RunFolder,
    config: VerifyConfig = VerifyConfig(),  # noqa: B008  # frozen
    on_progress: OnProgress = silent,
) -> Dict[str, Any]:
    """Slim, write slim.onnx, verify; returns what `edgeecc export --json` prints.

    Three networks must agree on real images: the masked torch network, the slim torch network, and the slim
    ONNX graph; and cutting the masked ONNX graph by the spec must give the same function as exporting the slim
    torch network.

    Raises: ArtifactError when the run is not finished; GraphError when the networks do not agree.
    """
    with folder.locked():
        folder.check_settled()
        folder.tidy()
        return export_locked(folder, config, on_progress)


def export_locked(
    folder: RunFolder, config: VerifyConfig, on_progress: OnProgress = silent
) -> Dict[str, Any]:
    """Export a run whose lock is held; see `export`."""
    tell = staged(on_progress, STAGES)
    tell("removing channels")
    run, spec = folder.read_finished(), folder.read_spec()
    check_own_code(folder, run)
    source = NetworkSource.from_json(run.get("source"), folder.path)
    keep = folder.read_keep(spec)
    dense, masked = network_of(folder, source, "dense"), network_of(folder, source, "masked")
    small = slim(masked, spec, keep).eval()
    data = data_of(run, source)
    check = make_check(data, masked, config)
    seen = check.images[: len(check.reference)]
    found = outputs(small, seen, make_task(check.task, check.classes))
    agree("the slim torch network", found, check.reference, config)
    graphs = {}
    for name, model in (("dense", dense), ("masked", masked), ("slim", small)):
        tell(f"{name}.onnx")
        graphs[name] = to_onnx(model, source.example())
    tell("comparing the graphs")
    _check_cut(graphs, spec, keep, images=seen[:16], config=config)
    _write(folder, small, graphs)
    write_check(folder, check)
    write_ranges(folder, range_images(data, config))
    tell("measuring the dense and the slim network")
    costs = _measured(folder, graphs)
    tell("scoring them")
    verified = verify_locked(folder, config, costs["slim"])
    scores = _scores(graphs, check, verified)
    corrected = _report(folder, spec, keep, costs=costs, scores=scores, verified=verified)
    return {
        "onnx": str(folder.file("slim.onnx")),
        "engine": None,
        "verify": verified,
        "correction": corrected,
    }


def _check_cut(
    graphs: Mapping[str, onnx.ModelProto],
    spec: NetworkSpec,
    keep: Mapping[str, IntArray],
    *,
    images: np.typing.NDArray[np.float32],
    config: VerifyConfig,
) -> None:
    cut = SlicePlan.build(graphs["masked"], spec).cut(keep)
    with OnnxRuntime(cut) as one, OnnxRuntime(graphs["slim"]) as other:
        for image in images:
            agree(
                "the cut ONNX graph",
                one.infer([image[None]])[0],
                other.infer([image[None]])[0],
                config,
            )


def _write(folder: RunFolder, small: nn.Module, graphs: Mapping[str, onnx.ModelProto]) -> None:
    write_tensors(folder.file("slim.safetensors"), tensors_of(small), {})
    for name, graph in graphs.items():
        write_bytes(folder.file(f"{name}.onnx"), graph.SerializeToString())


def _measured(folder: RunFolder, graphs: Mapping[str, onnx.ModelProto]) -> Dict[str, Costs]:
    """Measure each network once.

    The masked one costs what the dense one does: on a device that is there its energy is not measured.
    """
    source = folder.file("result.json")
    result = read_json(source, RESULT_SCHEMA)
    found = {name: measure_costs(folder, result, graphs[name]) for name in ("dense", "slim")}
    if energy_device(bounds_of(result, source)).startswith("virtual:"):
        found["masked"] = measure_costs(folder, result, graphs["masked"])
    else:
        latency = measure_latency(graphs["masked"], measuring_of(result, source).latency)
        found["masked"] = Costs(None, latency)
    return found


def _scores(
    graphs: Mapping[str, onnx.ModelProto], check: CheckSet, verified: Mapping[str, object]
) -> Dict[str, Dict[str, object]]:
    """Return how each network scores; the slim one was scored when it was verified."""
    found: Dict[str, Dict[str, object]] = {
        name: {**scored(check.task, compare(graphs[name], check)[0]), "images": len(check.images)}
        for name in ("dense", "masked")
    }
    found["slim"] = {name: verified[name] for name in found["dense"]}
    return found


def _report(
    folder: RunFolder,
    spec: NetworkSpec,
    keep: Mapping[str, IntArray],
    *,
    costs: Mapping[str, Costs],
    scores: Mapping[str, Mapping[str, object]],
    verified: Mapping[str, object],
) -> List[Dict[str, object]]:
    """Write report.json: the request, the result, and dense, masked and slim side by side.

    Returns: what dense and slim network make of the run's profiles, see `run_profiles.corrections`.
    """
    result = read_json(folder.file("result.json"), RESULT_SCHEMA)
    bounds = bounds_of(result, folder.file("result.json"))
    kept = {group: len(units) for group, units in keep.items()}
    widths = {"dense": spec.dense_widths(), "masked": spec.dense_widths(), "slim": kept}
    rows = [
        {"network": name, **scores[name], **_costs_told(costs[name]), **_counts(spec, at)}
        for name, at in widths.items()
    ]
    seen = [Seen(widths[name], _metered(costs[name])) for name in ("dense", "slim")]
    corrected = corrections(folder, spec, bounds, seen)
    result.pop("schema"), result.pop("made_by")
    write_json(
        folder.file("report.json"),
        REPORT_SCHEMA,
        {"result": result, "verify": verified, "networks": rows, "correction": corrected},
    )
    return corrected


def _costs_told(costs: Costs) -> Dict[str, object]:
    energy, latency = costs.energy, costs.latency
    return {
        "energy_j": energy.energy_j if energy else None,
        "energy_se_j": energy.energy_error_j if energy else None,
        "meter": energy.meter if energy else None,
        "latency_s": latency.latency_s,
        "latency_se_s": latency.latency_se_s,
        "latency_iqr_s": latency.latency_iqr_s,
        "latency_meter": latency.meter,
    }


def _counts(spec: NetworkSpec, widths: Widths) -> Dict[str, object]:
    return {
        "params": parameter_count(spec, widths),
        "macs": mac_count(spec, widths),
        "size_b": size_cost(spec).predict(spec.vector(widths)),
    }


def _metered(costs: Costs) -> Dict[Metric, Measured]:
    """Return what was measured, by metric; without what no meter told."""
    found = {m: measured_value(m, f) for m, f in zip(METERED, (costs.energy, costs.latency))}
    return {metric: value for metric, value in found.items() if value is not None}
