"""Where variants are measured: a virtual device, or the CPU at hand."""

from __future__ import annotations

from typing import Protocol

from edgeecc.calibration_folder import device_metric
from edgeecc.config import MeasureProtocol
from edgeecc.errors import ConfigError
from edgeecc.graph.onnx_slice import SlicePlan
from edgeecc.graph.onnx_work import work
from edgeecc.graph.spec import Widths
from edgeecc.meters.base import ClockMeter, Measurement
from edgeecc.meters.measure import measure
from edgeecc.meters.virtual import VirtualDevice
from edgeecc.runtimes.onnxrt import DEVICE as ORT_DEVICE
from edgeecc.runtimes.onnxrt import OnnxRuntime


class Bench(Protocol):
    """A device on which variants are measured."""

    def measure(self, number: int, widths: Widths, protocol: MeasureProtocol) -> Measurement:
        """Measure one variant; what simulated noise does depends on `number` alone."""


class VirtualBench:
    """A virtual device: the variant's work is counted, nothing is built."""

    def __init__(self, plan: SlicePlan, device: str, seed: int) -> None:
        self._plan, self._seed = plan, seed
        self._device = VirtualDevice.named(device)

    def measure(self, number: int, widths: Widths, protocol: MeasureProtocol) -> Measurement:
        """Measure one variant in simulated time."""
        self._device.load(work(self._plan, widths), (self._seed, number + 2, 1))
        return measure(self._device.run, self._device, protocol)


class OnnxRuntimeBench:
    """The CPU at hand: the variant is cut, loaded and timed."""

    def __init__(self, plan: SlicePlan) -> None:
        self._plan = plan

    def measure(self, number: int, widths: Widths, protocol: MeasureProtocol) -> Measurement:
        """Measure one variant's latency."""
        del number
        with OnnxRuntime(self._plan.cut(self._plan.spec.keep_first(widths))) as runtime:
            return measure(runtime.run, ClockMeter(runtime.name), protocol)


def check_measurable(device: str) -> None:
    """Check that a device can be measured from here; asked before a network is traced, which may take a minute.

    Raises: ConfigError for an unknown device, or one that cannot.
    """
    device_metric(device)
    if not device.startswith("virtual:") and device != ORT_DEVICE:
        raise ConfigError(
            f"{device} cannot be measured by this version; its shipped profile can be used with --device"
        )


def make_bench(plan: SlicePlan, device: str, seed: int) -> Bench:
    """Return the bench of a device.

    Raises: ConfigError for an unknown device, or one that cannot be measured from here.
    """
    check_measurable(device)
    if device == ORT_DEVICE:
        return OnnxRuntimeBench(plan)
    return VirtualBench(plan, device, seed)
