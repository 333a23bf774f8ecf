"""`edgeecc networks`."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import click

from edgeecc.cli.options import json_option
from edgeecc.cli.output import ProgressLine, emit_json, print_table
from edgeecc.units import Metric, format_quantity


@click.command(short_help="List the networks that edgeecc knows.")
@click.argument("names", nargs=-1, metavar="[NETWORK]...")
@click.option(
    "--groups", is_flag=True, help="Trace them all and count their channel groups: a minute."
)
@json_option
@click.pass_context
def networks(ctx: click.Context, names: Tuple[str, ...], groups: bool, as_json: bool) -> None:
    """List the networks that edgeecc knows: input, dense MACs (exact count), parameters, task.

    Networks given by name are traced too, and their channel groups counted: prunable / all.

    \b
    Examples:
      edgeecc networks
      edgeecc networks resnet20 mobilenet_v2
    """  # noqa: D301  # \b keeps click from wrapping
    from edgeecc.catalogue import catalogue

    traced = groups or bool(names)
    with ProgressLine("networks", quiet=ctx.obj["quiet"] or not traced) as progress:
        entries = catalogue(names, groups=traced, on_network=progress.update)
    if as_json:
        emit_json({"networks": entries})
    else:
        _print(entries, groups=traced)


def _print(entries: List[Dict[str, Any]], *, groups: bool) -> None:
    counted = ("groups",) if groups else ()
    columns = ("network", "input", "MACs", "parameters", *counted, "task", "what it is")
    rows = [
        (
            entry["network"],
            "x".join(map(str, entry["input"])),
            format_quantity(entry["macs"], Metric.MACS),
            f"{entry['params']:,}",
            *((f"{entry['prunable_groups']} / {entry['groups']}",) if groups else ()),
            entry["task"],
            entry["about"],
        )
        for entry in entries
    ]
    print_table("networks", columns, rows)
