"""`edgeecc export` and `edgeecc verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping, Optional

import click

from edgeecc.cli.boundary import EXIT_BUDGET_MISSED
from edgeecc.cli.options import json_option, workspace_option
from edgeecc.cli.output import emit_json, key_values
from edgeecc.run_folder import RunFolder, latest_run
from edgeecc.units import Metric, format_quantity


@click.command(short_help="Slim, write ONNX, verify against the budget.")
@click.argument("run", required=False, type=click.Path(path_type=Path))
@workspace_option
@json_option
@click.pass_context
def export(ctx: click.Context, run: Optional[Path], workspace: Path, as_json: bool) -> None:
    """Slim the pruned network of RUN physically, write it as ONNX, and verify it against the budget.

    Without RUN the latest run of the workspace is taken. Exit status 3 when a budget is missed, the outputs
    differ or the N:M pattern is broken.

    \b
    Example:
      edgeecc export runs/mobilenet_v1-ecc-0.025J
    """  # noqa: D301  # \b keeps click from wrapping
    from edgeecc.export import export as export_channels
    from edgeecc.export_weights import export_weights

    folder = RunFolder(run) if run is not None else latest_run(workspace)
    use_case = export_weights if folder.kind() == "weights" else export_channels
    result = use_case(folder)
    if as_json:
        emit_json(result)
    else:
        click.echo(f"exported network: {result['onnx']}")
        _print(result["verify"])
    _leave(ctx, result["verify"])


@click.command(short_help="Check an exported network again.")
@click.argument("run", required=False, type=click.Path(path_type=Path))
@workspace_option
@json_option
@click.pass_context
def verify(ctx: click.Context, run: Optional[Path], workspace: Path, as_json: bool) -> None:
    """Check the exported network of RUN again: accuracy, output error, energy, latency, every budget.

    Needs no torch: it runs on the device where the network will work. Exit status 3 when a budget is
    missed, the outputs differ or the N:M pattern is broken.

    \b
    Example:
      edgeecc verify runs/mobilenet_v1-ecc-0.025J --json
    """  # noqa: D301  # \b keeps click from wrapping
    from edgeecc import verify as use_case

    folder = RunFolder(run) if run is not None else latest_run(workspace)
    result = use_case.verify(folder)
    if as_json:
        emit_json(result)
    else:
        _print(result)
    _leave(ctx, result)


def _leave(ctx: click.Context, result: Mapping[str, Any]) -> None:
    pattern_broken = result["pattern"] is not None and not result["pattern"]["holds"]
    if result["within_budget"] is False or not result["outputs_agree"] or pattern_broken:
        ctx.exit(EXIT_BUDGET_MISSED)


def _print(result: Mapping[str, Any]) -> None:
    energy, images = result["energy_j"], f"{result['images']} validation images"
    pairs = {
        result["score"]: f"{_scores_words(result)} on {images} (ONNX Runtime)",
        "output error": f"{result['max_abs_error']:.2e} at most, against the masked torch network",
        "energy": "no meter"
        if energy is None
        else f"{format_quantity(energy, Metric.ENERGY)} ({result['meter']})",
        "latency": f"{format_quantity(result['latency_s'], Metric.LATENCY)} ({result['latency_meter']})",
        **_verdicts(result),
    }
    if result["pattern"] is not None:
        pairs["pattern"] = _pattern_words(result["pattern"])
    for line in key_values(pairs):
        click.echo(line)


def _verdicts(result: Mapping[str, Any]) -> Dict[str, str]:
    """Return a line for the only budget, or one for each of several."""
    told = {True: "yes", False: "NO", None: "not known"}
    budgets = result["budgets"]
    if len(budgets) == 1:
        return {"within budget": f"{told[result['within_budget']]} ({result['verdict']})"}
    return {
        f"within {each['metric']} budget": f"{told[each['within']]} ({each['verdict']})"
        for each in budgets
    }


def _scores_words(result: Mapping[str, Any]) -> str:
    """Return the deciding score's value, and the others with their names."""
    others = [f"{name} {value:.4f}" for name, value in result["scores"].items()][1:]
    return f"{result['accuracy']:.4f}" + (f" ({', '.join(others)})" if others else "")


def _pattern_words(pattern: Mapping[str, Any]) -> str:
    if pattern["holds"]:
        return f"{pattern['text']} in all {pattern['layers']} layers that can have it"
    return f"{pattern['text']} BROKEN in {', '.join(pattern['broken'])}"
