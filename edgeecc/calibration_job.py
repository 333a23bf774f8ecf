"""From what the user names to a calibration: a network to trace, or a folder with its spec and dense graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, Optional, Tuple

import onnx

from edgeecc.bench import check_measurable
from edgeecc.calibrate import Job, calibrate
from edgeecc.calibration_folder import folder_name, network_folder
from edgeecc.config import CalibrateConfig, MeasureProtocol
from edgeecc.cost.profile import Profile
from edgeecc.errors import ConfigError
from edgeecc.fleet.board_process import Order
from edgeecc.fleet.boards import Fleet, read_fleet
from edgeecc.fleet.fleet_crew import fleet_crew
from edgeecc.graph.onnx_slice import load_model
from edgeecc.graph.spec import NetworkSpec
from edgeecc.progress import OnProgress, Progress, silent
from edgeecc.run_folder import read_spec_file


@dataclass(frozen=True)
class Request:
    """What to calibrate.

    Args:
        network, input_shape, paper_groups: see `edgeecc.sources.open_network`; needs the host extra.
        graph: folder with spec.json and dense.onnx, in place of a network; needs no torch.
        device: device name.
        workspace: folder that holds calibration/.
        like: profile of the network on another device, to be warmed up by.
        fleet: file that names the boards; None measures here.
        scheduler: address of a Dask scheduler in place of the file's.
    """

    network: Optional[str]
    input_shape: Optional[Tuple[int, ...]]
    graph: Optional[Path]
    device: str
    workspace: Path
    paper_groups: bool = False
    like: Optional[Path] = None
    fleet: Optional[Path] = None
    scheduler: Optional[str] = None


def run(
    request: Request, config: CalibrateConfig, protocol: MeasureProtocol, on_progress: OnProgress = silent
) -> Dict[str, object]:  # fmt: skip
    """Calibrate as asked; see `edgeecc.calibrate.calibrate`.

    Beside the samples it leaves spec.json, for reports, and dense.onnx of a network that was traced, so that the same
    calibration can be done on a board.
    """
    request = replace(request, device=check_measurable(request.device).text)
    if (request.network is None) == (request.graph is None):
        raise ConfigError(
            "name what to calibrate: either --network, or --graph with a traced network's folder"
        )
    fleet = _fleet(request)
    if request.graph is not None:
        spec = read_spec_file(request.graph / "spec.json")
        model = load_model(request.graph / "dense.onnx")
        name = folder_name(spec.network)  # the file may come from anywhere
    else:
        on_progress(Progress("tracing the network", note=request.network or ""))
        spec, model, name = _traced(request)
    folder = network_folder(request.workspace, request.device, name)
    like = None if request.like is None else Profile.load(request.like)
    job = Job(spec, model, request.device, folder, leaves_graph=request.graph is None)
    if fleet is None:
        return calibrate(job, config, protocol, on_progress, like=like)
    config = replace(config, reference=fleet.config.reference)
    order = _order(fleet, request.graph or folder, job, config, protocol)
    with fleet_crew(fleet.of_kind(job.device), fleet.config, spec, order) as crew:
        return calibrate(job, config, protocol, on_progress, crew=crew, like=like)


def _fleet(request: Request) -> Optional[Fleet]:
    """Return the fleet that is asked for; asked before a network is traced, which may take a minute."""
    if request.fleet is None:
        if request.scheduler is not None:
            raise ConfigError("a scheduler goes with a fleet; name its boards with --fleet")
        return None
    fleet = read_fleet(request.fleet, request.scheduler)
    fleet.of_kind(request.device)
    return fleet


def _order(
    fleet: Fleet, graph: Path, job: Job, config: CalibrateConfig, protocol: MeasureProtocol
) -> Order:
    """Return what each board is told to measure."""
    return Order(
        device=job.device,
        fingerprint=job.spec.fingerprint(),
        graph=str(graph.resolve()),
        seed=config.seed,
        tolerance=protocol.tolerance,
        window_s=protocol.window_s,
        start_s=fleet.config.start_s,
        sample_s=fleet.config.sample_s,
    )


def _traced(request: Request) -> Tuple[NetworkSpec, onnx.ModelProto, str]:
    from edgeecc.sources import open_network, trace_source

    model, source = open_network(
        request.network, request.input_shape, None, paper_groups=request.paper_groups
    )
    traced = trace_source(model, source)
    return traced.spec, traced.graph, source.folder
