"""`edgeecc export` and `edgeecc verify`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence

import click
from click.core import ParameterSource

from edgeecc.cli.boundary import EXIT_BUDGET_MISSED
from edgeecc.cli.completing import device_names
from edgeecc.cli.options import json_option, run_argument, workspace_option
from edgeecc.cli.output import emit_json, events_pairs, key_values, print_table
from edgeecc.cli.progress import ProgressDisplay
from edgeecc.device_names import PRECISIONS
from edgeecc.fit_config import FitBudgetConfig
from edgeecc.run_folder import RunFolder, latest_run
from edgeecc.units import Metric, format_quantity

_FIT = FitBudgetConfig()


@click.command(short_help="Slim, write ONNX, verify against the budget.")
@run_argument
@click.option(
    "--fit-budget",
    "fit",
    is_flag=True,
    help="Correct the cost model by what is measured, and prune on or bring channels back until the measured cost is "
    f"under the budget and within {_FIT.band:.0%} of it.",
)
@click.option(
    "--rounds",
    type=int,
    default=_FIT.rounds,
    show_default=True,
    help="With --fit-budget: corrected networks to measure at most.",
)
@click.option(
    "--confidence",
    type=float,
    default=_FIT.confidence,
    show_default=True,
    help="With --fit-budget: with which the measured cost is to hold the budget.",
)
@click.option(
    "--trt",
    is_flag=True,
    help="Build the TensorRT engine too, score and measure it on this board, and judge it by the budgets. Without "
    "torch only this is done, for a run that was exported elsewhere.",
)
@click.option(
    "--device",
    shell_complete=device_names(),
    help="With --trt: BOARD:tensorrt or BOARD:trtexec, with a precision.  [default: the run's, or the best here]",
)
@click.option(
    "--precision", type=click.Choice(PRECISIONS), help="With --trt: of a --device that names none."
)
@click.option(
    "--own-code",
    is_flag=True,
    help="Run the code that RUN names as package.module:function, of a run that another account made and you trust.",
)
@workspace_option
@json_option
@click.pass_context
def export(
    ctx: click.Context, /, run: Optional[Path], fit: bool, trt: bool, as_json: bool, **options: Any
) -> None:
    """Slim the pruned network of RUN physically, write it as ONNX, and verify it against the budget.

    Without RUN the latest run of the workspace is taken. Exit status 3 when a budget is missed, the outputs
    differ or the N:M pattern is broken. The cost model as the measurement corrects it is written beside, for prune
    --profile.

    \b
    Examples:
      edgeecc export runs/mobilenet_v1-ecc-0.025J
      edgeecc export runs/mobilenet_v1-ecc-0.025J --fit-budget
      edgeecc export runs/mobilenet_v1-ecc-0.025J --trt --precision fp16
    """  # noqa: D301  # \b keeps click from wrapping
    path = run if run is not None else latest_run(options["workspace"]).path
    folder = RunFolder(path, own_code=options["own_code"])
    if trt and importlib.util.find_spec("torch") is None:
        _end_with_engine(ctx, {}, _built(ctx, folder, options), as_json)
        return
    _check_device(ctx, folder, trt, options)
    from edgeecc.export import export as export_channels
    from edgeecc.export_weights import export_weights

    if fit:
        result = _fitted(ctx, folder, options)
    else:
        _refuse_without_fit(ctx)
        use_case = export_weights if folder.kind() == "weights" else export_channels
        with ProgressDisplay(quiet=ctx.obj["quiet"]) as show:
            result = use_case(folder, on_progress=show)
    if trt:
        _end_with_engine(ctx, result, _built(ctx, folder, options), as_json)
        return
    if as_json:
        emit_json(result)
    else:
        if fit:
            _print_rounds(result["fit_budget"])
        click.echo(f"exported network: {result['onnx']}")
        _print(result["verify"])
        for corrected in result.get("correction", ()):
            click.echo(_correction_words(corrected))
    if fit and not result["fit_budget"]["holds"]:
        ctx.exit(EXIT_BUDGET_MISSED)
    _leave(ctx, result["verify"])


def _fitted(ctx: click.Context, folder: RunFolder, options: Mapping[str, Any]) -> Dict[str, Any]:
    """Export with rounds of correction, telling their progress."""
    from edgeecc.fit_budget import fit_budget

    config = FitBudgetConfig(rounds=options["rounds"], confidence=options["confidence"])
    with ProgressDisplay(quiet=ctx.obj["quiet"]) as show:
        return fit_budget(folder, config, on_progress=show)


def _refuse_without_fit(ctx: click.Context) -> None:
    _refuse(ctx, ("rounds", "confidence"), "fit-budget")


def _refuse(ctx: click.Context, names: Sequence[str], other: str) -> None:
    for name in names:
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} goes with --{other}")


def _check_device(
    ctx: click.Context, folder: RunFolder, trt: bool, options: Mapping[str, Any]
) -> None:
    """Refuse a device that builds no engines before the network is exported, and one where none is built."""
    if not trt:
        _refuse(ctx, ("device", "precision"), "trt")
        return
    from edgeecc.export_engine import engine_device

    folder.read_finished()
    engine_device(folder, options["device"], options["precision"])


def _built(ctx: click.Context, folder: RunFolder, options: Mapping[str, Any]) -> Dict[str, Any]:
    from edgeecc.export_engine import export_engine

    with ProgressDisplay(quiet=ctx.obj["quiet"]) as show:
        return export_engine(folder, options["device"], options["precision"], show)


def _end_with_engine(
    ctx: click.Context, result: Mapping[str, Any], engine: Mapping[str, Any], as_json: bool
) -> None:
    """Print an export with its engine; the engine's verdict is the command's."""
    if as_json:
        emit_json({**result, "engine": engine})
    else:
        if "onnx" in result:
            click.echo(f"exported network: {result['onnx']}")
        for line in key_values(_engine_pairs(engine)):
            click.echo(line)
    if engine["within_budget"] is False:
        ctx.exit(EXIT_BUDGET_MISSED)


def _engine_pairs(engine: Mapping[str, Any]) -> Dict[str, str]:
    measured = {
        metric.value: _with_interval(engine[value], engine[interval], metric)
        for metric, value, interval in (
            (Metric.ENERGY, "energy_j", "energy_interval_j"),
            (Metric.LATENCY, "latency_s", "latency_interval_s"),
        )
    }
    pairs = {
        "engine": f"{engine['engine']} ({engine['runtime']})",
        "build": _build_words(engine["build"]),
        engine["score"]: f"{_scores_words(engine)} on {engine['images']} validation images",
        "output error": f"{engine['onnxruntime_relative']:.2%} of the outputs, {engine['onnxruntime_max_abs']:.2e} at "
        "most, against ONNX Runtime",
        **measured,
        **events_pairs(engine),
        "meter": engine["meter"],
        **_verdicts(engine),
    }
    if engine["ranges"] is not None:
        pairs["int8 ranges"] = _ranges_words(engine["ranges"])
    if engine["build"]["sparse"] is not None:
        pairs["sparse kernels"] = (
            "in {chosen} of {eligible} layers whose weights allow them".format(
                **engine["build"]["sparse"]
            )
        )
    if engine["build"]["notes"]:
        pairs["notes"] = "; ".join(engine["build"]["notes"])
    return pairs


def _build_words(build: Mapping[str, Any]) -> str:
    took = f"in {build['build_s']:.3g} s"
    return f"from the cache, built earlier {took}" if build["cached"] else f"built {took}"


def _ranges_words(ranges: Mapping[str, Any]) -> str:
    which = {"train": "training images", "check": "check images, which are not scored"}
    return f"on {ranges['images']} {which[ranges['split']]}"


def _with_interval(value: Optional[float], interval: Any, metric: Metric) -> str:
    if value is None:
        return "no meter"
    ends = " to ".join(str(format_quantity(interval[end], metric)) for end in ("low", "high"))
    return f"{format_quantity(value, metric)} (95 %: {ends})"


def _print_rounds(fit: Mapping[str, Any]) -> None:
    """Print a row for each budget of each round, and how the rounds ended."""
    rows = []
    for told in fit["rounds"]:
        for row in told["budgets"]:
            metric = Metric(row["metric"])
            expected = row["predicted"] if row["expected"] is None else row["expected"]
            rows.append(
                (
                    f"{told['round']} {row['metric']}",
                    str(format_quantity(row["measured"], metric)),
                    f"{row['standard_error'] / row['measured']:.2%}",
                    row["meter"],
                    f"{row['measured'] / row['budget'] - 1.0:+.2%}",
                    str(format_quantity(expected, metric)),
                    f"{row['scale']:.4f}",
                    str(format_quantity(row["offset"], metric)),
                    f"-{told['removed']} +{told['returned']}",
                    "" if told["accuracy"] is None else f"{told['accuracy']:.4f}",
                )
            )
    columns = (
        "round", "measured", "s.e.", "meter", "to budget", "model said", "scale", "offset", "units", "accuracy",
    )  # fmt: skip
    print_table("rounds of --fit-budget", columns, rows)
    place, told = fit["chosen"], fit["rounds"][fit["chosen"]]
    how = f"the budget with {fit['confidence']:g} confidence"
    if not fit["holds"]:
        words = f"NO round holds {how}; round {place} is nearest"
    elif not fit["close"]:
        words = f"round {place} holds {how} but is not within {fit['band']:.0%} of it"
    else:
        words = f"round {place} holds {how}"
    words += f", {told['share'] - 1.0:+.2%} from it"
    click.echo(f"{words} ({fit['reason']}; {fit['finetune_steps']} steps of fine-tuning)")


def _correction_words(told: Mapping[str, Any]) -> str:
    """Return the line on what the measurement makes of the run's cost model."""
    metric = Metric(told["metric"])
    ratio = told["measured"] / told["predicted"] - 1.0
    return (
        f"{told['metric']} measured {ratio:+.1%} from the {format_quantity(told['predicted'], metric)} of "
        f"{told['predicted_by']}: scale {told['scale']:.4f}, offset {format_quantity(told['offset'], metric)}; "
        f"later runs may take --profile {told['profile']}"
    )


@click.command(short_help="Check an exported network again.")
@run_argument
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
        **events_pairs(result),
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
