"""`edgeecc`: the click group and its global options."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any, Dict

import click

from edgeecc import __version__
from edgeecc.artifacts import read_toml
from edgeecc.cli.boundary import EdgeeccGroup, one_line
from edgeecc.cli.calibrate import calibrate
from edgeecc.cli.demo import demo
from edgeecc.cli.doctor import doctor
from edgeecc.cli.export import export, verify
from edgeecc.cli.inspection import inspect
from edgeecc.cli.networks import networks
from edgeecc.cli.prune import prune
from edgeecc.errors import ArtifactError

CONFIG_FILE = Path("edgeecc.toml")


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
    export     slim physically, write ONNX, verify against the budget
    """  # noqa: D301  # \b keeps click from wrapping the list
    level = (
        logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    )
    logging.basicConfig(
        level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    ctx.obj = {"quiet": quiet}
    ctx.default_map = {**_file_defaults(CONFIG_FILE), **(ctx.default_map or {})}


def _file_defaults(path: Path) -> Dict[str, Any]:
    """Read option defaults from edgeecc.toml: one table per command, keys as the options are spelled."""
    if not path.is_file():
        return {}
    try:
        document = read_toml(path)
    except ArtifactError as error:
        raise click.UsageError(one_line(str(error))) from error
    return {
        command: _options(table) for command, table in document.items() if isinstance(table, dict)
    }


def _options(table: Dict[str, Any]) -> Dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in table.items()}


for _command in (doctor, networks, calibrate, inspect, prune, export, verify, demo):
    cli.add_command(_command)


def main() -> None:
    """Entry point of the console script."""
    cli(prog_name="edgeecc")


if __name__ == "__main__":
    main()
