"""Options that several commands share, and the parameter types of edgeecc."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence, Tuple, TypeVar, get_args

import click

from edgeecc.cli.completing import device_names, network_names, run_folders
from edgeecc.config import Accelerator, ComputeConfig, Precision
from edgeecc.device_names import PRECISIONS

Command = TypeVar("Command", bound=Callable[..., Any])

_COMPUTE = ComputeConfig()
_COMPUTE_NAMES = ("accelerator", "precision", "channels_last")


class ShapeType(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic only in new click
    """An input shape such as 3x224x224."""

    name = "CxHxW"

    def convert(
        self, value: Any, param: Optional[click.Parameter], ctx: Optional[click.Context]
    ) -> Tuple[int, ...]:  # fmt: skip
        """Return the shape as integers."""
        if isinstance(value, tuple):
            return value
        parts = str(value).lower().split("x")
        if (
            not all(part.isdigit() and 0 < int(part) <= 65536 for part in parts)
            or not 1 <= len(parts) <= 5
        ):
            self.fail(
                f"{value!r} is no input shape; write channels, height and width such as 3x224x224",
                param,
                ctx,
            )
        return tuple(int(part) for part in parts)


def json_option(command: Command) -> Command:
    """Add --json: exactly one JSON object on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")(
        command
    )


def workspace_option(command: Command) -> Command:
    """Add --workspace: where calibration/ and runs/ live."""
    return click.option(
        "--workspace",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path(),
        help="Folder that holds calibration/ and runs/.  [default: the working directory]",
    )(command)


def run_argument(command: Command) -> Command:
    """Add RUN, which may be left out."""
    return click.argument(
        "run", required=False, type=click.Path(path_type=Path), shell_complete=run_folders
    )(command)


def network_options(command: Command) -> Command:
    """Add --network, --input and --paper-groups."""
    command = click.option(
        "--paper-groups",
        is_flag=True,
        help="Keep residual streams whole, as the paper does, in place of pruning them too.",
    )(command)
    command = click.option(
        "--network",
        shell_complete=network_names,
        help="Network: a name that edgeecc knows, package.module:factory of your own, or a torch.export .pt2 file.",
    )(command)
    return click.option(
        "--input",
        "input_shape",
        type=ShapeType(),
        help="Input shape without batch, e.g. 3x224x224.",
    )(command)


def margin_options(command: Command) -> Command:
    """Add how far a budget is held off."""
    command = click.option(
        "--margin", type=float, help="Share held off every budget, in place of --confidence."
    )(command)
    return click.option(
        "--confidence",
        type=float,
        help="With which a measurement is to hold every budget.  [default: 0.95, or what the held-out samples tell]",
    )(command)


def compute_options(command: Command) -> Command:
    """Add --accelerator, --precision and --channels-last: what trains, and how."""
    command = click.option(
        "--channels-last/--no-channels-last",
        default=_COMPUTE.channels_last,
        help="Keep the channels of a pixel together in memory.  [default: where the network takes it]",
    )(command)
    command = click.option(
        "--precision",
        type=click.Choice(get_args(Precision)),
        default=_COMPUTE.precision,
        show_default=True,
        help="Of forward passes in training; fp16 needs a GPU.",
    )(command)
    return click.option(
        "--accelerator",
        type=click.Choice(get_args(Accelerator)),
        default=_COMPUTE.accelerator,
        show_default=True,
        help="What trains: cuda is an NVIDIA GPU, auto one where there is one.",
    )(command)


def compute_of_options(options: Mapping[str, Any]) -> ComputeConfig:
    """Return what `compute_options` asked for."""
    return ComputeConfig(**{name: options[name] for name in _COMPUTE_NAMES})


def precision_option(command: Command) -> Command:
    """Add --precision: of a device that names none."""
    return click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        help="Of a board whose --device names none.  [default: fp32]",
    )(command)


def device_option(
    default: str, more: str = "", names: Sequence[str] = ()
) -> Callable[[Command], Command]:
    """Add --device with the given default; `more` says what this command takes beside, `names` completes it."""
    return click.option(
        "--device",
        default=default,
        show_default=True,
        shell_complete=device_names(*names),
        help="What is measured: virtual:tx2 (simulated joules), onnxruntime:cpu (seconds on this machine), or a board "
        f"as BOARD:RUNTIME:PRECISION[:METER], such as jetson-orin-nx:tensorrt:fp16{more}.",
    )
