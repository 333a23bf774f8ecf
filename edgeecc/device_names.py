"""What --device names: a board, what runs networks on it, in which precision, and what reads its energy.

BOARD[:RUNTIME[:PRECISION[:METER]]], such as `jetson-orin-nx:tensorrt:fp16` or `jetson-tx2:trtexec:fp32:input`. A cost
model is of all four. `virtual:tx2` and `onnxruntime:cpu` are names of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, Optional, Tuple

from edgeecc.errors import ConfigError
from edgeecc.meters.virtual import LAWS
from edgeecc.units import Metric

RUNTIMES = ("tensorrt", "trtexec", "onnxruntime", "torch")
#: Those that build engines.
ENGINE_RUNTIMES = ("tensorrt", "trtexec")
PRECISIONS = ("fp32", "fp16", "int8")
#: What each runtime can run a float32 graph in.
RUNS_IN: Dict[str, Tuple[str, ...]] = {
    "tensorrt": PRECISIONS,
    "trtexec": PRECISIONS,
    "onnxruntime": ("fp32",),
    "torch": ("fp32", "fp16"),
}
#: The best board at hand.
AUTO = "auto"
#: The CPU at hand: its time, and the energy of its package.
CPU, PACKAGE = "cpu", "cpu-package"
#: Its name from before boards had runtimes.
ORT_CPU = "onnxruntime:cpu"
GRAMMAR = "BOARD:RUNTIME:PRECISION, such as jetson-orin-nx:tensorrt:fp16"
_BOARD = re.compile(
    r"cpu|cpu-package|jetson-[a-z0-9][a-z0-9-]{0,39}|nvidia-[a-z0-9][a-z0-9-]{0,59}"
)
_METER = re.compile(r"[A-Za-z0-9_]{1,40}(\+[A-Za-z0-9_]{1,40}){0,7}")


@dataclass(frozen=True)
class DeviceName:
    """A device, read.

    Args:
        board: `cpu`, `cpu-package`, `jetson-...`, `nvidia-...`, or a virtual device.
        runtime: one of RUNTIMES; empty for virtual devices, and for boards of shipped profiles that say no more.
        precision: one of PRECISIONS.
        meter: rail or counter of its energy; empty takes the board's usual one.
    """

    board: str
    runtime: str = ""
    precision: str = "fp32"
    meter: str = ""

    @property
    def text(self) -> str:
        """The device as it is written, and as its folder is called."""
        if self == DeviceName(CPU, "onnxruntime"):
            return ORT_CPU
        if not self.runtime:
            return self.board
        parts = [self.board, self.runtime, self.precision, *([self.meter] if self.meter else [])]
        return ":".join(parts)

    @property
    def metric(self) -> Metric:
        """What its profiles predict: energy, where anything reads it."""
        return Metric.LATENCY if self.board == CPU else Metric.ENERGY

    @property
    def is_virtual(self) -> bool:
        """Whether its joules are simulated."""
        return self.board in LAWS


def parse_device(text: str) -> DeviceName:
    """Read a device's name.

    Raises: ConfigError when it is none.
    """
    if text in LAWS:
        return DeviceName(text)
    if text == ORT_CPU:
        return DeviceName(CPU, "onnxruntime")
    board, *parts = text.split(":")
    runtime, precision, meter = (*parts, "", "", "")[:3]
    precision = precision or "fp32"
    fault = (
        _fault(board, runtime, precision, meter) if len(parts) <= 3 else "has more than four parts"
    )
    if fault is not None:
        known = ", ".join([*sorted(LAWS), ORT_CPU])
        raise ConfigError(f"unknown device {text!r}: it {fault}; known are {known}, and {GRAMMAR}")
    return DeviceName(board, runtime, precision, meter)


def gpu_board(model: str) -> str:
    """Return the name of a board, of the model that NVML tells, such as "nvidia-h200"."""
    slug = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
    slug = slug[len("nvidia-") :] if slug.startswith("nvidia-") else slug
    return f"nvidia-{slug or 'gpu'}"[:67].rstrip("-")


def _fault(board: str, runtime: str, precision: str, meter: str) -> Optional[str]:
    """Return what is wrong with the parts of a name, None when nothing is."""
    if not _BOARD.fullmatch(board):
        return f"has {board!r} for a board, not cpu, cpu-package, jetson-... or nvidia-..."
    if board in (CPU, PACKAGE) and runtime != "onnxruntime":
        return f"needs onnxruntime on a {board}"
    if runtime and runtime not in RUNTIMES:
        return f"has {runtime!r} for a runtime, not {', '.join(RUNTIMES)}"
    if precision not in RUNS_IN.get(runtime, PRECISIONS):
        return (
            f"has {precision!r} for a precision, not {', '.join(RUNS_IN.get(runtime, PRECISIONS))}"
        )
    if meter and (board == CPU or not _METER.fullmatch(meter)):
        return f"has {meter!r} for a meter"
    return None
