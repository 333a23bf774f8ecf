"""Where variants are measured: a virtual device, or the board at hand."""

from __future__ import annotations

import logging
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
from edgeecc.loaders import SAMPLE_LEVEL, Engines, engine_cache
from edgeecc.meters.base import ClockMeter, Measurement
from edgeecc.meters.measure import Observe, Reading, idle_power, measure, measure_observed
from edgeecc.meters.virtual import VirtualDevice
from edgeecc.runtimes.base import Runtime, TimedByDevice
from edgeecc.runtimes.trtexec import TrtexecRuntime
from edgeecc.targets import Target, open_target
from edgeecc.timing import TOLERANCE, runs_to_time
from edgeecc.units import Metric, format_quantity

logger = logging.getLogger(__name__)


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

    Args:
        plan: cuts the variants.
        target: the device.
        events: times single inferences too, where the device has a clock.
    """

    def __init__(self, plan: SlicePlan, target: Target, *, events: bool = False) -> None:
        self._plan, self._target, self._events = plan, target, events

    def measure(self, number: int, widths: Widths, protocol: MeasureProtocol) -> Measurement:
        """Measure one variant; the engines of the dense and the thinnest, which come again, are kept."""
        graph, target = self._plan.cut(self._plan.spec.keep_first(widths)), self._target
        if number >= 0 and target.load_once is not None:
            target = replace(target, load=target.load_once)
        return measure_graph(graph, target, protocol, events=self._events)

    def about(self) -> Dict[str, object]:
        """Return the idle power, watts, and the conditions; where there is a meter, it takes seconds."""
        target = self._target
        idle_w = idle_power(target.meter)
        told: Dict[str, object] = {} if idle_w is None else {"idle_power_w": idle_w}
        if target.sensors is not None:
            told["conditions"] = target.sensors.conditions().to_json()
        return told


def measure_graph(
    graph: onnx.ModelProto, target: Target, protocol: MeasureProtocol, *, events: bool = False
) -> Measurement:
    """Measure one inference of a graph on a device that is there; see `measure_loaded`."""
    with target.load(graph) as runtime:
        return measure_loaded(runtime, target, protocol, events=events)


def measure_loaded(
    runtime: Runtime, target: Target, protocol: MeasureProtocol, *, events: bool = False
) -> Measurement:
    """Measure one inference of what is ready to run on a device that is there.

    Args:
        runtime: runs the network.
        target: the device.
        protocol: how it is measured.
        events: times single inferences too, where the device has a clock of its own.
    """
    if isinstance(runtime, TrtexecRuntime):
        found = measure_observed(_observe(runtime), target.meter, protocol, target.sensors)
    else:
        found = measure(runtime.run, target.meter, protocol, target.sensors)
    is_clock = isinstance(target.meter, ClockMeter)
    name = runtime.name if is_clock else f"{target.meter.name}, {runtime.name}"
    found = replace(found, meter=name)
    return _with_device_times(found, runtime) if events else found


def _with_device_times(found: Measurement, runtime: Runtime) -> Measurement:
    """Return a measurement with the times of single inferences; warn where the host's clock tells another latency."""
    if not isinstance(runtime, TimedByDevice):
        return found
    times = runtime.device_times(runs_to_time(found.latency_s))
    if times is not None and not times.agree_with(found.latency_s):
        host, device = (
            format_quantity(value, Metric.LATENCY) for value in (found.latency_s, times.median_s)
        )
        logger.warning(
            "an inference takes %s by the host's clock, back to back, and %s by %s, over %.0f %% apart: the host's "
            "launches are a part of it (a launch-bound network)",
            host, device, times.clock, 100.0 * TOLERANCE,
        )  # fmt: skip
    return replace(found, device_times=times)


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
    plan: SlicePlan, device: str, seed: int, folder: Optional[Path] = None, *, events: bool = False
) -> Iterator[Bench]:
    """Open the bench of a device, and let it go in the end.

    Args:
        plan: cuts the variants.
        device: its name.
        seed: of simulated noise.
        folder: keeps timings of kernels between calls, and the engines of the dense and the thinnest network in
            `engines`; None keeps none.
        events: times single inferences too, where the device has a clock.
    Raises: ConfigError for an unknown device, or one that says too little; RuntimeUnavailableError when it is not this
        machine's, or lacks what it takes.
    """
    name = check_measurable(device)
    if name.is_virtual:
        yield VirtualBench(plan, device, seed)
        return
    cache = None if folder is None else engine_cache(folder / "engines", name)
    with open_target(name, Engines(folder, SAMPLE_LEVEL, cache=cache)) as target:
        yield TargetBench(plan, target, events=events)
