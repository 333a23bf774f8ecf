"""`edgeecc compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import click

from edgeecc.cli.boundary import EXIT_ERROR
from edgeecc.cli.budgets import parse_budget_options
from edgeecc.cli.completing import device_names, methods_list
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
from edgeecc.cli.prune import training_options
from edgeecc.config import PruneConfig, TrainConfig
from edgeecc.data.table import KNOWN
from edgeecc.errors import ConfigError
from edgeecc.normalisation import parse_normalisation
from edgeecc.schedule import parse_stage
from edgeecc.solvers.table import METHODS
from edgeecc.units import BOUNDED, Budget, Metric


class ListType(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic only in new click
    """Several values, with commas between them."""

    name = "A,B,..."

    def __init__(self, kind: type) -> None:
        self._kind = kind

    def convert(
        self, value: Any, param: Optional[click.Parameter], ctx: Optional[click.Context]
    ) -> Tuple[Any, ...]:  # fmt: skip
        """Return the values; a file may give them as a list too."""
        parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
        try:
            return tuple(self._kind(str(part).strip()) for part in parts)
        except ValueError:
            self.fail(f"{value!r} is no list such as 0,1,2", param, ctx)


def comparison_options(command: Any) -> Any:
    """Add what is compared, and the rates and settings of the methods."""
    for decorate in (
        click.option(
            "--jobs", type=int, default=1, show_default=True, help="Cells at once; they share the cores."
        ),
        click.option(
            "--held-out",
            type=int,
            help="Training images kept out of every training.  [default: a tenth, at most 2,000]",
        ),
        click.option(
            "--search-images",
            type=int,
            help="Training images that trials are judged on, and no method sees.  [default: a sixth, at most 10,000]",
        ),
        click.option(
            "--search-refine",
            type=int,
            help="Further trials of every method at every such budget, near its best rates so far.  [default: 0]",
        ),
        click.option(
            "--validation-apart",
            "val_apart",
            type=int,
            default=0,
            help="Validation images that judge trials and score no cell: for weights that know all training images.",
        ),
        click.option("--search-seed", type=int, help="Seed of the trials.  [default: one more than the largest]"),
        click.option(
            "--search-budget",
            "search_budgets",
            multiple=True,
            help="Budget of the trials; of several each budget takes the nearest's rate.  [default: the middle one]",
        ),
        click.option(
            "--search-lr",
            type=ListType(float),
            help="Try these learning rates for every method; the best on training images of their own is taken.",
        ),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="METHOD.NAME=VALUE",
            help="Setting of one method, as ecc.level=0; may be repeated.",
        ),
        click.option(
            "--lr",
            "rates",
            multiple=True,
            metavar="[METHOD[@BUDGET]=]RATE",
            help="Learning rate of one method, at one budget, or of all; may be repeated.  [default: 1e-3 for images "
            "up to 64x64, else 1e-4]",
        ),
        click.option(
            "--seeds", type=ListType(int), default="0,1,2", show_default=True, help="Seeds of the batch order."
        ),
        click.option(
            "--methods",
            type=ListType(str),
            default="ecc,uniform",
            show_default=True,
            shell_complete=methods_list,
            help=f"Solvers: {', '.join(METHODS)}.",
        ),
    ):  # fmt: skip
        command = decorate(command)
    return command


@click.command(short_help="Compare methods over budgets and seeds.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--budget",
    "budgets",
    multiple=True,
    required=True,
    help="Upper bound, as of prune: 25mJ, 12ms or 50% of dense; repeat it for a curve.",
)
@click.option(
    "--of",
    type=click.Choice([metric.value for metric in BOUNDED]),
    default=Metric.ENERGY.value,
    show_default=True,
    help="What a percentage refers to.",
)
@comparison_options
@config_option
@network_options
@click.option("--data", help=f"{KNOWN}.")
@click.option("--normalise", metavar="MEAN/DEVIATION", help="Normalisation of images, as of prune.")
@click.option(
    "--device",
    shell_complete=device_names(),
    help="Device whose profile prices the widths.  [default: virtual:tx2, for ms onnxruntime:cpu]",
)
@click.option(
    "--profile", type=click.Path(path_type=Path), help="Profile file, in place of the device's own."
)
@margin_options
@training_options
@compute_options
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of all runs and results.  [default: runs/compare-NETWORK]"
)  # fmt: skip
@workspace_option
@json_option
@click.pass_context
def compare(
    ctx: click.Context, /, model: Path, budgets: Tuple[str, ...], of: str, as_json: bool, **options: Any
) -> None:  # fmt: skip
    """Compare pruning methods on the trained network MODEL: every method, budget and seed gets the same batches.

    {seed} in MODEL stands for the seed, where there is a dense network for each. Finished cells are never run
    again: the same command goes on where it stopped, one with more methods, budgets or seeds runs what is new.

    \b
    Examples:
      edgeecc compare net.pth --data digits --budget 50% --budget 20% --methods ecc,uniform --seeds 0,1,2
      edgeecc compare dense-{seed}.safetensors --network mine.nets:factory --input 3x32x32 --data cifar10
        --budget 30% --search-lr 1e-3,3e-3,1e-2 --jobs 2
    """  # noqa: D301  # \b keeps click from wrapping
    if not options["data"]:
        raise click.UsageError("no data to train on; give --data (digits, fashion-mnist, ...)")
    parsed = tuple(_budget(text, of) for text in budgets)
    from edgeecc.compare import compare as use_case

    request = _request(model, parsed, of, options)
    with ProgressDisplay(quiet=ctx.obj["quiet"]) as show:
        result: Dict[str, Any] = use_case(request, show)
    if as_json:
        emit_json(result)
    else:
        _print(result)
    if result["status"]["failed"]:
        ctx.exit(EXIT_ERROR)


def _budget(text: str, of: str) -> Budget:
    """Read one budget; a wrong unit is a usage error."""
    (budget,) = parse_budget_options((text,), of)
    return budget


def _request(model: Path, budgets: Tuple[Any, ...], of: str, options: Dict[str, Any]) -> Any:
    """Return the request; its class needs torch."""
    from edgeecc.comparison.rates import RateSearch
    from edgeecc.comparison.request import CompareRequest, rates_by_method, settings_by_method
    from edgeecc.run_request import PruneRequest

    usual, rates = rates_by_method(options["rates"])
    template = PruneRequest(
        weights=model,
        budget=budgets[0],
        normalisation=options["normalise"] and parse_normalisation(options["normalise"]),
        pruning=_pruning(options),
        training=_training(options, usual),
        compute=compute_of_options(options),
        **{
            name: options[name]
            for name in (
                "data",
                "network",
                "input_shape",
                "paper_groups",
                "device",
                "profile",
                "workspace",
            )
        },
    )
    search = None
    if options["search_lr"]:
        searched = tuple(_budget(text, of) for text in options["search_budgets"])
        search = RateSearch(
            options["search_lr"], searched, options["search_seed"], options["search_images"],
            refine=options["search_refine"] or 0,
        )  # fmt: skip
    elif options["search_budgets"] or any(
        options[f"search_{name}"] is not None for name in ("seed", "images", "refine")
    ):
        raise ConfigError(
            "--search-budget, --search-seed, --search-images and --search-refine go with --search-lr"
        )
    return CompareRequest(
        template,
        methods=options["methods"],
        budgets=budgets,
        seeds=options["seeds"],
        rates=rates,
        settings=settings_by_method(options["settings"]),
        search=search,
        out=options["out"],
        jobs=options["jobs"],
    )


def _pruning(options: Dict[str, Any]) -> PruneConfig:
    names = (
        "steps",
        "finetune_steps",
        "margin",
        "confidence",
        "checkpoint_s",
        "held_out",
        "val_apart",
    )
    return PruneConfig(**{name: options[name] for name in names})


def _training(options: Dict[str, Any], rate: Optional[float]) -> TrainConfig:
    names = ("batch_size", "rise", "weight_decay", "distill", "optimizer", "class_weights")
    return TrainConfig(
        lr=rate,
        finetune=tuple(parse_stage(text) for text in options["finetune"]),
        **{name: options[name] for name in names},
    )


def _print(result: Dict[str, Any]) -> None:
    from edgeecc.comparison.files import as_tables

    title = f"{result['score']} of {result['network']} on {result['data']} ({result['meter']})"
    accuracies, behind, costs = as_tables(result)
    print_table(title, accuracies[0], accuracies[1:])
    if behind:
        title = "seed by seed: mean ± standard error (seeds behind)"
        print_table(title, behind[0], behind[1:])
    print_table("what it took", costs[0], costs[1:])
    for cell in result["cells"]:
        if cell["status"] != "finished":
            click.echo(
                f"{cell['method']} {cell['budget']} seed {cell['seed']} {cell['status']}: {cell['error']}"
            )
    search = result["search"]
    if search is not None:
        for budget in search["budgets"]:
            found = ((name, rates.get(budget)) for name, rates in search["chosen"].items())
            told = ", ".join(f"{name} {rate:g}" for name, rate in found if rate is not None)
            click.echo(
                f"learning rates at {budget}, of {len(search['rates']) + search['refine']} each: {told or 'none'}"
            )
    click.echo(f"results: {Path(result['out']) / result['files'][0]}")
