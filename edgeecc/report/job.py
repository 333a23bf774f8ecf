"""Report of a calibration: from its folder to a page and charts; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional

from edgeecc.artifacts import exclusive, write_bytes
from edgeecc.calibration_folder import device_metric, folder_name, network_folder
from edgeecc.config import ReportConfig
from edgeecc.cost.profile import Profile
from edgeecc.errors import ConfigError
from edgeecc.progress import OnProgress, Progress, silent
from edgeecc.report.evidence import read_evidence
from edgeecc.report.figures import as_json, work_out
from edgeecc.report.page import page
from edgeecc.report.plots import check_here, draw


@dataclass(frozen=True)
class Request:
    """What to report on.

    Args:
        folder: of the calibration.
        like: profile that it was fitted towards, where it was.
    """

    folder: Path
    like: Optional[Path] = None


def find_folder(
    folder: Optional[Path], network: Optional[str], device: str, workspace: Path
) -> Path:
    """Return the folder of a calibration that is named by itself, or by its network and device.

    Raises: ConfigError when both are given or neither is, or for an unknown device.
    """
    if (folder is None) == (network is None):
        raise ConfigError(
            "name what to report on: either the folder of a calibration, calibration/DEVICE/NETWORK, or --network"
        )
    if folder is not None:
        return folder
    device_metric(device)
    return network_folder(workspace, device, folder_name(network or ""))


def run(
    request: Request,
    config: ReportConfig,
    on_progress: OnProgress = silent,
) -> Dict[str, object]:
    """Write FOLDER/report/report.html and its charts.

    Args:
        request, config: what is reported on, and how.
        on_progress: told of fits to resampled samples.
    Returns: what `edgeecc report --json` prints.
    Raises: RuntimeUnavailableError when matplotlib is not here; ArtifactError when a file is missing or damaged, they
        do not belong together, or the folder cannot be written; ConfigError as `figures.work_out`.
    """
    check_here()
    like = None if request.like is None else Profile.load(request.like)
    evidence = read_evidence(request.folder)
    figures = work_out(
        evidence,
        config,
        like=like,
        on_fit=lambda done, total: on_progress(
            Progress("fitting resampled samples", done, total, "fits")
        ),
    )
    on_progress(Progress("drawing"))
    charts = draw(figures)
    out = request.folder / "report"
    with exclusive(out, "wait for it"):
        for name, data in charts.items():
            write_bytes(out / name, data)
        write_bytes(out / "report.html", page(figures, charts).encode())
    paths = {"report": str(out / "report.html"), "charts": [str(out / name) for name in charts]}
    return {**paths, **as_json(figures)}
