"""Virtual devices: documented stand-ins for machines that are not here. Their joules are simulated, and say so.

`virtual:tx2` is one physical law with the constants of the energy model that the authors of ECC published for
AlexNet on a Jetson TX2 (GPU rail, PyTorch, float32). Read with each layer's work, those coefficients say 32 to
35 pJ per multiply-accumulate in every convolution, 107 to 119 pJ per weight byte in the linear layers, and
2.48 mJ per inference. We take 34 pJ, 107 pJ and 2.48 mJ, charge activations like weights, and let every ONNX
node (convolution, batch norm, ReLU: separate passes, as PyTorch ran them) read its inputs and write its output.

Two things make it harder than the law, as a real board is: convolutions and matrix products work on tiles of
output channels, so a width off the tile costs as much as the next multiple, and readings are noisy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Dict, Optional, Sequence

import numpy as np

from edgeecc.errors import ConfigError, MeterError
from edgeecc.workload import NodeWork


@dataclass(frozen=True)
class DeviceLaw:
    """Constants of a virtual device.

    Args:
        name: device name.
        fixed_j: joules per inference, whatever it does.
        mac_j: joules per multiply-accumulate.
        byte_j: joules per byte of weights and activations moved.
        tile: output channels per group are worked in multiples of this; depthwise convolutions are not tiled.
        noise: standard deviation of a window's reading, relative.
        macs_per_s, bytes_per_s: sustained rates for the simulated latency.
        node_s: seconds per node launched.
    """

    name: str
    fixed_j: float
    mac_j: float
    byte_j: float
    tile: int
    noise: float
    macs_per_s: float
    bytes_per_s: float
    node_s: float


#: Jetson TX2, GPU, float32. Energy constants: see above. Tile: 8, the narrowest output tile of GEMM kernels
#: (ours; the TX2's own is not published). Noise: 6.6 %, the median over 25 convolutions of the spread of
#: ten-run means in recorded TX2 GPU energies (walcarher/SysIdentif). Rates: 256 cores at 1.3 GHz and 59.7 GB/s,
#: at half and at 70 % of their peak (ours); latency is simulated and calibrated against nothing.
TX2 = DeviceLaw(
    name="virtual:tx2",
    fixed_j=2.48e-3,
    mac_j=34e-12,
    byte_j=107e-12,
    tile=8,
    noise=0.066,
    macs_per_s=0.5 * 256 * 1.3e9,
    bytes_per_s=0.7 * 59.7e9,
    node_s=15e-6,
)

LAWS: Dict[str, DeviceLaw] = {TX2.name: TX2}


def law_energy_j(law: DeviceLaw, nodes: Sequence[NodeWork]) -> float:
    """Return the joules of one inference, without noise."""
    return law.fixed_j + sum(node_energy_j(law, node) for node in nodes)


def node_energy_j(law: DeviceLaw, node: NodeWork) -> float:
    """Return the joules of one node, without noise and without the fixed share."""
    moved = node.weight_bytes + node.read_bytes + node.written_bytes
    return law.mac_j * _tiled_macs(law, node) + law.byte_j * moved


def _tiled_macs(law: DeviceLaw, node: NodeWork) -> float:
    depthwise = node.conv_groups > 1 and node.in_channels == 1
    if not node.out_channels or depthwise or law.tile <= 1:
        return node.macs
    return node.macs * math.ceil(node.out_channels / law.tile) * law.tile / node.out_channels


def _law_latency_s(law: DeviceLaw, nodes: Sequence[NodeWork]) -> float:
    total = 0.0
    for node in nodes:
        moved = node.weight_bytes + node.read_bytes + node.written_bytes
        total += law.node_s + max(_tiled_macs(law, node) / law.macs_per_s, moved / law.bytes_per_s)
    return total


class VirtualDevice:
    """A meter and a runtime on simulated time: `load` work, `run` it, read joules and seconds."""

    period_s = step_w = 0.0

    def __init__(self, law: DeviceLaw) -> None:
        self.law = law
        self.name = f"{law.name} (simulated)"
        self._joules = 0.0
        self._seconds = 0.0
        self._energy_j: Optional[float] = None
        self._latency_s = 0.0
        self._noise = np.random.default_rng(0)

    @staticmethod
    def named(name: str, *, tiles: bool = True, noise: bool = True) -> VirtualDevice:
        """Return a virtual device by name, with or without its tiles and noise.

        Raises: ConfigError for an unknown name.
        """
        if name not in LAWS:
            raise ConfigError(
                f"unknown virtual device {name!r}; known are {', '.join(sorted(LAWS))}"
            )
        law = LAWS[name]
        return VirtualDevice(
            replace(law, tile=law.tile if tiles else 1, noise=law.noise if noise else 0.0)
        )

    def load(self, nodes: Sequence[NodeWork], seed: Sequence[int] = (0,)) -> None:
        """Take the work of one inference; counter, clock and noise (from `seed`) start afresh.

        Rounding then depends on nothing that ran before: the same seed gives the same bits.
        """
        self._joules = self._seconds = 0.0
        self._energy_j = law_energy_j(self.law, nodes)
        self._latency_s = _law_latency_s(self.law, nodes)
        self._noise = np.random.default_rng(list(seed))

    def run(self, count: int) -> None:
        """Run `count` inferences back to back, in no time: the counter and the clock move on."""
        if self._energy_j is None:
            raise MeterError(f"{self.name} has nothing to run; load work first")
        deviation = max(-0.9, self.law.noise * float(self._noise.standard_normal()))
        self._joules += count * self._energy_j * (1.0 + deviation)
        self._seconds += count * self._latency_s

    def clock_s(self) -> float:
        """Return simulated seconds."""
        return self._seconds

    def read_j(self) -> Optional[float]:
        """Return simulated joules."""
        return self._joules

    def blind_s(self) -> float:
        """Return 0: nothing is missed."""
        return 0.0
