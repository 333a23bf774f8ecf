"""`edgeecc explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

import click

from edgeecc.cli.options import json_option, run_argument, workspace_option
from edgeecc.cli.output import emit_json, key_values, print_table
from edgeecc.run_folder import RunFolder, latest_run
from edgeecc.units import Metric, format_quantity

#: What tables call a cause, and what words say of what it costs the slim network.
_CAUSES = {
    "fixed": "fixed cost",
    "whole": "layers that no group touches",
    "channels": "what passes over channels",
    "padding": "tiles that are not full",
    "layers": "layers whose MACs differ in price",
}
_LEFT = {
    "fixed": "is fixed",
    "whole": "is of layers that no group touches",
    "padding": "is paid for places in tiles that no channel fills",
}


@click.command(short_help="Show where a pruned network's cost went.")
@run_argument
@workspace_option
@json_option
def explain(run: Optional[Path], workspace: Path, as_json: bool) -> None:
    """Show what each layer of RUN costs, dense and slim, and why its cost fell less than its MACs.

    Costs are those of the models that the run was pruned by; what export and verify measured stands beside them.
    Without RUN the latest run of the workspace is taken. Needs no torch.

    \b
    Example:
      edgeecc explain runs/mobilenet_v1-ecc-0.025J
    """  # noqa: D301  # \b keeps click from wrapping
    from edgeecc import explain as use_case

    folder = RunFolder(run) if run is not None else latest_run(workspace)
    result = use_case.explain(folder)
    if as_json:
        emit_json(result)
        return
    for told in result["budgets"]:
        _print_parts(told, result)
        if told["causes"]:
            _print_causes(told, result["macs"])
        for line in key_values(_summary(told, result["macs"])):
            click.echo(line)


def _print_parts(told: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Print what layers, groups and other modules cost, the fixed cost, and the total."""
    metric = Metric(told["metric"])
    layers = {layer["name"]: layer for layer in result["layers"]}
    rows = [
        [part["name"], _kind(part), *_shape(part, layers, result["widths"]), *_figures(part, told)]
        for part in told["parts"]
        if part["dense"] > 0.0 or part["name"] in layers
    ]
    if told["fixed"] > 0.0:
        fixed = {"dense": told["fixed"], "slim": told["fixed"]}
        rows.append(["fixed cost", "", "", "", "", *_figures(fixed, told)])
    macs = [format_quantity(result["macs"][when], Metric.MACS) for when in ("dense", "slim")]
    rows.append(["total", "", "", *macs, *_figures(told, told)])
    columns = ["layer", "kind", "channels", "MACs dense", "slim", f"{metric.value} dense", "slim"]
    columns += ["of saving", "padding dense", "slim"]
    shown = [place for place, name in enumerate(columns) if place not in _hidden(told)]
    print_table(
        f"{metric.value} of {result['network']}, {told['meter']}",
        [columns[place] for place in shown],
        [[row[place] for place in shown] for row in rows],
    )


def _hidden(told: Mapping[str, Any]) -> List[int]:
    """Return the columns that tell nothing: MACs beside MACs, and padding where there is none."""
    macs = [3, 4] if Metric(told["metric"]) is Metric.MACS else []
    return macs + ([] if told["padding_dense"] + told["padding_slim"] > 0.0 else [8, 9])


def _kind(part: Mapping[str, Any]) -> str:
    return str(part["kind"]) if part["movable"] else f"{part['kind']}, whole"


def _shape(
    part: Mapping[str, Any], layers: Mapping[str, Any], widths: Mapping[str, Any]
) -> List[str]:
    """Return channels and MACs, dense and slim, of a layer; the channels alone of a group."""
    name = part["name"]
    if part["kind"] == "group":
        kept, dense = widths[name]
        return [f"{dense} -> {kept}", "", ""]
    if name not in layers:
        return ["", "", ""]
    layer = layers[name]
    channels = ["x".join(map(str, layer[f"channels_{when}"])) for when in ("dense", "slim")]
    macs = [format_quantity(layer[f"macs_{when}"], Metric.MACS) for when in ("dense", "slim")]
    return [" -> ".join(channels), *macs]


def _figures(costs: Mapping[str, Any], told: Mapping[str, Any]) -> List[str]:
    """Return costs, share of the saving and padding of a part; what it does not have is empty."""
    metric = Metric(told["metric"])
    share = costs.get("saving_share")
    keys = ("padding_dense", "padding_slim")
    return [
        *(format_quantity(costs[when], metric) for when in ("dense", "slim")),
        "" if share is None else f"{share:.1%}",
        *(format_quantity(costs[key], metric) if costs.get(key) else "" for key in keys),
    ]


def _print_causes(told: Mapping[str, Any], macs: Mapping[str, Any]) -> None:
    """Print what keeps a cost from falling as MACs do."""
    metric = Metric(told["metric"])
    causes = [cause for cause in told["causes"] if cause["dense"] or cause["slim"]]
    rows = []
    for cause in (*causes, {**told, "name": "total", "excess": told["gap"]}):
        costs = (cause["dense"], cause["slim"], macs["share"] * cause["dense"])
        figures = [format_quantity(cost, metric) for cost in costs]
        points = f"{100.0 * cause['excess']:+.1f}"
        rows.append([_CAUSES.get(cause["name"], "total"), *figures, points])
    columns = ["", "dense", "slim", f"at the MACs' {macs['share']:.1%}", "points of the gap"]
    print_table(f"why {metric.value} did not fall as MACs did, {told['meter']}", columns, rows)


def _summary(told: Mapping[str, Any], macs: Mapping[str, Any]) -> Dict[str, str]:
    """Return in words how far MACs and the cost fell, what is left, and what was measured."""
    metric = Metric(told["metric"])
    pairs = {"fell": f"MACs to {macs['share']:.1%} ({macs['meter']})"}
    if told["causes"]:
        pairs["fell"] += f", {metric.value} to {told['share']:.1%} ({told['meter']})"
        pairs["of what is left"] = _left(told, metric)
    for measured in told["measured"]:
        values = [measured[when] for when in ("dense", "slim") if measured[when] is not None]
        words = " -> ".join(format_quantity(value, metric) for value in values)
        pairs[f"measured by {measured['by']}"] = f"{words} ({measured['meter']})"
    pairs["budget"] = format_quantity(told["value"], metric)
    return pairs


def _left(told: Mapping[str, Any], metric: Metric) -> str:
    """Return what of the slim cost is fixed, of whole layers, and for tiles that are not full."""
    costs = {cause["name"]: cause["slim"] for cause in told["causes"]}
    found = [
        f"{format_quantity(costs[name], metric)} ({costs[name] / told['slim']:.1%}) {words}"
        for name, words in _LEFT.items()
        if costs[name] > 0.0
    ]
    return ", ".join(found) or "nothing is fixed, of whole layers or for padding"
