"""Which Jetson it is and what it is like, on trees of three releases."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Callable, Tuple

import pytest

from edgeecc.errors import MeterError
from edgeecc.meters.jetson import Board, JetsonSensors, identify, power_mode
from tests import sysfs_trees as trees

pytestmark = pytest.mark.device


@pytest.mark.parametrize(
    ("build", "name", "l4t"),
    [
        (trees.tx2_r32, "jetson-tx2", "32.7.1"),
        (trees.agx_xavier_r35, "jetson-agx-xavier", "35.4.1"),
        (trees.orin_nano_r36, "jetson-orin-nano", "36.4.3"),
        (trees.agx_orin_r36, "jetson-agx-orin", "36.3"),
    ],
)
def test_boards_are_known(
    tmp_path: Path, build: Callable[[Path], None], name: str, l4t: str
) -> None:
    build(tmp_path)
    found = identify(tmp_path)
    assert (found.name, found.l4t) == (name, l4t)


@pytest.mark.parametrize(
    ("compatible", "model", "name"),
    [
        (["nvidia,p2771-0000", "nvidia,tegra186"], "NVIDIA Jetson TX2 Developer Kit", "jetson-tx2"),
        (["nvidia,p3489-0000", "nvidia,tegra186"], "lightning", "jetson-tx2i"),
        (["nvidia,p3509-0000+p3636-0001", "nvidia,tegra186"], "", "jetson-tx2-nx"),
        (["nvidia,jetson-nano", "nvidia,tegra210"], "NVIDIA Jetson Nano", "jetson-nano"),
        (["nvidia,p3449-0000-b00+p3448-0002-b00", "nvidia,tegra210"], "", "jetson-nano"),
        (["nvidia,jetson-cv", "nvidia,tegra210"], "jetson_tx1", "jetson-tx1"),
        (["nvidia,p3509-0000+p3668-0001", "nvidia,tegra194"], "", "jetson-xavier-nx"),
        (["nvidia,galen", "nvidia,tegra194"], "Jetson-AGX", "jetson-agx-xavier"),
        (["nvidia,p3768-0000+p3767-0000", "nvidia,tegra234"], "", "jetson-orin-nx"),
        (["nvidia,p3767-0001", "nvidia,tegra234"], "", "jetson-orin-nx"),
        (["nvidia,p3767-0003", "nvidia,tegra234"], "", "jetson-orin-nano"),
        (
            ["nvidia,p4071-0000", "nvidia,tegra264"],
            "NVIDIA Jetson AGX Thor Developer Kit",
            "jetson-agx-thor",
        ),
        (["nvidia,darcy", "nvidia,tegra210"], "darcy", "jetson-darcy"),
        (["nvidia,tegra999"], "", "jetson-tegra"),
    ],
)
def test_names_come_from_the_module_else_from_the_model(
    tmp_path: Path, compatible: list, model: str, name: str
) -> None:
    trees.board(tmp_path, model, compatible, "")
    assert identify(tmp_path) == Board(name, model, "")


def test_other_machines_are_no_jetson(tmp_path: Path) -> None:
    assert identify(tmp_path) is None
    trees.board(tmp_path, "Raspberry Pi 5", ["raspberrypi,5-model-b", "brcm,bcm2712"], "")
    assert identify(tmp_path) is None


def test_the_tree_is_found_without_the_link_in_proc(tmp_path: Path) -> None:
    trees.tx2_r32(tmp_path)
    (tmp_path / "proc/device-tree").unlink()
    assert identify(tmp_path).name == "jetson-tx2"


@pytest.mark.parametrize("text", ["", "no release", "# R (release), REVISION: x"])
def test_a_release_that_is_not_told_is_empty(tmp_path: Path, text: str) -> None:
    trees.tx2_r32(tmp_path)
    trees.write(tmp_path, "etc/nv_tegra_release", text)
    assert identify(tmp_path).l4t == ""


def test_what_a_tx2_is_like(tmp_path: Path) -> None:
    trees.tx2_r32(tmp_path)
    found = JetsonSensors(tmp_path).conditions()
    assert found.clocks_hz == {"gpu": 1300500000.0, "cpu0": 2035200000.0, "cpu4": 345600000.0}
    assert found.temperatures_c == pytest.approx({"BCPU-therm": 38.0, "GPU-therm": 36.5})
    assert (found.mode, found.held_back) == ("MAXN", ())


def test_what_an_orin_is_like(tmp_path: Path) -> None:
    trees.orin_nano_r36(tmp_path)
    trees.write(tmp_path, "sys/kernel/debug/bpmp/debug/clk/emc/rate", "3199000000")
    found = JetsonSensors(tmp_path).conditions()
    assert found.clocks_hz["memory"] == 3199000000.0
    assert found.temperatures_c == pytest.approx({"cpu-thermal": 51.687, "gpu-thermal": 48.5})
    assert (found.mode, found.held_back) == ("25W", ())


def test_the_memory_of_a_nano_is_found_at_its_own_place(tmp_path: Path) -> None:
    trees.sensors(tmp_path, "57000000.gpu", {}, {})
    trees.write(tmp_path, "sys/kernel/debug/clk/emc/clk_rate", "1600000000")
    clocks = JetsonSensors(tmp_path).conditions().clocks_hz
    assert (clocks["gpu"], clocks["memory"]) == (1300500000.0, 1600000000.0)


def test_a_clock_for_root_alone_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.orin_nano_r36(tmp_path)
    path = trees.write(tmp_path, "sys/kernel/debug/bpmp/debug/clk/emc/rate", "3199000000")
    trees.refuse(monkeypatch, path, errno.EACCES)
    assert "memory" not in JetsonSensors(tmp_path).conditions().clocks_hz


def test_a_machine_without_any_sensor_says_nothing(tmp_path: Path) -> None:
    found = JetsonSensors(tmp_path).conditions()
    assert found.to_json() == {
        "clocks_hz": {},
        "temperatures_c": {},
        "mode": "",
        "held_back": [],
        "alerts": [],
    }


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("gpu-throttle-alert", ("thermal: gpu-throttle-alert at 2",)),
        ("soc012-throttle-alert", ("thermal: soc012-throttle-alert at 2",)),
        ("cpufreq-cpu0", ("thermal: cpufreq-cpu0 at 2",)),
        ("thermal-cpufreq-0", ("thermal: thermal-cpufreq-0 at 2",)),
        ("devfreq-17000000.gpu", ("thermal: devfreq-17000000.gpu at 2",)),
        ("gpu-balanced", ("thermal: gpu-balanced at 2",)),
        ("tegra-heavy", ("thermal: tegra-heavy at 2",)),
        ("pwm-fan", ()),
        ("hot-surface-alert", ()),
        ("tegra-shutdown", ()),
    ],
)
def test_what_slows_a_clock_holds_it_back(tmp_path: Path, kind: str, told: Tuple[str, ...]) -> None:
    trees.sensors(tmp_path, "17000000.gpu", {}, {kind: 2})
    assert JetsonSensors(tmp_path).conditions().held_back == told


def test_over_currents_are_told_once_and_do_not_hold_it_back(tmp_path: Path) -> None:
    trees.orin_nano_r36(tmp_path)
    file = trees.write(tmp_path, "sys/class/hwmon/hwmon3/oc3_event_cnt", "27390")
    sensors = JetsonSensors(tmp_path)
    assert sensors.conditions().alerts == ()
    file.write_text("27395\n")
    assert sensors.conditions().alerts == ("over-current: oc3 5 times",)
    assert sensors.conditions().alerts == ()


def test_a_zone_that_is_asleep_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.orin_nano_r36(tmp_path)
    sensors = JetsonSensors(tmp_path)
    path = tmp_path / "sys/class/thermal/thermal_zone1/temp"
    trees.refuse(monkeypatch, path, errno.EAGAIN)
    assert "gpu-thermal" not in sensors.conditions().temperatures_c


@pytest.mark.parametrize(
    "file",
    [
        "sys/class/devfreq/17000000.gpu/cur_freq",
        "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq",
        "sys/class/thermal/thermal_zone0/temp",
        "sys/class/thermal/cooling_device1/cur_state",
        "sys/class/hwmon/hwmon3/oc1_event_cnt",
    ],
)
def test_a_sensor_that_is_gone_is_told(tmp_path: Path, file: str) -> None:
    trees.orin_nano_r36(tmp_path)
    sensors = JetsonSensors(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(MeterError, match=f"{file.rpartition('/')[2]} is gone since the sensors"):
        sensors.conditions()


@pytest.mark.parametrize(
    ("status", "mode"),
    [
        ("pmode:0000", "MAXN"),
        ("pmode:0001 fmode:quiet", "MODE_10W"),
        ("pmode:0009", "mode 9"),
        ("", "MODE_15W"),
        ("garbage", "MODE_15W"),
    ],
)
def test_modes_of_nvpmodel(tmp_path: Path, status: str, mode: str) -> None:
    trees.nvpmodel(tmp_path, ["MAXN", "MODE_10W", "MODE_15W"], 2, status)
    assert power_mode(tmp_path) == mode


def test_a_mode_without_nvpmodels_configuration_is_a_number(tmp_path: Path) -> None:
    assert power_mode(tmp_path) == ""
    trees.write(tmp_path, "var/lib/nvpmodel/status", "pmode:0003")
    assert power_mode(tmp_path) == "mode 3"
