"""`edgeecc prune`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, Sequence, Tuple

import click
from click.core import ParameterSource

from edgeecc.cli.budgets import (
    budget_options,
    parse_budget_options,
    price_options,
    print_budgets,
)
from edgeecc.cli.completing import method_names
from edgeecc.cli.config_file import config_option
from edgeecc.cli.options import (
    compute_of_options,
    compute_options,
    json_option,
    margin_options,
    network_options,
    workspace_option,
)
from edgeecc.cli.output import emit_json, print_table
from edgeecc.cli.progress import ProgressDisplay
from edgeecc.config import EccConfig, PruneConfig, TrainConfig, WspConfig
from edgeecc.data.table import KNOWN
from edgeecc.ecc_forms import refuse_unread
from edgeecc.normalisation import parse_normalisation
from edgeecc.peer_config import with_settings
from edgeecc.schedule import parse_stage
from edgeecc.solvers.table import METHODS, WEIGHT_METHODS
from edgeecc.solvers.table import method as method_row

_PRUNING, _ECC, _WSP, _TRAINING = PruneConfig(), EccConfig(), WspConfig(), TrainConfig()


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of training that every method of a comparison shares, with their defaults."""
    for decorate in (
        click.option(
            "--optimizer",
            type=click.Choice(["adam", "sgd"]),
            default=_TRAINING.optimizer,
            show_default=True,
            help="Optimiser of the weights; sgd has momentum 0.9.",
        ),
        click.option(
            "--batch-size",
            type=int,
            help="Images a batch.  [default: 128, for segmentation 4]",
        ),
        click.option(
            "--class-weights/--no-class-weights",
            default=_TRAINING.class_weights,
            show_default=True,
            help="In segmentation: weigh classes in the loss by how rare they are.",
        ),
        click.option(
            "--distill",
            type=float,
            default=_TRAINING.distill,
            show_default=True,
            help="Share of the distance to the dense network's outputs in the loss.",
        ),
        click.option(
            "--rise",
            type=float,
            default=_TRAINING.rise,
            show_default=True,
            help="Share of every phase in which the learning rate rises to its value.",
        ),
        click.option(
            "--weight-decay",
            type=float,
            default=_TRAINING.weight_decay,
            show_default=True,
            help="Coupled L2 decay of the weights.",
        ),
        click.option(
            "--checkpoint-s",
            type=float,
            default=_PRUNING.checkpoint_s,
            show_default=True,
            help="Seconds between checkpoints.",
        ),
        click.option(
            "--finetune",
            multiple=True,
            metavar="STEPS[,...]",
            help="Stages of fine-tuning in place of one: 100000,constant or 300000,lr=3e-5,distill=0; may be repeated.",
        ),
        click.option(
            "--finetune-steps",
            type=int,
            help="Steps of fine-tuning, what was removed staying removed.  [default: two passes, >= 300]",
        ),
        click.option(
            "--steps",
            type=int,
            help="Steps for pruning; fine-tuning has those that it does not need.  [default: two passes over the data, "
            ">= 300]",
        ),
    ):
        command = decorate(command)
    return command


def method_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the rate, the seed and what is worth keeping: options of one run of one method."""
    for decorate in (
        click.option(
            "--lr",
            type=float,
            help="Learning rate.  [default: 1e-3 for images up to 64x64, else 1e-4]",
        ),
        click.option(
            "--metric",
            type=click.Choice(["taylor", "adam", "magnitude"]),
            help="What is worth keeping: for ecc taylor (scale-free) or adam (as published), for wsp adam or magnitude "
            "(as published).  [default: ecc taylor, wsp adam]",
        ),
        click.option(
            "--rho1",
            type=float,
            help=f"Of ecc as published (--metric adam): penalty and dual step of the widths.  [default: {_ECC.rho1:g}]",
        ),
        click.option(
            "--rho2",
            type=float,
            help=f"Of ecc as published (--metric adam): penalty and dual step of the budget.  [default: {_ECC.rho2:g}]",
        ),
        click.option(
            "--beta",
            type=float,
            help=f"Of ecc as published (--metric adam): step of the widths, channels.  [default: {_ECC.beta:g}]",
        ),
        click.option(
            "--seed",
            type=int,
            default=_TRAINING.seed,
            show_default=True,
            help="Seed of the batch order.",
        ),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="NAME=VALUE",
            help="Setting of the method, as level=0 of ecc; may be repeated.",
        ),
    ):
        command = decorate(command)
    return command


@click.command(short_help="Prune a trained network to a budget.")
@click.argument("model", type=click.Path(path_type=Path))
@budget_options
@config_option
@network_options
@click.option("--data", help=f"{KNOWN}.")
@click.option(
    "--normalise",
    metavar="MEAN/DEVIATION",
    help="Mean and deviation of pixels of 0..1, a number a channel: 0.5,0.5,0.5/0.5,0.5,0.5.  [default: the "
    "network's, or else the data set's]",
)
@price_options
@click.option(
    "--method",
    default=_PRUNING.method,
    show_default=True,
    help=f"Solver: {', '.join(METHODS)} (channels); {', '.join(WEIGHT_METHODS)} (single weights).",
    shell_complete=method_names,
)
@click.option(
    "--input-mask",
    is_flag=True,
    help="With wsp: mask inputs of convolutions too.",
)
@click.option(
    "--mask-schedule",
    type=click.Choice(["joint", "rounds"]),
    default=_WSP.mask_schedule,
    show_default=True,
    help="Choose inputs with the weights (joint), or as published in rounds of --steps for weights and for masks.",
)
@click.option(
    "--pattern",
    default=_PRUNING.pattern,
    metavar="N:M",
    help="With wsp: at most N of every M weights along the input channels, 2:4 for TensorRT's sparse kernels.",
)
@margin_options
@training_options
@method_options
@compute_options
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    help="Run folder.  [default: runs/NETWORK-METHOD-BUDGET]",
)
@click.option("--force", is_flag=True, help="Replace what the run folder holds.")
@workspace_option
@json_option
@click.pass_context
def prune(
    ctx: click.Context,
    /,
    model: Path,
    budget: Tuple[str, ...],
    of: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Prune the trained network MODEL (a state_dict, safetensors or torch.export .pt2) until it fits the budget.

    An interrupted run goes on where it stopped when the same command is given again.

    \b
    Examples:
      edgeecc prune model.pth --budget 0.025J --data imagefolder:FOLDER
      edgeecc prune net.pth --network mine.nets:factory --input 1x28x28 --data fashion-mnist --budget 34%
      edgeecc prune net.pt2 --data digits --budget 50%
      edgeecc prune net.pt2 --data digits --budget 60% --budget 50%macs --budget 200kB
      edgeecc prune net.pth --method wsp --device systolic:eyeriss --budget 20% --data digits
      torchrun --nproc_per_node=2 -m edgeecc prune model.pth --budget 50% --data imagefolder:FOLDER
    """  # noqa: D301  # \b keeps click from wrapping
    if not options["data"]:
        raise click.UsageError(
            "no data to train on; give --data (digits, fashion-mnist, imagefolder:FOLDER, ...)"
        )
    parsed = parse_budget_options(budget, of)
    from edgeecc.prune import prune as prune_channels
    from edgeecc.run_request import PruneRequest
    from edgeecc.sparsify import sparsify
    from edgeecc.training.parallel import job

    _drop_what_is_typed_over(ctx, options)
    request = PruneRequest(weights=model, budget=parsed, **_request_fields(options))
    use_case = sparsify if request.pruning.method in WEIGHT_METHODS else prune_channels
    if use_case is sparsify and len(parsed) > 1:
        raise click.UsageError(
            f"{request.pruning.method} takes one budget, a share of energy; leave the others out"
        )
    ctx.obj["forced"] = request.force
    with ProgressDisplay(quiet=ctx.obj["quiet"]) as show, job() as world:
        result = use_case(request, show, world=world)
    if as_json:
        emit_json(result)
    else:
        _print(result)


def _drop_what_is_typed_over(ctx: click.Context, options: Dict[str, Any]) -> None:
    """Let --finetune-steps replace the --finetune of a file, and the other way round."""
    ways = {"finetune": (), "finetune_steps": None}
    typed = [name for name in ways if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if len(typed) == 1:
        options.update({name: empty for name, empty in ways.items() if name not in typed})


def _request_fields(options: Dict[str, Any]) -> Dict[str, Any]:
    taken = (
        "data", "network", "input_shape", "paper_groups", "device", "profile", "workspace", "run", "force",
    )  # fmt: skip
    fields: Dict[str, Any] = {name: options[name] for name in taken}
    if options["normalise"] is not None:
        fields["normalisation"] = parse_normalisation(options["normalise"])
    fields["pruning"] = PruneConfig(
        method=options["method"],
        steps=options["steps"],
        finetune_steps=options["finetune_steps"],
        margin=options["margin"],
        confidence=options["confidence"],
        checkpoint_s=options["checkpoint_s"],
        input_mask=options["input_mask"],
        pattern=options["pattern"],
    )
    method, metric = options["method"], options["metric"]
    if metric is not None and method not in ("ecc", "wsp"):
        raise click.UsageError(f"--metric goes with ecc and wsp; {method} has only one")
    wsp_metric = metric if metric is not None and method == "wsp" else _WSP.metric
    ecc_metric = metric if metric is not None and method == "ecc" else _ECC.metric
    fields["wsp"] = WspConfig(metric=wsp_metric, mask_schedule=options["mask_schedule"])
    steps = {name: options[name] for name in ("rho1", "rho2", "beta") if options[name] is not None}
    for name in steps if method != "ecc" else ():
        raise click.UsageError(f"--{name} goes with ecc as published, not with {method}")
    fields["ecc"] = replace(EccConfig(metric=ecc_metric), **steps)
    fields["compute"] = compute_of_options(options)
    fields.update(_settings_of(method, fields["ecc"], fields["wsp"], options["settings"]))
    refuse_unread(fields["ecc"])
    fields["training"] = TrainConfig(
        batch_size=options["batch_size"],
        lr=options["lr"],
        weight_decay=options["weight_decay"],
        distill=options["distill"],
        rise=options["rise"],
        seed=options["seed"],
        optimizer=options["optimizer"],
        finetune=tuple(parse_stage(text) for text in options["finetune"]),
        class_weights=options["class_weights"],
    )
    return fields


def _settings_of(
    method: str, ecc: EccConfig, wsp: WspConfig, texts: Sequence[str]
) -> Dict[str, object]:
    """Return the fields of the request that --set changes: the settings of the method, whatever their type."""
    if not texts:
        return {}
    if method == "ecc":
        return {"ecc": with_settings(ecc, texts)}
    if method in WEIGHT_METHODS:
        return {"wsp": with_settings(wsp, texts)}
    return {"settings": with_settings(method_row(method).settings(), texts)}


def _print(result: Dict[str, Any]) -> None:
    scores = result["scores"]
    rows = [
        (name, *(f"{value:.4f}" for value in scores[name].values())) for name in ("dense", "pruned")
    ]
    print_table(f"{result['method']}: {result['status']}", ("", *scores["dense"]), rows)
    print_budgets(result["budgets"])
    if "density" in result:
        _print_density(result)
        masks = [(name, f"{share:.1%}") for name, share in result["mask_density"].items()]
        if masks:
            print_table("inputs that are not masked", ("layer", "share"), masks)
    else:
        widths = [(name, str(kept), str(dense)) for name, (kept, dense) in result["widths"].items()]
        print_table("widths", ("group", "kept", "dense"), widths)
    click.echo(f"{result['seconds']:.0f} s; next: edgeecc export {result['run']}")


def _print_density(result: Dict[str, Any]) -> None:
    columns = ["layer", "share"]
    rows = [[name, f"{share:.1%}"] for name, share in result["density"].items()]
    if result["pattern"] is not None:
        columns.append(result["pattern"]["text"])
        for row in rows:
            row.append("yes" if result["pattern"]["layers"][row[0]] else "free")
    print_table("weights that are not zero", columns, rows)
