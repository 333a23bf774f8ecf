"""`edgeecc networks`."""

from __future__ import annotations

from typing import Any, Dict, List

import click

from edgeecc.cli.options import json_option
from edgeecc.cli.output import emit_json, print_table
from edgeecc.units import Metric, format_quantity


@click.command(short_help="List the networks that edgeecc knows.")
@json_option
def networks(as_json: bool) -> None:
    """List the networks that edgeecc knows: input, dense MACs (exact count), parameters, channel groups, task.

    Groups are prunable / all; `edgeecc inspect --network NAME` shows them one by one.

    \b
    Examples:
      edgeecc networks
      edgeecc networks --json
    """  # noqa: D301  # \b keeps click from wrapping
    from edgeecc.catalogue import catalogue

    entries = catalogue()
    if as_json:
        emit_json({"networks": entries})
    else:
        _print(entries)


def _print(entries: List[Dict[str, Any]]) -> None:
    columns = ("network", "input", "MACs", "parameters", "groups", "task", "what it is")
    rows = [
        (
            entry["network"],
            "x".join(map(str, entry["input"])),
            format_quantity(entry["macs"], Metric.MACS),
            f"{entry['params']:,}",
            f"{entry['prunable_groups']} / {entry['groups']}",
            entry["task"],
            entry["about"],
        )
        for entry in entries
    ]
    print_table("networks", columns, rows)
