"""`edgeecc report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import click
from click.core import ParameterSource

from edgeecc.cli.completing import network_names, run_folders
from edgeecc.cli.options import device_option, json_option, workspace_option
from edgeecc.cli.output import emit_json
from edgeecc.cli.progress import ProgressDisplay
from edgeecc.config import ReportConfig

_CONFIG = ReportConfig()
#: Options of calibrations alone.
_OF_CALIBRATIONS = ("like", "resamples", "seed")


@click.command(short_help="Write the report of a run, or of a calibration, as a page.")
@click.argument(
    "folder", required=False, type=click.Path(path_type=Path), shell_complete=run_folders
)
@click.option(
    "--network",
    shell_complete=network_names,
    help="Report on the calibration of this network, in place of FOLDER.",
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
    help="Of a calibration: fits to resampled samples, for the intervals of coefficients.",
)
@click.option(
    "--seed",
    type=int,
    default=_CONFIG.seed,
    show_default=True,
    help="Of a calibration: seed of the resampling.",
)
@json_option
@click.pass_context
def report(ctx: click.Context, /, as_json: bool, **options: Any) -> None:
    """Write FOLDER/report.html: one page with its charts inside, for any browser, without network and scripts.

    FOLDER is a run, such as runs/NAME, whose page tells what was asked and reached, widths and costs by layer, why the
    cost fell less than the MACs, the course of the solver, and how to make it again; or a calibration, such as
    calibration/DEVICE/NETWORK, also found by --network and --device. Without either it is the latest run of the
    workspace. Needs no torch, but matplotlib: pip install 'edgeecc[report]'

    \b
    Examples:
      edgeecc report
      edgeecc report runs/mobilenet_v1-ecc-0.025J
      edgeecc report calibration/virtual-tx2/mobilenet_v1
      edgeecc report --network lenet5 --device onnxruntime:cpu
    """  # noqa: D301  # \b keeps click from wrapping
    from edgeecc.report import job, run_job
    from edgeecc.run_folder import RunFolder

    folder: Optional[Path] = options["folder"]
    found = job.find_folder(folder, options["network"], options["device"], options["workspace"])
    if options["network"] is None and job.is_run(found):
        _refuse(ctx)
        result = run_job.run(RunFolder(found), options["workspace"])
    else:
        config = ReportConfig(resamples=options["resamples"], seed=options["seed"])
        with ProgressDisplay(quiet=ctx.obj["quiet"]) as show:
            result = job.run(job.Request(found, options["like"]), config, show)
    if as_json:
        emit_json(result)
        return
    click.echo(result["report"])


def _refuse(ctx: click.Context) -> None:
    for name in _OF_CALIBRATIONS:
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} goes with calibrations; leave it out for a run")
