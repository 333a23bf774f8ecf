"""`edgeecc`: the click group and its global options."""

from __future__ import annotations

import logging

import click

from edgeecc import __version__
from edgeecc.cli.boundary import EdgeeccGroup, refuse_job
from edgeecc.cli.calibrate import calibrate
from edgeecc.cli.compare import compare
from edgeecc.cli.completion import completion
from edgeecc.cli.config_file import DEFAULT_FILE, file_defaults
from edgeecc.cli.demo import demo
from edgeecc.cli.doctor import doctor
from edgeecc.cli.explain import explain
from edgeecc.cli.export import export, verify
from edgeecc.cli.inspection import inspect
from edgeecc.cli.measure import measure
from edgeecc.cli.networks import networks
from edgeecc.cli.progress import StderrHandler
from edgeecc.cli.prune import prune
from edgeecc.cli.report import report
from edgeecc.launch import one_voice


@click.group(
    cls=EdgeeccGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: edgeecc demo    or, for your own network: edgeecc prune --help",
)
@click.version_option(__version__, prog_name="edgeecc")
@click.option("-v", "--verbose", count=True, help="Say more on stderr; -vv for debugging.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no notes on stderr.")
@click.pass_context
def cli(ctx: click.Context, verbose: int, quiet: bool) -> None:
    """Fit a convolutional network to a hard energy budget on the device where it will run.

    \b
    calibrate  measure width variants on a device, fit the cost model
    prune      find the widths that fit the budget at the least loss of accuracy
    compare    prune by several methods, budgets and seeds under equal conditions
    export     slim physically, write ONNX, verify against the budget
    report     write the report of a run, or of a calibration, as a page with charts
    explain    show what each layer costs, and why energy fell less than MACs
    """  # noqa: D301  # \b keeps click from wrapping the list
    level = (
        logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    )
    logging.basicConfig(
        level=level, format="%(levelname)s %(name)s: %(message)s", handlers=[StderrHandler()]
    )
    ctx.obj = {"quiet": quiet}
    refuse_job(ctx)
    if DEFAULT_FILE.is_file():
        ctx.default_map = {**file_defaults(DEFAULT_FILE, cli), **(ctx.default_map or {})}


for _command in (
    doctor,
    networks,
    calibrate,
    report,
    measure,
    inspect,
    prune,
    compare,
    export,
    verify,
    explain,
    demo,
    completion,
):
    cli.add_command(_command)


def main() -> None:
    """Entry point of the console script; in a job of several processes the first one speaks."""
    with one_voice():
        cli(prog_name="edgeecc")


if __name__ == "__main__":
    main()
