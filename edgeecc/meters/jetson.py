"""Which Jetson this is, and what it is like: read from the device tree, sysfs and the files of nvpmodel.

Nothing here runs a program or needs a service, and most of it is readable by every user; clocks of the memory are in
debugfs, which root alone may read, and are then left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from edgeecc.errors import MeterError
from edgeecc.meters.conditions import Conditions
from edgeecc.meters.sysfs import exists, optional_int, optional_text

#: A word in the device tree's `compatible` -> our name of the device; the first that fits. Module numbers: NVIDIA's
#: device trees (the kernel's Documentation/devicetree/bindings/arm/tegra.yaml); r32 to r35 say quill or galen.
_MODULES = (
    ("p3767-0000", "jetson-orin-nx"),
    ("p3767-0001", "jetson-orin-nx"),
    ("p3767-000", "jetson-orin-nano"),
    ("p3701", "jetson-agx-orin"),
    ("p3668", "jetson-xavier-nx"),
    ("p2888", "jetson-agx-xavier"),
    ("p2972", "jetson-agx-xavier"),
    ("galen", "jetson-agx-xavier"),
    ("jetson-xavier", "jetson-agx-xavier"),
    ("p3636", "jetson-tx2-nx"),
    ("p3489", "jetson-tx2i"),
    ("p3310", "jetson-tx2"),
    ("p2771", "jetson-tx2"),
    ("quill", "jetson-tx2"),
    ("p3448", "jetson-nano"),
    ("p3450", "jetson-nano"),
    ("jetson-nano", "jetson-nano"),
    ("p2180", "jetson-tx1"),
    ("jetson-cv", "jetson-tx1"),
)
#: Names of the devices that are told by their module.
BOARDS = tuple(sorted({name for _, name in _MODULES}))
#: Words of a model that do not tell devices apart.
_FILLERS = re.compile(r"\b(nvidia|engineering reference|developer kit|super)\b")
_TREES = ("proc/device-tree", "sys/firmware/devicetree/base")
_RELEASE = re.compile(r"# R(\d+) \(release\), REVISION: ([\d.]+)")

#: Devices of devfreq that are GPUs: 57000000.gpu on TX1 and Nano, 17000000.gp10b on TX2, .gv11b on Xavier, .ga10b or
#: .gpu on Orin (by release), gpu-gpc-0 on Thor.
_GPU = re.compile(r"[0-9a-f]+\.(gpu|gp10b|gv11b|ga10b)\Z|gpu-gpc-0\Z")
#: Hz of the memory, from r32 on, and on TX1 and Nano. In debugfs: root only.
_MEMORY = ("sys/kernel/debug/bpmp/debug/clk/emc/rate", "sys/kernel/debug/clk/emc/clk_rate")
#: A zone that is no measurement: on TX1, TX2 and Nano it reads 100 degrees C at all times.
_NO_ZONES = {"PMIC-Die"}
#: Cooling devices that slow a clock: the alerts that NVIDIA's kernels raise when the hardware throttles, and the caps
#: that the kernel's thermal governor sets (names since 5.x, and before). hot-surface-alert only warns, at 70 degrees C;
#: fans do not slow anything.
_SLOWING = re.compile(
    r".*-throttle-alert\Z|(thermal-)?(cpufreq|devfreq)-|.*[-_]balanced\Z|tegra-heavy\Z"
)
#: Counts of over-current and under-voltage events, each of which slows the clocks for a moment: of Orin, in the hwmon
#: device soctherm_oc (oc1 under-voltage, oc2 average, oc3 instantaneous over-current).
_EVENTS = "sys/class/hwmon/hwmon*/oc[0-9]_event_cnt"

_STATUS, _CONFIG = "var/lib/nvpmodel/status", "etc/nvpmodel.conf"
_MODE = re.compile(r"\bpmode:0*(\d+)\b")
_MODEL = re.compile(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", re.MULTILINE)
_DEFAULT = re.compile(r"^<\s*PM_CONFIG\s+DEFAULT=(\d+)\s*>", re.MULTILINE)


@dataclass(frozen=True)
class Board:
    """A Jetson.

    Args:
        name: device name, such as "jetson-tx2".
        model: as its device tree calls it.
        l4t: release of the system, such as "32.7.1"; empty when it is not told.
    """

    name: str
    model: str
    l4t: str


def identify(root: Path = Path("/")) -> Optional[Board]:
    """Return which Jetson this is; None when it is none, or when its device tree is hidden.

    Docker hides /sys/firmware, where the tree is, from containers that run without `--security-opt
    systempaths=unconfined`, or without a mount of the file /proc/device-tree/compatible.
    """
    for tree in _TREES:
        model = optional_text(root / tree / "model")
        compatible = optional_text(root / tree / "compatible").split("\0")
        if any(word.startswith("nvidia,tegra") for word in compatible):
            release = _RELEASE.match(optional_text(root / "etc/nv_tegra_release"))
            l4t = f"{release[1]}.{release[2]}" if release else ""
            return Board(_name(compatible, model), model, l4t)
    return None


def _name(compatible: List[str], model: str) -> str:
    for word, name in _MODULES:
        if any(word in entry for entry in compatible):
            return name
    bare = _FILLERS.sub(" ", model.lower())
    slug = re.sub(r"[^a-z0-9]+", "-", bare).strip("-")[:40].strip("-") or "tegra"
    return slug if slug.startswith("jetson") else f"jetson-{slug}"


class JetsonSensors:
    """What a Jetson is like. What there is to read is found once, by name, never by number.

    Args:
        root: of the file system.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._clocks = _clocks(root)
        self._zones = _by_type(root, "thermal_zone", "temp")
        self._slowing = {
            name: path
            for name, path in _by_type(root, "cooling_device", "cur_state").items()
            if _SLOWING.match(name)
        }
        self._events = {path.name[:3]: path for path in sorted(root.glob(_EVENTS))}
        self._counts = {name: _now(path) for name, path in self._events.items()}

    def conditions(self) -> Conditions:
        """Return what it is like now; alerts are the over-current events since the last call, or since the start.

        Raises: MeterError when a sensor that was there is gone.
        """
        clocks = {name: _now(path) for name, (path, _) in self._clocks.items()}
        temperatures = {name: _now(path) for name, path in self._zones.items()}
        return Conditions(
            clocks_hz={
                name: value * self._clocks[name][1]
                for name, value in clocks.items()
                if value is not None
            },
            temperatures_c={
                name: 1e-3 * value
                for name, value in temperatures.items()
                if value is not None and -100_000 < value < 200_000
            },
            mode=power_mode(self._root),
            held_back=tuple(self._caps()),
            alerts=tuple(self._new_events()),
        )

    def _caps(self) -> List[str]:
        states = {name: _now(path) for name, path in self._slowing.items()}
        return [f"thermal: {name} at {state}" for name, state in states.items() if state]

    def _new_events(self) -> List[str]:
        found = []
        for name, path in self._events.items():
            count, before = _now(path), self._counts[name]
            if count is not None and before is not None and count != before:
                found.append(f"over-current: {name} {count - before} times")
            self._counts[name] = count
        return found


def power_mode(root: Path = Path("/")) -> str:
    """Return the name of the mode that nvpmodel set, such as "MAXN", or "mode 2"; nothing when it is not told.

    nvpmodel keeps the number in /var/lib/nvpmodel/status; before one was ever set, the default of its configuration
    holds.
    """
    config = optional_text(root / _CONFIG)
    found = _MODE.search(optional_text(root / _STATUS)) or _DEFAULT.search(config)
    if found is None:
        return ""
    names: Dict[int, str] = {int(number): name for number, name in _MODEL.findall(config)}
    return names.get(int(found[1]), f"mode {int(found[1])}")


def _clocks(root: Path) -> Dict[str, Tuple[Path, float]]:
    """Return clock -> (file, Hz per unit) of those that can be read now."""
    found: Dict[str, Tuple[Path, float]] = {}
    for device in sorted((root / "sys/class/devfreq").glob("*")):
        if _GPU.match(device.name):
            found.setdefault("gpu", (device / "cur_freq", 1.0))
    for policy in sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy[0-9]*")):
        name = f"cpu{policy.name[len('policy') :]}"
        found[name] = (policy / "scaling_cur_freq", 1e3)
    for path in _MEMORY:
        found.setdefault("memory", (root / path, 1.0))
        if optional_int(found["memory"][0]) is None:
            del found["memory"]
    return {name: item for name, item in found.items() if optional_int(item[0]) is not None}


def _by_type(root: Path, kind: str, file: str) -> Dict[str, Path]:
    """Return the type of each thermal zone or cooling device -> the file that says its value."""
    found: Dict[str, Path] = {}
    for folder in sorted((root / "sys/class/thermal").glob(f"{kind}[0-9]*")):
        name = optional_text(folder / "type")
        if name and name not in _NO_ZONES:
            found.setdefault(name, folder / file)
    return found


def _now(path: Path) -> Optional[int]:
    """Return a reading; None when the sensor is there but asleep, as those of parts without power are.

    Raises: MeterError when it is gone.
    """
    value = optional_int(path)
    if value is None and not exists(path):
        raise MeterError(
            f"{path} is gone since the sensors were found: a part was switched off or a driver unloaded; measure again"
        )
    return value
