"""`edgeecc measure`."""

from __future__ import annotations

import io
import json
import os
import select
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, Optional, Tuple, get_args

import click

from edgeecc.calibration_folder import device_metric
from edgeecc.cli.calibrate import protocol_of, protocol_options
from edgeecc.cli.config_file import config_option
from edgeecc.cli.options import device_option, json_option, precision_option
from edgeecc.cli.output import emit_json, events_pairs, key_values
from edgeecc.cli.progress import ProgressDisplay
from edgeecc.config import CalibrateConfig, Design
from edgeecc.cost.samples import THINNEST
from edgeecc.device_names import AUTO
from edgeecc.fleet.wire import MAX_LINE, MAX_NUMBER
from edgeecc.progress import Progress

if TYPE_CHECKING:
    from edgeecc.graph.spec import Widths
    from edgeecc.measure_variants import Station

#: Exit status where nobody reads what is measured.
EXIT_UNREAD = 141


class WidthsType(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic only in new click
    """Widths such as 8,16,120."""

    name = "W,W,..."

    def convert(
        self, value: Any, param: Optional[click.Parameter], ctx: Optional[click.Context]
    ) -> Tuple[int, ...]:  # fmt: skip
        """Return the widths as integers."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isdecimal() and len(part) < 10 for part in parts):
            self.fail(f"{value!r} are no widths; write whole numbers such as 8,16,120", param, ctx)
        return tuple(int(part) for part in parts)


@click.command(short_help="Measure single variants on this device.")
@click.option(
    "--graph",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder with spec.json and dense.onnx of a traced network.",
)
@config_option
@device_option("virtual:tx2", "; auto takes the best board here", (AUTO,))
@precision_option
@click.option("--widths", type=WidthsType(), help="Units that each prunable group keeps, in order.")
@click.option(
    "--number",
    type=click.IntRange(THINNEST, MAX_NUMBER),
    help="Variant that calibrate draws as this sample; -1 is dense, -2 the thinnest.",
)
@click.option(
    "--seed",
    type=int,
    default=CalibrateConfig().seed,
    show_default=True,
    help="Seed of widths and simulated noise.",
)
@click.option(
    "--design",
    type=click.Choice(get_args(Design)),
    default=CalibrateConfig().design,
    show_default=True,
    help="Design by which calibrate draws it.",
)
@protocol_options
@json_option
@click.pass_context
def measure(ctx: click.Context, /, as_json: bool, **options: Any) -> None:
    """Measure variants of a network on this device; needs no torch.

    Without --widths or --number it reads variants from stdin, one {"number": N, "widths": [W, ...]} a line, and
    prints a line of JSON for each as soon as it is measured, after one that says what is measured. So a board of a
    fleet is driven (edgeecc calibrate --fleet).

    \b
    Examples:
      edgeecc measure --graph calibration/virtual-tx2/lenet5 --number 0
      edgeecc measure --graph lenet5 --device onnxruntime:cpu --widths 6,16,120 --json
      edgeecc measure --graph mobilenet_v1 --device auto --precision fp16 --number -1
    """  # noqa: D301  # \b keeps click from wrapping
    widths, number = options["widths"], options["number"]
    if widths is None and number is None and sys.stdin.isatty():
        raise click.UsageError("give --widths, --number, or variants as lines of JSON on stdin")
    from edgeecc.machine import resolve
    from edgeecc.measure_variants import Station

    options["device"] = resolve(options["device"], options["precision"])
    is_one = widths is not None or number is not None
    network = options["graph"], options["device"], options["seed"]
    with Station.open(*network, protocol_of(options), events=is_one) as station:
        if not is_one:
            _stream(station)
            return
        if widths is not None:
            chosen: Widths = station.spec.widths(widths)
        else:
            chosen = station.sample(number, options["seed"], options["design"])
        with ProgressDisplay(quiet=ctx.obj["quiet"]) as show:
            show(Progress("measuring", note=f"one variant on {station.device}"))
            found = station.measure(0 if number is None else number, chosen)
    if as_json:
        emit_json(found)
        return
    for line in key_values(_pairs(found, device_metric(station.device).unit)):
        click.echo(line)


def _stream(station: Station) -> None:
    _leave_when_unread()
    for found in station.serve(_lines()):
        click.echo(json.dumps(found, allow_nan=False))
        sys.stdout.flush()


def _lines() -> Iterator[str]:
    """Yield the lines of stdin as they come, cut where they are too long."""
    while True:
        line = sys.stdin.readline(MAX_LINE + 1)
        if not line:
            return
        yield line


def _leave_when_unread() -> None:
    """End this process when nobody reads its stdout any more, also in the middle of a measurement.

    A host that died may start another on the same board, and two that measure at once disturb each other.
    """
    try:
        out = sys.stdout.fileno()
    except (io.UnsupportedOperation, ValueError):
        return
    watch = select.poll()
    watch.register(out, 0)  # no event but the end is asked for

    def wait() -> None:
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll()):
            os._exit(EXIT_UNREAD)

    threading.Thread(target=wait, daemon=True).start()


def _pairs(found: Dict[str, Any], unit: str) -> Dict[str, str]:
    error = found["standard_error"]
    return {
        "widths": ",".join(map(str, found["widths"])),
        "cost": f"{found['value']:.4g} {unit}" + (f" +- {error:.2g}" if error is not None else ""),
        "latency": f"{found['latency_s']:.4g} s",
        **events_pairs(found),
        "windows": f"{found['windows']} of {found['runs']} runs",
        "settled": "yes" if found["converged"] else "no, the tolerance was not reached",
        "meter": found["meter"],
    }
