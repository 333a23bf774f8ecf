"""From what the user names to a calibration: a network to trace, or a folder with its spec and dense graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional, Tuple

import onnx

from edgeecc.artifacts import write_bytes, write_json
from edgeecc.calibrate import Job, OnSample, calibrate, check_measurable
from edgeecc.calibration_folder import folder_name, network_folder
from edgeecc.config import CalibrateConfig, MeasureProtocol
from edgeecc.cost.profile import Profile
from edgeecc.errors import ConfigError
from edgeecc.graph.onnx_slice import load_model
from edgeecc.graph.spec import NetworkSpec
from edgeecc.run_folder import SPEC_SCHEMA, read_spec_file


@dataclass(frozen=True)
class Request:
    """What to calibrate.

    Args:
        network, input_shape, paper_groups: see `edgeecc.sources.open_network`; needs the host extra.
        graph: folder with spec.json and dense.onnx, in place of a network; needs no torch.
        device: device name.
        workspace: folder that holds calibration/.
        like: profile of the network on another device, to be warmed up by.
    """

    network: Optional[str]
    input_shape: Optional[Tuple[int, ...]]
    graph: Optional[Path]
    device: str
    workspace: Path
    paper_groups: bool = False
    like: Optional[Path] = None


def run(
    request: Request, config: CalibrateConfig, protocol: MeasureProtocol, on_sample: OnSample
) -> Dict[str, object]:  # fmt: skip
    """Calibrate as asked; see `edgeecc.calibrate.calibrate`.

    Beside the samples it leaves spec.json and dense.onnx, so that the same calibration can be done on a board.
    """
    check_measurable(request.device)
    if (request.network is None) == (request.graph is None):
        raise ConfigError(
            "name what to calibrate: either --network, or --graph with a traced network's folder"
        )
    if request.graph is not None:
        spec = read_spec_file(request.graph / "spec.json")
        model = load_model(request.graph / "dense.onnx")
        name = folder_name(spec.network)  # the file may come from anywhere
    else:
        spec, model, name = _traced(request)
    folder = network_folder(request.workspace, request.device, name)
    if request.graph is None:
        write_json(folder / "spec.json", SPEC_SCHEMA, {"spec": spec.to_json()})
        write_bytes(folder / "dense.onnx", model.SerializeToString())
    like = None if request.like is None else Profile.load(request.like)
    return calibrate(Job(spec, model, request.device, folder), config, protocol, on_sample, like)


def _traced(request: Request) -> Tuple[NetworkSpec, onnx.ModelProto, str]:
    from edgeecc.sources import open_network, trace_source

    model, source = open_network(
        request.network, request.input_shape, None, paper_groups=request.paper_groups
    )
    traced = trace_source(model, source)
    return traced.spec, traced.graph, source.folder
