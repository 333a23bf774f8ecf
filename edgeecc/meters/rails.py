"""Which rails to measure: what feeds what on the modules of the Jetson family, by label.

On some boards the GPU has no rail of its own. What is then called "gpu" is the rail that it shares, whose label names
the others: VDD_GPU_SOC on AGX Orin, VDD_CPU_GPU_CV on Orin Nano, Orin NX and Xavier NX (CV: accelerators of vision).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple

from edgeecc.errors import MeterError
from edgeecc.meters.ina3221 import Rail


@dataclass(frozen=True)
class Layout:
    """What feeds what on a module.

    Args:
        boards: that have it.
        gpu: the rail that the GPU draws from, alone or with others: its label says with which.
        module: the rails that together carry all that the module draws.
        parts: the rails of its parts, none of which contains another.
    """

    boards: str
    gpu: str
    module: Tuple[str, ...]
    parts: Tuple[str, ...]


_TX2I = ("VDD_SYS_GPU", "VDD_SYS_SOC", "VDD_SYS_CPU", "VDD_SYS_DDR")
_XAVIER = ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V")
_AGX_ORIN = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
#: Labels: NVIDIA's device trees as posted for the mainline kernel (arch/arm64/boot/dts/nvidia/ tegra210-p2180,
#: tegra186-p3310, tegra186-p3509-0000+p3636-0001, tegra194-p2888, tegra194-p3668, tegra234-p3701, tegra234-p3767, on
#: lore.kernel.org/linux-tegra), and those of r32 as energymon/energymon jetson/JetsonPowerRails.md lists them. NVIDIA's
#: own lists: "Software-Based Power Consumption Modeling" of each board in docs.nvidia.com/jetson/archives.
#: What contains what: VDD_IN carries all that a module draws (forums.developer.nvidia.com/t/200883). AGX Xavier has no
#: such rail: its six are fed from SYS_VIN_HV and SYS_VIN_MV side by side (Product Design Guide DG-09840, 5.6.2). Of AGX
#: Orin, that these three are its total and that VDDQ_VDD2_1V8AO is behind VIN_SYS_5V0, whose voltage it has, is what
#: its users hold; NVIDIA was not found to say so. Rails of carrier boards (VDD_MUX and those behind it) are no parts.
LAYOUTS = (
    Layout("Jetson TX2", "VDD_SYS_GPU", ("VDD_IN",), (*_TX2I, "VDD_4V0_WIFI")),
    Layout("Jetson TX2i", "VDD_SYS_GPU", ("VDD_IN",), _TX2I),
    Layout("Jetson TX2 NX", "VDD_CPU_GPU", ("VDD_IN",), ("VDD_CPU_GPU", "VDD_SOC")),
    Layout("Jetson TX1", "VDD_GPU", ("VDD_IN",), ("VDD_GPU", "VDD_CPU")),
    Layout("Jetson Nano", "POM_5V_GPU", ("POM_5V_IN",), ("POM_5V_GPU", "POM_5V_CPU")),
    Layout(
        "Jetson Xavier NX, Orin NX, Orin Nano",
        "VDD_CPU_GPU_CV",
        ("VDD_IN",),
        ("VDD_CPU_GPU_CV", "VDD_SOC"),
    ),
    Layout("Jetson AGX Xavier", "GPU", _XAVIER, _XAVIER),
    Layout("Jetson AGX Orin", "VDD_GPU_SOC", _AGX_ORIN, _AGX_ORIN),
)


def choose_rails(rails: Sequence[Rail], wanted: str) -> Tuple[Rail, ...]:
    """Return the rails to add up.

    Args:
        rails: of this machine.
        wanted: "gpu"; "input", all that the module draws; "sum", the module's parts that have rails, without the input
            that contains them; or labels joined by "+".
    Raises: MeterError when there are none, when a label is not there or there twice, or when one rail contains another.
    """
    if not rails:
        raise MeterError(
            "no power rail is here: the kernel lists no INA3221 in /sys/bus/i2c/drivers; on a Jetson load its driver "
            "(ina3221), and in a container mount /sys read-only"
        )
    here: Dict[str, List[Rail]] = {}
    for rail in rails:
        here.setdefault(rail.label, []).append(rail)
    return tuple(_only(here, label) for label in _labels(here, wanted))


def _labels(here: Dict[str, List[Rail]], wanted: str) -> Tuple[str, ...]:
    if wanted in ("gpu", "input", "sum"):
        for layout in LAYOUTS:
            needed = {"gpu": (layout.gpu,), "input": layout.module, "sum": layout.parts}[wanted]
            if all(label in here for label in needed):
                return needed
        raise MeterError(
            f"which rails are {wanted!r} is not known of this board, or some are missing; name them: {_listed(here)}"
        )
    if wanted in here:
        return (wanted,)
    labels = tuple(part.strip() for part in wanted.split("+"))
    if len(set(labels)) < len(labels):
        raise MeterError(f"a rail is named twice in {wanted!r}; name each once")
    for layout in LAYOUTS:
        inside = set(layout.parts).difference(layout.module).intersection(labels)
        if set(layout.module) <= set(labels) and inside:
            raise MeterError(
                f"{' + '.join(layout.module)} contains {', '.join(sorted(inside))}, which {wanted!r} would count "
                "twice; name one or the other"
            )
    return labels


def _only(here: Dict[str, List[Rail]], label: str) -> Rail:
    if label not in here:
        raise MeterError(f"no power rail is called {label!r} here; there are {_listed(here)}")
    if len(here[label]) > 1:
        chips = ", ".join(rail.chip for rail in here[label])
        raise MeterError(
            f"several power rails are called {label} (chips {chips}), so which is meant cannot be known; choose "
            f"another of {_listed(here)}"
        )
    return here[label][0]


def _listed(here: Dict[str, List[Rail]]) -> str:
    return ", ".join(sorted(here))
