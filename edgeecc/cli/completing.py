"""What a shell completes beside commands and options: networks, devices, methods and run folders, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterable, List

import click
from click.shell_completion import CompletionItem

from edgeecc.cost.hardware import PRESETS
from edgeecc.device_names import CPU, ORT_CPU, PACKAGE, PRECISIONS, RUNS_IN, RUNTIMES
from edgeecc.meters.jetson import BOARDS
from edgeecc.meters.virtual import LAWS
from edgeecc.networks.names import NAMES
from edgeecc.solvers.table import METHODS, WEIGHT_METHODS

#: Analytic devices, of single weights.
ARRAYS = tuple(f"systolic:{name}" for name in sorted(PRESETS))

Items = List[CompletionItem]  # type: ignore[type-arg,unused-ignore]  # generic only in new click
Complete = Callable[[click.Context, click.Parameter, str], Items]


def network_names(_: click.Context, __: click.Parameter, typed: str) -> Items:
    """Complete --network, by a name or a file."""
    return _that_begin(NAMES, typed) or [CompletionItem(typed, type="file")]


def method_names(_: click.Context, __: click.Parameter, typed: str) -> Items:
    """Complete --method."""
    return _that_begin((*METHODS, *WEIGHT_METHODS), typed)


def methods_list(_: click.Context, __: click.Parameter, typed: str) -> Items:
    """Complete --methods, names with commas between them."""
    done, comma, _last = typed.rpartition(",")
    return _that_begin((f"{done}{comma}{name}" for name in METHODS), typed)


def device_names(*more: str) -> Complete:
    """Return what completes --device: known names, those in `more`, and BOARD:RUNTIME:PRECISION part by part."""

    def complete(_: click.Context, __: click.Parameter, typed: str) -> Items:
        board, *parts = typed.split(":")
        names = [*LAWS, ORT_CPU, *more, f"{PACKAGE}:onnxruntime", *BOARDS]
        if len(parts) == 1 and board not in (CPU, PACKAGE):
            names += [f"{board}:{runtime}" for runtime in RUNTIMES if _is_board(board)]
        if len(parts) == 2:
            runs_in = RUNS_IN.get(parts[0], PRECISIONS)
            names += [f"{board}:{parts[0]}:{precision}" for precision in runs_in]
        return _that_begin(names, typed)

    return complete


def run_folders(ctx: click.Context, _: click.Parameter, typed: str) -> Items:
    """Complete RUN: the runs of the workspace, else any folder."""
    runs = Path(ctx.params.get("workspace") or "") / "runs"
    found = sorted(str(path.parent) for path in runs.glob("*/run.json"))
    return _that_begin(found, typed) or [CompletionItem(typed, type="dir")]


def _is_board(name: str) -> bool:
    return name.startswith(("jetson-", "nvidia-"))


def _that_begin(names: Iterable[str], typed: str) -> Items:
    return [CompletionItem(name) for name in names if name.startswith(typed)]
