"""`edgeecc inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import click

from edgeecc.cli.config_file import config_option
from edgeecc.cli.options import device_option, json_option, network_options, workspace_option
from edgeecc.cli.output import emit_json, print_table
from edgeecc.units import Metric, format_quantity


@click.command(short_help="Show what can be pruned, and what layers cost.")
@click.argument("model", required=False, type=click.Path(path_type=Path))
@config_option
@network_options
@device_option(
    "virtual:tx2", "; or systolic:eyeriss, systolic:FILE.toml (analytic, of single weights)"
)
@workspace_option
@json_option
def inspect(  # noqa: PLR0913  # one an option
    model: Optional[Path],
    network: Optional[str],
    input_shape: Optional[Tuple[int, ...]],
    paper_groups: bool,
    device: str,
    workspace: Path,
    as_json: bool,
) -> None:  # fmt: skip
    """Show what can be pruned, what not and why, and what each layer costs when dense.

    \b
    Examples:
      edgeecc inspect --network mobilenet_v1
      edgeecc inspect --network alexnet --device systolic:eyeriss
      edgeecc inspect net.pth --network mine.nets:factory --input 3x96x96 --json
    """  # noqa: D301  # \b keeps click from wrapping
    from edgeecc import inspection as use_case

    request = use_case.InspectRequest(network, input_shape, model, paper_groups, device, workspace)
    result = use_case.inspect(request)
    if as_json:
        emit_json(result)
    else:
        _print(result)


def _print(result: Dict[str, Any]) -> None:
    metric = Metric(result["metric"])
    groups = [
        (g["name"], str(g["width"]), "yes" if g["prunable"] else g["reason"])
        for g in result["groups"]
    ]
    print_table("channel groups", ("group", "width", "prunable"), groups)
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
