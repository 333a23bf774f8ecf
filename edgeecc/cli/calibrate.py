"""`edgeecc calibrate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, TypeVar, get_args

import click

from edgeecc.calibration_folder import device_metric
from edgeecc.cli.config_file import config_option
from edgeecc.cli.options import (
    device_option,
    json_option,
    network_options,
    precision_option,
    workspace_option,
)
from edgeecc.cli.output import emit_json, key_values, print_table
from edgeecc.cli.progress import ProgressDisplay
from edgeecc.config import (
    COST_MODEL_GRAMMAR,
    LATENCY_PROTOCOL,
    CalibrateConfig,
    Design,
    FitChoice,
    MeasureProtocol,
)
from edgeecc.device_names import AUTO
from edgeecc.units import Metric

Command = TypeVar("Command", bound=Callable[..., Any])

_COLUMNS = ("board", "samples", "a second", "offset", "state")
_CONFIG, _PROTOCOL = CalibrateConfig(), MeasureProtocol()


def protocol_options(command: Command) -> Command:
    """Add --tolerance and --window-s: how one figure is measured."""
    command = click.option(
        "--window-s",
        type=float,
        help="Least length of a window.  [default: 1 for energy, 0.05 for latency]",
    )(command)
    return click.option(
        "--tolerance",
        type=float,
        default=_PROTOCOL.tolerance,
        show_default=True,
        help="Repeat until the standard error is below this share.",
    )(command)


def protocol_of(options: Mapping[str, Any]) -> MeasureProtocol:
    """Return what `protocol_options` asked for, for the device's metric."""
    metric = device_metric(options["device"])
    base = LATENCY_PROTOCOL if metric is Metric.LATENCY else MeasureProtocol()
    return replace(
        base, tolerance=options["tolerance"], window_s=options["window_s"] or base.window_s
    )


@click.command(short_help="Measure width variants, fit the cost model.")
@click.argument("program", required=False, metavar="[MODEL.pt2]")
@click.option(
    "--samples",
    type=int,
    default=_CONFIG.samples,
    show_default=True,
    help="Width variants to measure at most.",
)
@click.option(
    "--target-error",
    type=float,
    default=_CONFIG.target_error,
    show_default=True,
    help="Stop when the mean held-out error is below this with 95 % confidence; 0 measures all --samples.",
)
@click.option(
    "--design",
    type=click.Choice(get_args(Design)),
    default=_CONFIG.design,
    show_default=True,
    help="How variants are chosen: those that tell the most, or uniformly as in the paper.",
)
@click.option(
    "--like",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PROFILE",
    help="Profile of this network on another device or at another precision, which is fitted towards.",
)
@config_option
@network_options
@click.option(
    "--graph",
    type=click.Path(path_type=Path),
    help="Folder with spec.json and dense.onnx of a traced network, in place of --network: needs no torch.",
)
@device_option("virtual:tx2", "; auto takes the best board here", (AUTO,))
@precision_option
@click.option(
    "--model",
    default=_CONFIG.model,
    show_default=True,
    metavar="FORM",
    help=f"Form of the cost model: {COST_MODEL_GRAMMAR}, or auto, which takes one by cross-validation.",
)
@click.option(
    "--fit",
    type=click.Choice(get_args(FitChoice)),
    default=_CONFIG.fit,
    show_default=True,
    help="Least squares (nnls), the same towards what layers' work says (work), or the paper's Adam; auto takes one of "
    "the first two by cross-validation.",
)
@click.option(
    "--seed", type=int, default=_CONFIG.seed, show_default=True, help="Seed of widths and split."
)
@protocol_options
@click.option(
    "--fleet",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file that names boards, which measure together in place of this machine; see docs/fleet.md.",
)
@click.option(
    "--scheduler",
    metavar="tcp://HOST:PORT",
    help="Dask scheduler that runs already, with a worker for each board.  [default: the file's, or one here]",
)
@workspace_option
@json_option
@click.pass_context
def calibrate(ctx: click.Context, /, program: Optional[str], as_json: bool, **options: Any) -> None:
    """Measure width variants of a network on a device and fit its cost model.

    The network is that of MODEL.pt2 (torch.export), or named by --network.

    Writes calibration/DEVICE/NETWORK/profile.json. Interrupted, it goes on where it stopped when the same
    command is given again: samples are kept as they are measured.

    \b
    Examples:
      edgeecc calibrate --network mobilenet_v1 --samples 2000
      edgeecc calibrate --network lenet5 --device onnxruntime:cpu --samples 100
      edgeecc calibrate model.pt2 --samples 500
      edgeecc calibrate --network mobilenet_v1 --device auto --precision fp16
      edgeecc calibrate --network mobilenet_v1 --fleet fleet.toml
    """  # noqa: D301  # \b keeps click from wrapping
    if program is not None and options["network"] is not None:
        raise click.UsageError(f"{program} carries its own network; leave out --network")
    config = CalibrateConfig(
        **{
            name: options[name]
            for name in ("samples", "target_error", "design", "seed", "model", "fit")
        }
    )
    from edgeecc import calibration_job
    from edgeecc.machine import resolve

    options["device"] = resolve(options["device"], options["precision"])
    protocol = protocol_of(options)

    request = calibration_job.Request(
        network=options["network"] or program,
        input_shape=options["input_shape"],
        graph=options["graph"],
        device=options["device"],
        workspace=options["workspace"],
        paper_groups=options["paper_groups"],
        like=options["like"],
        fleet=options["fleet"],
        scheduler=options["scheduler"],
    )
    with ProgressDisplay(quiet=ctx.obj["quiet"]) as show:
        result = calibration_job.run(request, config, protocol, show)
    if as_json:
        emit_json(result)
        return
    _print(result)


def _print(result: Dict[str, Any]) -> None:
    error = result["heldout_error"]
    pairs = {
        "profile": result["profile"],
        "samples": f"{result['samples']} of at most {result['asked']} ({result['meter']})",
        "held-out error": f"mean {error['mean']:.2%}, p95 {error['p95']:.2%}, max {error['max']:.2%}",
        "mean at most": _bound(result),
        "held off a budget": _held_off(result["margin"]),
        "model": _chosen(result),
        "speed": f"{result['variants_per_s']:.1f} variants a second",
    }
    for line in key_values(pairs):
        click.echo(line)
    if result["failed"]:
        click.echo(
            f"{len(result['failed'])} variants could not be built, such as: {result['failed'][0]['why']}"
        )
    if result["boards"]:
        print_table(
            "Boards", _COLUMNS, [_board(name, one) for name, one in result["boards"].items()]
        )


def _board(name: str, told: Dict[str, Any]) -> List[str]:
    """Return a board's row of `_COLUMNS`; what no session told stays empty."""
    offset = f"{told['offset']:.4f} +- {told['standard_error']:.4f}" if "offset" in told else ""
    rate, state = told.get("samples_per_s"), told.get("state", "")
    why = told.get("why")
    return [
        name or "(no fleet)",
        str(told.get("samples", 0)),
        "" if rate is None else f"{rate:.3g}",
        offset,
        f"{state}: {why}" if why else state,
    ]


def _held_off(margin: Dict[str, Any]) -> str:
    if margin["confidence"] is None:
        return f"{margin['share']:.2%}"
    return f"{margin['share']:.2%}, for {margin['confidence']:.3g} confidence"


def _bound(result: Dict[str, Any]) -> str:
    """Return what the mean error is at most, and whether that is what was asked for."""
    told, wanted = f"{result['upper_error']:.2%}, for 0.95 confidence", result["target_error"]
    if not wanted:
        return told
    missed = "" if result["upper_error"] < wanted else " not"
    return f"{told}; the {wanted:.3g} of --target-error is{missed} reached"


def _chosen(result: Dict[str, Any]) -> str:
    """Return the model's form and fit, and how they were found."""
    model, tried = f"{result['model']} by {result['fit']}", result["tried"]
    if not tried:
        return model
    level = sum(one["level"] for one in tried)
    if level == 1:
        return f"{model}, the best of {len(tried)} tried"
    return (
        f"{model}, the plainest of {level} that cannot be told from the best, of {len(tried)} tried"
    )
