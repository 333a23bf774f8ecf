"""Export a run that removed single weights: ONNX with the zeros in it, compressed weights, verified."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Dict, List, Mapping

import numpy as np
import onnx
from onnx import numpy_helper
from torch import nn

from edgeecc.artifacts import Tensors, read_json, write_bytes, write_json, write_tensors
from edgeecc.check_set import write_check
from edgeecc.compressed import pack
from edgeecc.config import VerifyConfig
from edgeecc.cost.exact import parameter_count
from edgeecc.cost.systolic import LayerEnergy
from edgeecc.export_parts import data_of, make_check, network_of, range_images
from edgeecc.graph.input_mask import NAME, input_masks
from edgeecc.graph.spec import NetworkSpec
from edgeecc.graph.to_onnx import to_onnx
from edgeecc.own_code import check_own_code
from edgeecc.pattern import pattern_of
from edgeecc.progress import OnProgress, silent
from edgeecc.run_engines import write_ranges
from edgeecc.run_folder import REPORT_SCHEMA, RESULT_SCHEMA, RunFolder
from edgeecc.run_request import tensors_of
from edgeecc.sources import NetworkSource
from edgeecc.telling import staged
from edgeecc.verify import array_of, pattern_holds, verify_locked, zeros_energy


def export_weights(
    folder: RunFolder,
    config: VerifyConfig = VerifyConfig(),  # noqa: B008  # frozen
    on_progress: OnProgress = silent,
) -> Dict[str, Any]:
    """Write slim.onnx (dense shapes, zeros in the weights) and sparse.safetensors, verify, report by layer.

    Returns: what `edgeecc export --json` prints.
    Raises: ArtifactError when the run is not finished.
    """
    tell = staged(on_progress, 2)
    with folder.locked():
        folder.tidy()
        tell("slim.onnx")
        run, spec = folder.read_finished(), folder.read_spec()
        check_own_code(folder, run)
        source = NetworkSource.from_json(run.get("source"), folder.path)
        masked = network_of(folder, source, "masked")
        data = data_of(run, source)
        check = make_check(data, masked, config)
        graph = to_onnx(masked, source.example())
        write_tensors(folder.file("sparse.safetensors"), *pack(_stored(masked)))
        write_bytes(folder.file("slim.onnx"), graph.SerializeToString())
        write_check(folder, check)
        write_ranges(folder, range_images(data, config))
        tell("scoring and measuring slim.onnx")
        verified = verify_locked(folder, config)
        _report(folder, spec, graph, verified)
    return {
        "onnx": str(folder.file("slim.onnx")),
        "weights": str(folder.file("sparse.safetensors")),
        "engine": None,
        "verify": verified,
    }


def _stored(model: nn.Module) -> Tensors:
    """Return the state dict, in which a mask is true or false."""
    masks = {f"{name}.{NAME}" for name in input_masks(model)}
    return {
        name: value != 0 if name in masks else value for name, value in tensors_of(model).items()
    }


def _report(
    folder: RunFolder, spec: NetworkSpec, graph: onnx.ModelProto, verified: Mapping[str, object]
) -> None:
    """Write report.json: the request, the verdict, and every layer's densities, pattern and energy by level."""
    result = read_json(folder.file("result.json"), RESULT_SCHEMA)
    array = array_of(result, folder.file("result.json"))
    arrays = {tensor.name: tensor for tensor in graph.graph.initializer}
    pattern = pattern_of(result, folder.file("result.json"))
    found = {} if pattern is None else pattern_holds(graph, spec, pattern)
    layers: List[Dict[str, object]] = []
    for energy in zeros_energy(graph, spec, array):
        weight = numpy_helper.to_array(arrays[f"{energy.name}.weight"])
        row = _row(energy, float(np.count_nonzero(weight) / weight.size))
        row["pattern"] = pattern.text if pattern is not None and found.get(energy.name) else None
        mask = arrays.get(f"{energy.name}.{NAME}")
        kept = None if mask is None else float(np.mean(numpy_helper.to_array(mask) != 0))
        row["mask_density"] = kept
        layers.append(row)
    result.pop("schema"), result.pop("made_by")
    body = {
        "result": result,
        "verify": verified,
        "params": parameter_count(spec, spec.dense_widths()),
        "layers": layers,
    }
    write_json(folder.file("report.json"), REPORT_SCHEMA, body)


def _row(energy: LayerEnergy, density: float) -> Dict[str, object]:
    return {**asdict(energy), "density": density, "total": energy.total, "levels": energy.levels()}
