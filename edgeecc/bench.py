"""Where variants are measured: a virtual device, or the board at hand."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Callable, Dict, Iterator, Optional, Protocol, Sequence, Tuple

import onnx

from edgeecc.config import MeasureProtocol
from edgeecc.device_names import DeviceName, parse_device
from edgeecc.errors import ConfigError
from edgeecc.graph.onnx_slice import SlicePlan
from edgeecc.graph.onnx_work import work
from edgeecc.graph.spec import Widths
from edgeecc.loaders import SAMPLE_LEVEL, Engines
from edgeecc.meters.base import ClockMeter, Measurement
from edgeecc.meters.measure import Observe, Reading, idle_power, measure, measure_observed
from edgeecc.meters.virtual import VirtualDevice
from edgeecc.runtimes.base import Runtime
from edgeecc.runtimes.trtexec import TrtexecRuntime
from edgeecc.targets import Target, open_target


class Bench(Protocol):
    """A device on which variants are measured."""

    def measure(self, number: int, widths: Widths, protocol: MeasureProtocol) -> Measurement:
        """Measure one variant; what simulated noise does depends on `number` alone."""

    def about(self) -> Dict[str, object]:
        """Return what is to be told of the device beside its samples: what it draws when idle, and what it is like."""


class VirtualBench:
    """A virtual device: the variant's work is counted, nothing is built."""

    def __init__(self, plan: SlicePlan, device: str, seed: int) -> None:
        self._plan, self._seed = plan, seed
        self._device = VirtualDevice.named(device)

    def measure(self, number: int, widths: Widths, protocol: MeasureProtocol) -> Measurement:
        """Measure one variant in simulated time."""
        self._device.load(work(self._plan, widths), (self._seed, number + 2, 1))
        return measure(self._device.run, self._device, protocol)

    def about(self) -> Dict[str, object]:
        """Return nothing: a virtual device is always like its law."""
        return {}


class TargetBench:
    """A device that is really there: the variant is cut, built, and measured.

    Building and measuring take turns: a build would draw on the same chip and the same memory as what is measured.
    """

    def __init__(self, plan: SlicePlan, target: Target) -> None:
        self._plan, self._target = plan, target

    def measure(self, number: int, widths: Widths, protocol: MeasureProtocol) -> Measurement:
        """Measure one variant."""
        del number
        graph = self._plan.cut(self._plan.spec.keep_first(widths))
        return measure_graph(graph, self._target, protocol)

    def about(self) -> Dict[str, object]:
        """Return the idle power, watts, and the conditions; where there is a meter, it takes seconds."""
        target = self._target
        idle_w = idle_power(target.meter)
        told: Dict[str, object] = {} if idle_w is None else {"idle_power_w": idle_w}
        if target.sensors is not None:
            told["conditions"] = target.sensors.conditions().to_json()
        return told


def measure_graph(graph: onnx.ModelProto, target: Target, protocol: MeasureProtocol) -> Measurement:
    """Measure one inference of a graph on a device that is there."""
    with target.load(graph) as runtime:
        return measure_loaded(runtime, target, protocol)


def measure_loaded(runtime: Runtime, target: Target, protocol: MeasureProtocol) -> Measurement:
    """Measure one inference of what is ready to run on a device that is there."""
    if isinstance(runtime, TrtexecRuntime):
        found = measure_observed(_observe(runtime), target.meter, protocol, target.sensors)
    else:
        found = measure(runtime.run, target.meter, protocol, target.sensors)
    is_clock = isinstance(target.meter, ClockMeter)
    name = runtime.name if is_clock else f"{target.meter.name}, {runtime.name}"
    return replace(found, meter=name)


def _observe(runtime: TrtexecRuntime) -> Observe:
    """Return what observes the meter while the program runs by itself: its start costs joules of no inference."""

    def observe(
        read: Callable[[], Reading], windows: int, window_s: float
    ) -> Tuple[Sequence[Reading], float]:
        found = runtime.observe(read, windows=windows, window_s=window_s)
        return found.readings, found.timing.rate_hz

    return observe


def check_measurable(device: str) -> DeviceName:
    """Check that a device could be measured from some machine, asked before a network is traced, and return its name.

    Raises: ConfigError for an unknown device, or one that says too little.
    """
    name = parse_device(device)
    if not name.is_virtual and not name.runtime:
        raise ConfigError(
            f"{device} does not say what runs networks on it; measure {device}:tensorrt:fp32, say, or take its shipped "
            "profile with prune --device"
        )
    return name


@contextmanager
def open_bench(
    plan: SlicePlan, device: str, seed: int, folder: Optional[Path] = None
) -> Iterator[Bench]:
    """Open the bench of a device, and let it go in the end.

    Args:
        plan: cuts the variants.
        device: its name.
        seed: of simulated noise.
        folder: keeps timings of kernels between calls; None keeps none.
    Raises: ConfigError for an unknown device, or one that says too little; RuntimeUnavailableError when it is not this
        machine's, or lacks what it takes.
    """
    name = check_measurable(device)
    if name.is_virtual:
        yield VirtualBench(plan, device, seed)
        return
    with open_target(name, Engines(folder, SAMPLE_LEVEL)) as target:
        yield TargetBench(plan, target)
