"""`edgeecc demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

import click

from edgeecc.artifacts import read_json
from edgeecc.cli.boundary import EXIT_BUDGET_MISSED
from edgeecc.cli.options import json_option, workspace_option
from edgeecc.cli.output import emit_json, print_table
from edgeecc.cli.progress import ProgressDisplay
from edgeecc.run_folder import REPORT_SCHEMA
from edgeecc.units import Metric, format_quantity


@click.command(short_help="Run the main job on real data.")
@workspace_option
@json_option
@click.pass_context
def demo(ctx: click.Context, workspace: Path, as_json: bool) -> None:
    """Run the main job on real data: train, calibrate, prune to half the energy, slim, export, verify.

    Takes scikit-learn's handwritten digits and the simulated device virtual:tx2; writes runs/demo.

    \b
    Example:
      edgeecc demo
    """  # noqa: D301  # \b keeps click from wrapping
    from edgeecc import demo as use_case

    with ProgressDisplay(quiet=ctx.obj["quiet"]) as show:
        result: Dict[str, Any] = use_case.demo(workspace, show)
    verified = result["export"]["verify"]
    if as_json:
        emit_json(result)
    else:
        report: Dict[str, Any] = read_json(
            workspace / "runs" / "demo" / "report.json", REPORT_SCHEMA
        )
        _print(result, report["networks"])
    if verified["within_budget"] is False or not verified["outputs_agree"]:
        ctx.exit(EXIT_BUDGET_MISSED)


def _print(result: Dict[str, Any], networks: List[Dict[str, Any]]) -> None:
    first = networks[0]
    columns = (
        "network",
        f"{first['score']} ({first['images']} digits)",
        f"energy, {first['meter']}",
        f"latency, {first['latency_meter']}",
        "parameters",
        "MACs",
    )
    rows = [
        (
            row["network"],
            f"{row['accuracy']:.4f}",
            format_quantity(row["energy_j"], Metric.ENERGY),
            format_quantity(row["latency_s"], Metric.LATENCY),
            f"{row['params']:,}",
            format_quantity(row["macs"], Metric.MACS),
        )
        for row in networks
    ]
    print_table("digits_mobilenet pruned to half its energy", columns, rows)
    verified = result["export"]["verify"]
    error = result["calibrate"]["heldout_error"]
    click.echo(f"budget: {verified['verdict']}")
    click.echo(
        f"slim against masked network: {verified['max_abs_error']:.1e} at most (ONNX Runtime against torch)"
    )
    click.echo(
        f"cost model: held-out error {error['mean']:.1%} over {result['calibrate']['samples']} simulated samples"
    )
    click.echo(f"artefacts: {Path(result['prune']['run'])}")
