"""Budgets on the command line: their options, what progress says of them, and their table."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Mapping, Sequence, Tuple, TypeVar

import click

from edgeecc.cli.completing import ARRAYS, device_names
from edgeecc.cli.output import print_table
from edgeecc.errors import UnitError
from edgeecc.units import BOUNDED, Budget, Metric, format_quantity, parse_budgets

Command = TypeVar("Command", bound=Callable[..., Any])


def budget_options(command: Command) -> Command:
    """Add --budget and --of."""
    command = click.option(
        "--of",
        type=click.Choice([metric.value for metric in BOUNDED]),
        default=Metric.ENERGY.value,
        show_default=True,
        help="What a percentage refers to that names no metric.",
    )(command)
    return click.option(
        "--budget",
        required=True,
        multiple=True,
        metavar="BOUND",
        help="Upper bound: 0.025J, 25mJ, 12ms, 5MB, 200MMAC, or a share of dense: 60%, 60%macs, '60% of size'; may be "
        "repeated, once a metric (energy, latency, macs, size), and all hold.",
    )(command)


def price_options(command: Command) -> Command:
    """Add --device and --profile."""
    command = click.option(
        "--profile",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Profile file, in place of the device's own; may be repeated, each goes with the budget of its metric.",
    )(command)
    return click.option(
        "--device",
        multiple=True,
        shell_complete=device_names(*ARRAYS),
        help="Device whose profile prices the widths; may be repeated, each goes with the budget of its metric.  "
        "[default: virtual:tx2, for ms onnxruntime:cpu, for wsp systolic:eyeriss]",
    )(command)


def parse_budget_options(texts: Sequence[str], of: str) -> Tuple[Budget, ...]:
    """Read --budget; a wrong unit or two budgets of one metric are usage errors.

    Raises: click.UsageError with the accepted units, or the two budgets.
    """
    try:
        return parse_budgets(texts, Metric(of))
    except UnitError as error:
        raise click.UsageError(str(error)) from error


def print_budgets(budgets: Sequence[Mapping[str, Any]]) -> None:
    """Print a row for each budget of a result."""
    rows = []
    for told in budgets:
        metric = Metric(told["metric"])
        costs = [format_quantity(told[key], metric) for key in ("dense", "cost", "value")]
        rows.append((f"{metric.value} ({told['meter']})", *costs, f"{told['margin']:.1%}"))
    print_table("budgets", ("", "dense", "pruned", "budget", "held off"), rows)
