"""`edgeecc report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import click

from edgeecc.cli.completing import network_names
from edgeecc.cli.options import device_option, json_option, workspace_option
from edgeecc.cli.output import ProgressLine, emit_json
from edgeecc.config import ReportConfig

_CONFIG = ReportConfig()


@click.command(short_help="Draw what a calibration found.")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--network",
    shell_complete=network_names,
    help="Name of the calibrated network, in place of FOLDER.",
)
@device_option("virtual:tx2")
@workspace_option
@click.option(
    "--like",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PROFILE",
    help="Profile that the calibration was fitted towards, where it was given one.",
)
@click.option(
    "--resamples",
    type=int,
    default=_CONFIG.resamples,
    show_default=True,
    help="Fits to resampled samples, for the intervals of coefficients.",
)
@click.option(
    "--seed", type=int, default=_CONFIG.seed, show_default=True, help="Seed of the resampling."
)
@json_option
@click.pass_context
def report(ctx: click.Context, /, as_json: bool, **options: Any) -> None:
    """Draw what a calibration found, as one HTML page and PNG charts.

    Predicted against measured, error against number of samples, and what each layer costs, with intervals. FOLDER is
    calibration/DEVICE/NETWORK, or is found by --network and --device; the page is FOLDER/report/report.html. Needs no
    torch, but matplotlib: pip install 'edgeecc[report]'

    \b
    Examples:
      edgeecc report calibration/virtual-tx2/mobilenet_v1
      edgeecc report --network lenet5 --device onnxruntime:cpu
    """  # noqa: D301  # \b keeps click from wrapping
    from edgeecc.report import job

    config = ReportConfig(resamples=options["resamples"], seed=options["seed"])
    folder: Optional[Path] = options["folder"]
    found = job.find_folder(folder, options["network"], options["device"], options["workspace"])
    request = job.Request(found, options["like"])
    with ProgressLine("report", quiet=ctx.obj["quiet"]) as line:
        result = job.run(request, config, on_fit=line.update)
    if as_json:
        emit_json(result)
        return
    click.echo(result["report"])
