"""Report of a calibration: from its folder to FOLDER/report.html; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional

from edgeecc.artifacts import write_bytes
from edgeecc.calibration_folder import device_metric, folder_name, network_folder
from edgeecc.config import ReportConfig
from edgeecc.cost.profile import Profile
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.progress import OnProgress, Progress, silent
from edgeecc.report.calibration_charts import calibration_charts
from edgeecc.report.calibration_page import page
from edgeecc.report.evidence import read_evidence
from edgeecc.report.figures import as_json, work_out
from edgeecc.report.run_job import PAGE
from edgeecc.report.svg import check_here
from edgeecc.run_folder import RunFolder, latest_run


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
    """Return what to report on: a folder that is named, the calibration of a network, or else the latest run.

    Raises: ConfigError when folder and network are both given, or for an unknown device; ArtifactError when nothing is
        named and the workspace has no run, or the folder is neither a run's nor a calibration's.
    """
    if folder is not None and network is not None:
        raise ConfigError("both a folder and --network are given; leave one out")
    if network is not None:
        device_metric(device)
        return network_folder(workspace, device, folder_name(network))
    if folder is None:
        return latest_run(workspace).path
    if not is_run(folder) and not (folder / "profile.json").is_file():
        raise ArtifactError(
            f"{folder} holds neither run.json nor profile.json; name the folder of a run, as runs/NAME, or of a "
            "calibration, as calibration/DEVICE/NETWORK"
        )
    return folder


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a run; old runs keep a profile.json too."""
    return RunFolder(folder).has("run.json")


def run(
    request: Request,
    config: ReportConfig,
    on_progress: OnProgress = silent,
) -> Dict[str, object]:
    """Write FOLDER/report.html; nothing else of the calibration is changed.

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
    shown = calibration_charts(figures)
    out = request.folder / PAGE
    write_bytes(out, page(figures, shown).encode())
    return {"report": str(out), "charts": [chart.name for chart in shown], **as_json(figures)}
