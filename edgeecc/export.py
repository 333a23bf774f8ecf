"""Export a pruned run: slim physically, write ONNX, prove that nothing changed, verify against the budget."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, Tuple

import numpy as np
import onnx
import torch
from torch import nn

from edgeecc.artifacts import read_json, read_tensors, write_bytes, write_json, write_tensors
from edgeecc.config import VerifyConfig
from edgeecc.data.sources import load as load_data
from edgeecc.data.splits import Split
from edgeecc.errors import ArtifactError, GraphError
from edgeecc.graph.onnx_slice import SlicePlan
from edgeecc.graph.spec import IntArray, NetworkSpec
from edgeecc.graph.surgery import slim
from edgeecc.graph.to_onnx import to_onnx
from edgeecc.networks.weights import load_into
from edgeecc.prune import tensors_of
from edgeecc.run_folder import REPORT_SCHEMA, RESULT_SCHEMA, RunFolder
from edgeecc.runtimes.onnxrt import OnnxRuntime
from edgeecc.sources import NetworkSource
from edgeecc.verify import compare, measure_energy, measure_latency, sha256, verify_locked


def export(folder: RunFolder, config: VerifyConfig = VerifyConfig()) -> Dict[str, Any]:  # noqa: B008  # frozen
    """Slim, write slim.onnx, verify; returns what `edgeecc export --json` prints.

    Three networks must agree on real images: the masked torch network, the slim torch network, and the slim
    ONNX graph; and cutting the masked ONNX graph by the spec must give the same function as exporting the slim
    torch network.

    Raises: ArtifactError when the run is not finished; GraphError when the networks do not agree.
    """
    with folder.locked():
        run, spec = folder.read_run(), folder.read_spec()
        if not folder.has("result.json"):
            raise ArtifactError(
                f"{folder.path} is not finished; give the edgeecc prune command again to go on"
            )
        source = NetworkSource.from_json(run.get("source"))
        keep = folder.read_keep(spec)
        dense, masked = _network(folder, source, "dense"), _network(folder, source, "masked")
        small = slim(masked, spec, keep).eval()
        images, labels = _check_images(run, source, config)
        reference = _outputs(masked, images)
        _agree("the slim torch network", _outputs(small, images), reference, config)
        graphs = {
            "dense": to_onnx(dense, source.example()),
            "masked": to_onnx(masked, source.example()),
        }
        graphs["slim"] = to_onnx(small, source.example())
        _check_cut(graphs, spec, keep, images=images[:16], config=config)
        _write(folder, small, graphs)
        write_tensors(
            folder.file("check.safetensors"),
            {"input": images, "label": labels, "reference": reference},
            {"slim_sha256": sha256(folder.file("slim.onnx").read_bytes())},
        )
        verified = verify_locked(folder, config)
        result: Dict[str, Any] = {
            "onnx": str(folder.file("slim.onnx")),
            "engine": None,
            "verify": verified,
        }
        _report(folder, spec, keep, graphs=graphs, verified=verified)
    return result


def _network(folder: RunFolder, source: NetworkSource, which: str) -> nn.Module:
    arrays, _ = read_tensors(folder.file(f"{which}.safetensors"))
    model = source.build()
    load_into(model, {name: torch.from_numpy(value.copy()) for name, value in arrays.items()})
    return model.eval()


def _check_images(
    run: Mapping[str, object], source: NetworkSource, config: VerifyConfig
) -> Tuple[np.typing.NDArray[np.float32], IntArray]:  # fmt: skip
    """Return validation images and labels, evenly from the whole split, at most `check_bytes` of them."""
    request = run.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("data"), str):
        raise ArtifactError("run.json names no data set; run edgeecc prune again")
    split: Split = load_data(request["data"], input_shape=source.input_shape).val
    most = max(1, config.check_bytes // (4 * math.prod(source.input_shape)))
    places = np.unique(np.linspace(0, len(split) - 1, min(len(split), most)).astype(np.int64))
    images, labels = split.take(places.tolist())
    return images.numpy(), labels.numpy()


def _outputs(
    model: nn.Module, images: np.typing.NDArray[np.float32]
) -> np.typing.NDArray[np.float32]:
    with torch.no_grad():
        parts = [
            model(torch.from_numpy(images[start : start + 256]))
            for start in range(0, len(images), 256)
        ]
    return torch.cat(parts).numpy()


def _agree(
    what: str, found: np.typing.NDArray[np.float32], expected: np.typing.NDArray[np.float32], config: VerifyConfig
) -> None:  # fmt: skip
    error = float(np.abs(found - expected).max()) if found.shape == expected.shape else math.inf
    if not error <= config.max_abs_error:
        raise GraphError(
            f"{what} differs from the masked one by {error:.3g}; nothing was exported, report the network"
        )


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
            _agree(
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
    verified: Mapping[str, object],
) -> None:
    """Write report.json: the request, the result, and dense, masked and slim side by side."""
    result = read_json(folder.file("result.json"), RESULT_SCHEMA)
    check, _ = read_tensors(folder.file("check.safetensors"))
    device = str(result.get("device", ""))
    rows: List[Dict[str, object]] = []
    for name, graph in graphs.items():
        energy, latency = measure_energy(graph, device), measure_latency(graph)
        accuracy, _, images = compare(graph, check)
        widths = (
            {g: len(units) for g, units in keep.items()} if name == "slim" else spec.dense_widths()
        )
        rows.append(
            {
                "network": name,
                "accuracy": accuracy,
                "images": images,
                "energy_j": energy.energy_j if energy else None,
                "meter": energy.meter if energy else None,
                "latency_s": latency.latency_s,
                "latency_meter": latency.meter,
                "params": parameter_count(spec, widths),
                "macs": mac_count(spec, widths),
            }
        )
    result.pop("schema"), result.pop("made_by")
    write_json(
        folder.file("report.json"),
        REPORT_SCHEMA,
        {"result": result, "verify": verified, "networks": rows},
    )


def parameter_count(spec: NetworkSpec, widths: Mapping[str, int]) -> int:
    """Return the number of trained parameters at the given widths."""
    trained = [parameter for parameter in spec.parameters if parameter.trained]
    return sum(
        math.prod(form.at(widths) for form in spec.parameter_form(parameter))
        for parameter in trained
    )


def mac_count(spec: NetworkSpec, widths: Mapping[str, int]) -> int:
    """Return the multiply-accumulates of an inference at the given widths."""
    total = 0.0
    for layer in spec.layers:
        share = math.prod(
            form.at(widths) / form.at(spec.dense_widths()) for form in layer.factors()
        )
        total += layer.dense_macs * share
    return round(total)
