"""`edgeecc inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import click

from edgeecc.cli.completing import ARRAYS
from edgeecc.cli.config_file import config_option
from edgeecc.cli.options import device_option, json_option, network_options, workspace_option
from edgeecc.cli.output import emit_json, print_table
from edgeecc.units import Metric, format_quantity

#: Layers that a cell of the table names.
_SHOWN = 3


@click.command(short_help="Show what can be pruned, and what layers cost.")
@click.argument("model", required=False, type=click.Path(path_type=Path))
@config_option
@network_options
@device_option(
    "virtual:tx2", "; or systolic:eyeriss, systolic:FILE.toml (analytic, of single weights)", ARRAYS
)
@click.option(
    "--draw",
    "drawing",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.svg|FILE.dot",
    help="Draw the channel groups: SVG to look at, or text for Graphviz.",
)
@workspace_option
@json_option
def inspect(model: Optional[Path], as_json: bool, **options: Any) -> None:
    """Show what can be pruned, what not and why, and what each layer costs when dense.

    \b
    Examples:
      edgeecc inspect --network mobilenet_v1
      edgeecc inspect --network alexnet --device systolic:eyeriss
      edgeecc inspect net.pth --network mine.nets:factory --input 3x96x96 --json
      edgeecc inspect net.pt2 --draw groups.svg
    """  # noqa: D301  # \b keeps click from wrapping
    from edgeecc import inspection as use_case

    request = use_case.InspectRequest(weights=model, **options)
    result = use_case.inspect(request)
    if as_json:
        emit_json(result)
    else:
        _print(result)


def _print(result: Dict[str, Any]) -> None:
    metric = Metric(result["metric"])
    groups = [
        (
            group["name"],
            str(group["width"]),
            _names(group["makers"] + group["carriers"]),
            _names(group["readers"]),
            f"{group['mac_share']:.1%}",
            "yes" if group["prunable"] else group["reason"],
        )
        for group in result["groups"]
    ]
    print_table(
        "channel groups", ("group", "width", "tied", "read by", "of MACs", "prunable"), groups
    )
    layers = [_row(layer["name"], layer["kind"], layer, metric) for layer in result["layers"]]
    layers.append(_row("total", "", result["total"], metric))
    print_table(
        "layers",
        ("layer", "kind", "MACs", "parameters", f"{metric.value} ({result['meter']})"),
        layers,
    )
    if any("levels" in layer for layer in result["layers"]):
        names = list(result["layers"][0]["levels"])
        levels = [
            (layer["name"], *(format_quantity(layer["levels"][name], metric) for name in names))
            for layer in result["layers"]
        ]
        print_table("by memory level", ("layer", *names), levels)
    if result["drawing"] is not None:
        click.echo(f"drawn: {result['drawing']}")


def _names(names: List[str]) -> str:
    """Return a few names, and how many more there are."""
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return ", ".join([*names[:_SHOWN], *more])


def _row(name: str, kind: str, numbers: Dict[str, Any], metric: Metric) -> Tuple[str, ...]:
    cost = numbers["cost"]
    price = "" if cost is None else format_quantity(cost, metric)
    return (
        name,
        kind,
        format_quantity(numbers["macs"], Metric.MACS),
        f"{numbers['params']:,}",
        price,
    )
