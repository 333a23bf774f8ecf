"""Devices that are really there, opened by name: what measures them, and what runs networks on them.

A name (see `device_names`) is refused where the machine at hand is another one: a cost model is of one board, and a
figure of another would pass for its.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, Iterator, Optional, Tuple

from edgeecc.device_names import CPU, PACKAGE, DeviceName, gpu_board
from edgeecc.errors import EdgeeccError, RuntimeUnavailableError
from edgeecc.loaders import Engines, Load, loader
from edgeecc.meters.base import ClockMeter, Meter
from edgeecc.meters.conditions import Sensors
from edgeecc.meters.ina3221 import RailSource, find_rails
from edgeecc.meters.jetson import JetsonSensors, identify
from edgeecc.meters.jtop import CompletedSensors, JtopSensors
from edgeecc.meters.nvml import open_gpu
from edgeecc.meters.rails import choose_rails
from edgeecc.meters.rapl import RaplMeter, find_domains
from edgeecc.meters.sampled import SampledMeter

#: The rail that is read where none is named: the paper's.
USUAL_RAIL = "gpu"


@dataclass(frozen=True)
class Target:
    """A device that is ready to be measured.

    Args:
        name: which it is.
        meter: reads its energy, or is only a clock.
        sensors: say what it is like; None where nothing does.
        load: makes a graph ready to run on it.
        load_once: the same for one that is measured once, whose engine is not kept; None where that is all the same.
    """

    name: DeviceName
    meter: Meter
    sensors: Optional[Sensors]
    load: Load
    load_once: Optional[Load] = None


@contextmanager
def open_target(
    name: DeviceName, engines: Optional[Engines] = None, root: Path = Path("/")
) -> Iterator[Target]:
    """Open a device for measuring, and let it go in the end.

    Args:
        name: which; not a virtual one.
        engines: how engines are built, where its runtime builds any.
        root: of the file system.
    Raises: RuntimeUnavailableError when this machine is another one, or lacks what it takes; MeterError when its meter
        cannot be read.
    """
    with ExitStack() as stack:
        meter, sensors = _board(name, root, stack)
        once = None if engines is None else loader(name, replace(engines, cache=None))
        yield Target(name, meter, sensors, loader(name, engines), once)


def _board(name: DeviceName, root: Path, stack: ExitStack) -> Tuple[Meter, Optional[Sensors]]:
    if name.board == CPU:
        return ClockMeter("clock"), None
    if name.board == PACKAGE:
        return RaplMeter(find_domains(root)), None
    if name.board.startswith("jetson-"):
        return _jetson(name, root, stack)
    return _gpu(name, stack)


def _jetson(name: DeviceName, root: Path, stack: ExitStack) -> Tuple[Meter, Sensors]:
    board = identify(root)
    hidden = (
        "no Jetson, or its device tree is hidden (docker run --security-opt systempaths=unconfined)"
    )
    _check_here(name, hidden if board is None else board.name)
    rails = choose_rails(find_rails(root), name.meter or USUAL_RAIL)
    return stack.enter_context(SampledMeter(RailSource(rails))), _jetson_sensors(root, stack)


def _jetson_sensors(root: Path, stack: ExitStack) -> Sensors:
    """Return what sysfs says, completed by jetson-stats where it says too little and that is here."""
    sensors = JetsonSensors(root)
    now = sensors.conditions()
    if now.clocks_hz and now.temperatures_c and now.mode:
        return sensors
    try:
        return CompletedSensors(sensors, stack.enter_context(JtopSensors()))
    except EdgeeccError:
        return sensors


def _gpu(name: DeviceName, stack: ExitStack) -> Tuple[Meter, Sensors]:
    gpu = stack.enter_context(open_gpu())
    _check_here(name, gpu_board(gpu.board.identity.model))
    meters: Dict[str, Optional[Meter]] = {"": gpu.meter, "counter": gpu.counter, "power": None}
    if name.meter == "power" and gpu.power is not None:
        meters["power"] = stack.enter_context(SampledMeter(gpu.power))
    meter = meters.get(name.meter)
    if meter is None:
        why = "; ".join(gpu.missing) or "a GPU has counter and power"
        raise RuntimeUnavailableError(
            f"{name.text} has no meter {name.meter or 'of its energy'}: {why}"
        )
    return meter, gpu.sensors


def _check_here(name: DeviceName, machine: str) -> None:
    if name.board != machine:
        raise RuntimeUnavailableError(
            f"{name.board} is not here, this machine is {machine}; run edgeecc on that board, or name it in a fleet "
            "with --fleet"
        )
