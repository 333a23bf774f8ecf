"""Power rails of a Jetson: the channels of its INA3221 chips, found by label.

The chip measures the voltage V of a rail and the drop over a shunt of R ohms; the kernel gives V, the current, and on
some releases their product. Two layouts exist:

    r32          /sys/bus/i2c/drivers/ina3221x/*/iio:device*/  rail_name_0, in_power0_input (mW)
    from r34 on  /sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/  in1_label, in1_input (mV), curr1_input (mA)

Resolution. One step of the chip is 40 uV over the shunt and 8 mV on the bus (data sheet SBOS576, 6.5), so power moves
in steps of V * 40 uV / R: 76 mW on the GPU rail of a TX2 (19 V, 10 mOhm), 40 mW on the rails of an Orin Nano (5 V,
5 mOhm). The step of the bus, 8 mV times the current, is finer than that below 5 A. R is read from `shuntN_resistor` or
from the device tree.

Offset. The drop may be off by 80 uV, two steps (same table), so a rail that draws nothing may read that much below
zero; it counts as zero. Anything lower is refused.

Time. The chip converts bus and shunt of its three channels in turn, and averages: the time of one update is the number
of channels x samples x (bus + shunt conversion time) (data sheet 7.4.2.2; `update_interval` in the kernel's
Documentation/hwmon/ina3221.rst). It is read from `update_interval`, or computed from the configuration that the device
tree gives the r32 driver. The hwmon driver lets every file wait for a whole update, 7 ms as a rule, so V and I of six
rails take 80 ms; that of r32 waits only where the chip is triggered by each reading.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

from edgeecc.errors import MeterError
from edgeecc.meters.sysfs import (
    exists,
    optional_cell,
    optional_int,
    optional_text,
    read_int,
    read_text,
)

#: Volts over the shunt between two codes (data sheet SBOS576, 6.5).
SHUNT_STEP_V = 40e-6
#: The drop may be off by so many steps (same table: 80 uV at most).
OFFSET_STEPS = 2
#: No rail of a Jetson carries as much; a higher reading is garbage (ours; the largest module is fed 130 W).
MOST_W = 1000.0
#: A reading occupies a CPU and the I2C bus for milliseconds, which a CPU or input rail sees: not more often (ours).
READ_EVERY_S = 0.01
#: What a shunt may be. Outside, the driver was told nonsense: the mainline tree of the TX2 NX says 5 micro-ohms.
_SHUNTS_OHM = (1e-4, 1.0)
#: The smallest shunt of any board in `rails.LAYOUTS`, so the coarsest step, where the value cannot be read.
_SHUNT_OHM = 0.002
#: The highest voltage that a listed module is fed with, so the coarsest step, where it cannot be read.
_BUS_V = 20.0
#: Configuration after a reset, which the hwmon driver keeps: one sample at 1.1 ms (data sheet 7.6.2.1).
_RESET_CONFIG = 0x7127
#: The one that the r32 driver names as its own, 64 samples at 1.1 ms, where the tree's cannot be read.
_R32_CONFIG = 0x7727
#: By code (data sheet 7.6.2.1).
_CONVERSIONS_S = (140e-6, 204e-6, 332e-6, 588e-6, 1.1e-3, 2.116e-3, 4.156e-3, 8.244e-3)
_SAMPLES = (1, 4, 16, 64, 128, 256, 512, 1024)
#: Labels of channels that are connected to nothing; the kernel prints "(null)" for one without a name.
_NO_LABELS = ("", "NC", "(null)")
_DRIVERS = "sys/bus/i2c/drivers/ina3221*"
_REMEDY = "let root run chmod a+r on it, or run as root; in a container mount /sys read-only"


@dataclass(frozen=True)
class Rail:
    """A rail with a channel of an INA3221.

    Args:
        label: as the board calls it, such as "VDD_SYS_GPU".
        chip: bus and address of the chip, such as "1-0040".
        files: whole numbers whose product is its power in `unit_w`: a power, or a voltage and a current.
        unit_w: watts.
        step_w: watts between neighbouring readings.
        period_s: seconds between updates.
        waits: for how many updates a reading waits, at most.
    """

    label: str
    chip: str
    files: Tuple[Path, ...]
    unit_w: float
    step_w: float
    period_s: float
    waits: int

    def read_w(self) -> float:
        """Return watts now; voltage and current come from conversions that follow each other.

        Raises: MeterError when a file cannot be read, or the product is no power that a rail draws.
        """
        watts = self.unit_w * math.prod(read_int(path, _REMEDY) for path in self.files)
        if -OFFSET_STEPS * self.step_w <= watts < 0.0:
            return 0.0
        if not 0.0 <= watts <= MOST_W:
            raise MeterError(
                f"rail {self.label} reads {watts:.4g} W in {self.files[0].parent}, which no load draws; check the "
                "board's device tree and the wiring of its shunts"
            )
        return watts


def find_rails(root: Path = Path("/")) -> List[Rail]:
    """Return the rails of this machine, by chip and channel; none where there is no INA3221.

    Channels without a label, or whose readings are missing or switched off, are left out.

    Raises: MeterError when a label is there but may not be read.
    """
    found: List[Rail] = []
    for folder in sorted(root.glob(f"{_DRIVERS}/*/iio:device*")):
        found += _iio_rails(folder)
    for folder in sorted(root.glob(f"{_DRIVERS}/*/hwmon/hwmon*")):
        found += _hwmon_rails(folder)
    return found


def conversion_s(config: int) -> float:
    """Return the seconds between updates under a configuration of the chip (data sheet 7.4.2.2 and 7.6.2.1)."""
    channels = bin(config >> 12 & 7).count("1")
    bus_s, shunt_s = _CONVERSIONS_S[config >> 6 & 7], _CONVERSIONS_S[config >> 3 & 7]
    return channels * _SAMPLES[config >> 9 & 7] * (bus_s + shunt_s)


def _iio_rails(folder: Path) -> List[Rail]:
    tree = folder.parent / "of_node"
    continuous = optional_text(folder / "running_mode") == "1"
    config = optional_cell(tree / f"ti,{'continuous' if continuous else 'trigger'}-config")
    period_s = conversion_s(_R32_CONFIG if config is None else config)
    found = []
    for channel in range(3):
        label, power = folder / f"rail_name_{channel}", folder / f"in_power{channel}_input"
        if not (exists(label) and exists(power)):
            continue
        milliohm = optional_cell(tree / f"channel@{channel}" / "ti,shunt-resistor-mohm")
        found.append(
            Rail(
                label=read_text(label, _REMEDY),
                chip=folder.parent.name,
                files=(power,),
                unit_w=1e-3,
                step_w=_step_w(
                    optional_int(folder / f"in_voltage{channel}_input"),
                    None if milliohm is None else 1e-3 * milliohm,
                ),
                period_s=period_s,
                waits=0 if continuous else 1,
            )
        )
    return [rail for rail in found if rail.label not in _NO_LABELS]


def _hwmon_rails(folder: Path) -> List[Rail]:
    # Only channels 1 to 3 are rails: in4 to in7 are shunt voltages and their sum, and in7 has a label too.
    interval_ms = optional_int(folder / "update_interval")
    found = []
    for channel in range(1, 4):
        label = folder / f"in{channel}_label"
        power = folder / f"power{channel}_input"
        volts, amperes = folder / f"in{channel}_input", folder / f"curr{channel}_input"
        files = (power,) if exists(power) else (volts, amperes)
        if not exists(label) or not all(exists(path) for path in files):
            continue
        if optional_int(folder / f"in{channel}_enable") == 0:
            continue
        microohm = optional_int(folder / f"shunt{channel}_resistor")
        found.append(
            Rail(
                label=read_text(label, _REMEDY),
                chip=folder.parent.parent.name,
                files=files,
                unit_w=1e-6,
                step_w=_step_w(optional_int(volts), None if microohm is None else 1e-6 * microohm),
                period_s=1e-3 * interval_ms if interval_ms else conversion_s(_RESET_CONFIG),
                waits=len(files),
            )
        )
    return [rail for rail in found if rail.label not in _NO_LABELS]


def _step_w(millivolt: Optional[int], shunt_ohm: Optional[float]) -> float:
    """Return V * 40 uV / R; the coarsest of any listed board where either cannot be read."""
    known = shunt_ohm is not None and _SHUNTS_OHM[0] <= shunt_ohm <= _SHUNTS_OHM[1]
    volts = _BUS_V if millivolt is None or millivolt <= 0 else 1e-3 * millivolt
    return volts * SHUNT_STEP_V / (shunt_ohm if known and shunt_ohm else _SHUNT_OHM)


class RailSource:
    """A power sensor over rails, which it adds up. Its name says which.

    Args:
        rails: as `rails.choose_rails` returns them, one or more.
    """

    def __init__(self, rails: Sequence[Rail]) -> None:
        self._rails = tuple(rails)
        self.name = f"ina3221 {' + '.join(rail.label for rail in self._rails)}"
        #: As long as its slowest chip takes to update, and as a reading of all rails takes.
        self.period_s = max(
            READ_EVERY_S,
            max(rail.period_s for rail in self._rails),
            sum(rail.waits * rail.period_s for rail in self._rails),
        )
        #: The step of one rail that would round as much as all of them do together.
        self.step_w = math.hypot(*(rail.step_w for rail in self._rails))

    def read_w(self) -> float:
        """Return the watts of all rails; they are read one after the other.

        Raises: MeterError as `Rail.read_w`.
        """
        return math.fsum(rail.read_w() for rail in self._rails)
