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
from edgeecc.errors import ArtifactError
from edgeecc.export_parts import (
    agree,
    mac_count,
    make_check,
    network_of,
    outputs,
)
from edgeecc.graph.onnx_slice import SlicePlan
from edgeecc.graph.spec import IntArray, NetworkSpec
from edgeecc.graph.surgery import slim
from edgeecc.graph.to_onnx import to_onnx
from edgeecc.run_folder import FIT_SCHEMA, FIT_STATE, REPORT_SCHEMA, RESULT_SCHEMA, RunFolder
from edgeecc.run_profiles import METERED, Seen, corrections, measured_value
from edgeecc.run_request import tensors_of
from edgeecc.runtimes.onnxrt import OnnxRuntime
from edgeecc.sources import NetworkSource
from edgeecc.training.tasks import make_task
from edgeecc.verdict import bounds_of, energy_device
from edgeecc.verify import measure_energy, measure_latency, measuring_of, verify_locked


def export(folder: RunFolder, config: VerifyConfig = VerifyConfig()) -> Dict[str, Any]:  # noqa: B008  # frozen
    """Slim, write slim.onnx, verify; returns what `edgeecc export --json` prints.

    Three networks must agree on real images: the masked torch network, the slim torch network, and the slim
    ONNX graph; and cutting the masked ONNX graph by the spec must give the same function as exporting the slim
    torch network.

    Raises: ArtifactError when the run is not finished; GraphError when the networks do not agree.
    """
    with folder.locked():
        if is_staged(folder):
            raise ArtifactError(
                f"{folder.path} is being fitted to its budget; give edgeecc export --fit-budget again to go on"
            )
        return export_locked(folder, config)


def is_staged(folder: RunFolder) -> bool:
    """Return whether --fit-budget was interrupted while it replaced the run's files."""
    state = folder.file(FIT_STATE)
    return state.is_file() and read_json(state, FIT_SCHEMA).get("result") is not None


def export_locked(folder: RunFolder, config: VerifyConfig) -> Dict[str, Any]:
    """Export a run whose lock is held; see `export`."""
    run, spec = folder.read_finished(), folder.read_spec()
    source = NetworkSource.from_json(run.get("source"), folder.path)
    keep = folder.read_keep(spec)
    dense, masked = network_of(folder, source, "dense"), network_of(folder, source, "masked")
    small = slim(masked, spec, keep).eval()
    check = make_check(run, source, masked, config)
    task = make_task(check.task, check.classes)
    seen = check.images[: len(check.reference)]
    agree("the slim torch network", outputs(small, seen, task), check.reference, config)
    graphs = {
        "dense": to_onnx(dense, source.example()),
        "masked": to_onnx(masked, source.example()),
    }
    graphs["slim"] = to_onnx(small, source.example())
    _check_cut(graphs, spec, keep, images=seen[:16], config=config)
    _write(folder, small, graphs)
    write_check(folder, check)
    verified = verify_locked(folder, config)
    corrected = _report(folder, spec, keep, graphs=graphs, check=check, verified=verified)
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


def _report(
    folder: RunFolder,
    spec: NetworkSpec,
    keep: Mapping[str, IntArray],
    *,
    graphs: Mapping[str, onnx.ModelProto],
    check: CheckSet,
    verified: Mapping[str, object],
) -> List[Dict[str, object]]:
    """Write report.json: the request, the result, and dense, masked and slim side by side.

    Returns: what dense and slim network make of the run's profiles, see `run_profiles.corrections`.
    """
    result = read_json(folder.file("result.json"), RESULT_SCHEMA)
    bounds = bounds_of(result, folder.file("result.json"))
    measuring = measuring_of(result, folder.file("result.json"))
    rows: List[Dict[str, object]] = []
    seen: List[Seen] = []
    for name, graph in graphs.items():
        energy = measure_energy(graph, energy_device(bounds), measuring.energy)
        latency = measure_latency(graph, measuring.latency)
        scores, _ = compare(graph, check)
        widths = (
            {g: len(units) for g, units in keep.items()} if name == "slim" else spec.dense_widths()
        )
        if name != "masked":  # which costs what the dense one does
            found = {m: measured_value(m, f) for m, f in zip(METERED, (energy, latency))}
            seen.append(Seen(widths, {m: value for m, value in found.items() if value is not None}))
        rows.append(
            {
                "network": name,
                **scored(check.task, scores),
                "images": len(check.images),
                "energy_j": energy.energy_j if energy else None,
                "energy_se_j": energy.energy_error_j if energy else None,
                "meter": energy.meter if energy else None,
                "latency_s": latency.latency_s,
                "latency_se_s": latency.latency_se_s,
                "latency_iqr_s": latency.latency_iqr_s,
                "latency_meter": latency.meter,
                "params": parameter_count(spec, widths),
                "macs": mac_count(spec, widths),
                "size_b": size_cost(spec).predict(spec.vector(widths)),
            }
        )
    corrected = corrections(folder, spec, bounds, seen)
    result.pop("schema"), result.pop("made_by")
    write_json(
        folder.file("report.json"),
        REPORT_SCHEMA,
        {"result": result, "verify": verified, "networks": rows, "correction": corrected},
    )
    return corrected
