"""File trees of Jetsons and of powercap, as their kernels lay them out.

They are written from documentation and from the sources of the kernels, not captured from boards: names and links of
files from the drivers (OE4T/linux-tegra-4.9 drivers/staging/iio/meter/ina3221.c, OE4T/linux-tegra-5.10
drivers/hwmon/ina3221.c, Documentation/hwmon/ina3221.rst, drivers/powercap), labels and shunts from NVIDIA's device
trees (tegra186-p3310, tegra194-p2888, tegra234-p3701, tegra234-p3767), zones, cooling devices and models from what
users of such boards print.
The configuration of the TX2's chips (0x7607) is an example: its device tree was not to be had.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Dict, Sequence, Tuple

import pytest

Channel = Tuple[str, int, int, int]  # label, mV, mA, microohm

TX2 = {
    "0-0040": [
        ("VDD_SYS_GPU", 19152, 104, 10000),
        ("VDD_SYS_SOC", 19152, 40, 10000),
        ("VDD_4V0_WIFI", 4784, 0, 10000),
    ],
    "0-0041": [
        ("VDD_IN", 19152, 300, 5000),
        ("VDD_SYS_CPU", 19152, 64, 10000),
        ("VDD_SYS_DDR", 4784, 250, 10000),
    ],
}
AGX_XAVIER = {
    "1-0040": [
        ("GPU", 19080, 240, 5000),
        ("CPU", 19080, 48, 5000),
        ("SOC", 19080, 120, 5000),
    ],
    "1-0041": [("CV", 19080, 0, 5000), ("VDDRQ", 19080, 24, 5000), ("SYS5V", 5016, 600, 5000)],
}
AGX_ORIN = {
    "1-0040": [
        ("VDD_GPU_SOC", 19800, 160, 2000),
        ("VDD_CPU_CV", 19800, 80, 2000),
        ("VIN_SYS_5V0", 5040, 900, 2000),
    ],
    "1-0041": [("NC", 0, 0, 2000), ("VDDQ_VDD2_1V8AO", 5040, 300, 2000), ("", 0, 0, 2000)],
}
ORIN_NANO = {
    "1-0040": [
        ("VDD_IN", 4984, 1856, 5000),
        ("VDD_CPU_GPU_CV", 4976, 400, 5000),
        ("VDD_SOC", 4976, 300, 5000),
    ]
}


def write(root: Path, path: str, text: str) -> Path:
    """Write one file, with the line feed that the kernel ends it with."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")
    return file


def write_cell(root: Path, path: str, value: int) -> None:
    """Write a property of the device tree, 32 bits."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(struct.pack(">I", value))


def link(root: Path, path: str, target: str) -> None:
    """Make a relative link, as sysfs has."""
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(os.path.relpath(root / target, place.parent))


def iio(root: Path, chips: Dict[str, Sequence[Channel]], continuous: int = 0x7607) -> None:
    """Write INA3221 chips as r32 shows them."""
    for number, (chip, channels) in enumerate(chips.items()):
        device = f"sys/devices/3160000.i2c/i2c-0/{chip}"
        tree = f"sys/firmware/devicetree/base/i2c@3160000/ina3221x@{chip[-2:]}"
        folder = f"{device}/iio:device{number}"
        write(root, f"{folder}/running_mode", "1")
        write_cell(root, f"{tree}/ti,continuous-config", continuous)
        write_cell(root, f"{tree}/ti,trigger-config", 0x7003)
        for index, (label, millivolt, milliampere, microohm) in enumerate(channels):
            write(root, f"{folder}/rail_name_{index}", label)
            write(root, f"{folder}/in_voltage{index}_input", str(millivolt))
            write(root, f"{folder}/in_current{index}_input", str(milliampere))
            power = millivolt * milliampere // 1000
            write(root, f"{folder}/in_power{index}_input", str(power))
            write(root, f"{folder}/in_power{index}_trigger_input", "0")
            write_cell(root, f"{tree}/channel@{index}/ti,shunt-resistor-mohm", microohm // 1000)
        link(root, f"{device}/of_node", tree)
        link(root, f"sys/bus/i2c/drivers/ina3221x/{chip}", device)
    write(root, "sys/bus/i2c/drivers/ina3221x/uevent", "")


def hwmon(root: Path, chips: Dict[str, Sequence[Channel]], *, power: bool = False) -> None:
    """Write INA3221 chips as r34 and later show them; `power` as a kernel that gives watts too."""
    for number, (chip, channels) in enumerate(chips.items(), start=1):
        device = f"sys/devices/platform/c240000.i2c/i2c-1/{chip}"
        folder = f"{device}/hwmon/hwmon{number}"
        write(root, f"{folder}/name", "ina3221")
        write(root, f"{folder}/update_interval", "7")
        write(root, f"{folder}/samples", "1")
        for index, (label, millivolt, milliampere, microohm) in enumerate(channels, start=1):
            if label:
                write(root, f"{folder}/in{index}_label", label)
            write(root, f"{folder}/in{index}_enable", "1")
            write(root, f"{folder}/in{index}_input", str(millivolt))
            write(root, f"{folder}/curr{index}_input", str(milliampere))
            write(root, f"{folder}/in{index + 3}_input", str(milliampere * microohm // 1000))
            write(root, f"{folder}/shunt{index}_resistor", str(microohm))
            if power:
                write(root, f"{folder}/power{index}_input", str(millivolt * milliampere))
        write(root, f"{folder}/in7_label", "sum of shunt voltages")
        write(root, f"{folder}/in7_input", "4000")
        link(root, f"sys/bus/i2c/drivers/ina3221/{chip}", device)


def board(root: Path, model: str, compatible: Sequence[str], release: str) -> None:
    """Write what identifies a board: its device tree, and the release of L4T."""
    base = "sys/firmware/devicetree/base"
    (root / base).mkdir(parents=True, exist_ok=True)
    (root / base / "model").write_bytes(model.encode() + b"\0")
    (root / base / "compatible").write_bytes(b"".join(w.encode() + b"\0" for w in compatible))
    link(root, "proc/device-tree", base)
    if release:
        major, _, minor = release.partition(".")
        text = f"# R{major} (release), REVISION: {minor}, GCID: 1, BOARD: t186ref, EABI: aarch64"
        write(root, "etc/nv_tegra_release", text)


def sensors(root: Path, gpu: str, zones: Dict[str, int], cooling: Dict[str, int]) -> None:
    """Write clocks, thermal zones (millidegrees) and cooling devices (state)."""
    write(root, f"sys/devices/{gpu}/devfreq/{gpu}/cur_freq", "1300500000")
    link(root, f"sys/class/devfreq/{gpu}", f"sys/devices/{gpu}/devfreq/{gpu}")
    write(root, "sys/class/devfreq/15340000.vic/cur_freq", "115200000")
    for policy, kilohertz in ((0, 2035200), (4, 345600)):
        folder = f"sys/devices/system/cpu/cpufreq/policy{policy}"
        write(root, f"{folder}/scaling_cur_freq", str(kilohertz))
    for number, (name, millidegrees) in enumerate(zones.items()):
        write(root, f"sys/class/thermal/thermal_zone{number}/type", name)
        write(root, f"sys/class/thermal/thermal_zone{number}/temp", str(millidegrees))
    for number, (name, state) in enumerate(cooling.items()):
        write(root, f"sys/class/thermal/cooling_device{number}/type", name)
        write(root, f"sys/class/thermal/cooling_device{number}/cur_state", str(state))


def nvpmodel(root: Path, names: Sequence[str], default: int, status: str = "") -> None:
    """Write nvpmodel's configuration, and the mode that was set."""
    models = "\n".join(
        f"< POWER_MODEL ID={number} NAME={name} >\nCPU_ONLINE CORE_0 1\n"
        for number, name in enumerate(names)
    )
    text = f"# NAME=NONE\n{models}\n< PM_CONFIG DEFAULT={default} >"
    write(root, "etc/nvpmodel.conf", text)
    if status:
        write(root, "var/lib/nvpmodel/status", status)


def tx2_r32(root: Path) -> None:
    """Write a Jetson TX2 of JetPack 4.6."""
    board(root, "quill", ["nvidia,quill", "nvidia,tegra186"], "32.7.1")
    iio(root, TX2)
    zones = {"BCPU-therm": 38000, "GPU-therm": 36500, "PMIC-Die": 100000}
    cooling = {"pwm-fan": 3, "gpu-throttle-alert": 0, "thermal-cpufreq-0": 0}
    sensors(root, "17000000.gp10b", zones, cooling)
    nvpmodel(root, ["MAXN", "MAXQ", "MAXP_CORE_ALL"], 3, "pmode:0000")


def agx_xavier_r35(root: Path) -> None:
    """Write a Jetson AGX Xavier of JetPack 5.1."""
    words = ["nvidia,p2822-0000+p2888-0001", "nvidia,tegra194"]
    board(root, "Jetson-AGX", words, "35.4.1")
    hwmon(root, AGX_XAVIER)
    sensors(root, "17000000.gv11b", {"CPU-therm": 41000}, {"cpu-throttle-alert": 0})
    nvpmodel(root, ["MAXN", "MODE_10W", "MODE_15W"], 2, "pmode:0002 fmode:quiet")


def orin_nano_r36(root: Path) -> None:
    """Write a Jetson Orin Nano of JetPack 6."""
    model = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    words = ["nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234"]
    board(root, model, words, "36.4.3")
    hwmon(root, ORIN_NANO)
    zones = {"cpu-thermal": 51687, "gpu-thermal": 48500, "cv0-thermal": -256000}
    cooling = {"gpu-throttle-alert": 0, "cpufreq-cpu0": 0, "devfreq-17000000.gpu": 0}
    sensors(root, "17000000.gpu", zones, {**cooling, "hot-surface-alert": 1, "pwm-fan": 2})
    for number in (1, 2, 3):
        write(root, f"sys/class/hwmon/hwmon3/oc{number}_event_cnt", "0")
    nvpmodel(root, ["15W", "25W", "MAXN_SUPER", "7W"], 1)


def agx_orin_r36(root: Path) -> None:
    """Write a Jetson AGX Orin of JetPack 6."""
    words = ["nvidia,p3737-0000+p3701-0000", "nvidia,p3701-0000", "nvidia,tegra234"]
    board(root, "NVIDIA Jetson AGX Orin Developer Kit", words, "36.3")
    hwmon(root, AGX_ORIN)


def zone(root: Path, name: str, energy_uj: int, highest_uj: int, *, at: str) -> Path:
    """Write a zone of powercap, such as at="intel-rapl:0:2"; return its count."""
    folder = f"sys/devices/virtual/powercap/{at.partition(':')[0]}/{at}"
    write(root, f"{folder}/name", name)
    write(root, f"{folder}/max_energy_range_uj", str(highest_uj))
    file = write(root, f"{folder}/energy_uj", str(energy_uj))
    link(root, f"sys/class/powercap/{at}", folder)
    return file


def refuse(monkeypatch: pytest.MonkeyPatch, path: Path, number: int, times: int = 10**9) -> None:
    """Let opening a file fail as the kernel does with an error number, for the next so many times."""
    open_file, left = Path.open, [times]

    def opened(self: Path, *args: object, **kwargs: object) -> object:
        if self == path and left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number), str(path))
        return open_file(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", opened)
