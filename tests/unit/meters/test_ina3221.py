"""Power rails: both layouts of the kernel, their numbers by hand, and every fault."""

from __future__ import annotations

import errno
import math
import shutil
from pathlib import Path
from typing import Callable, List, Tuple

import pytest

from edgeecc.errors import MeterError
from edgeecc.meters.ina3221 import READ_EVERY_S, Rail, RailSource, conversion_s, find_rails
from edgeecc.meters.sampled import SampledMeter
from tests import sysfs_trees as trees

pytestmark = pytest.mark.device

IIO = "sys/bus/i2c/drivers/ina3221x/0-0040/iio:device0"
HWMON = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"


def rail(rails: List[Rail], label: str) -> Rail:
    return next(item for item in rails if item.label == label)


@pytest.mark.parametrize(
    ("build", "chips"),
    [
        (trees.tx2_r32, trees.TX2),
        (trees.agx_xavier_r35, trees.AGX_XAVIER),
        (trees.orin_nano_r36, trees.ORIN_NANO),
        (trees.agx_orin_r36, trees.AGX_ORIN),
    ],
)
def test_every_labelled_rail_is_found_and_reads_volts_times_amperes(
    tmp_path: Path, build: Callable[[Path], None], chips: dict
) -> None:
    build(tmp_path)
    found = {(item.chip, item.label): item for item in find_rails(tmp_path)}
    channels = {
        (chip, label): (1e-3 * millivolt, 1e-3 * milliampere, 1e-6 * microohm)
        for chip, all_of_it in chips.items()
        for label, millivolt, milliampere, microohm in all_of_it
        if label not in ("", "NC")
    }
    assert found.keys() == channels.keys()
    for key, (volts, amperes, ohms) in channels.items():
        assert found[key].read_w() == pytest.approx(volts * amperes, abs=1e-3)
        assert found[key].step_w == pytest.approx(volts * 40e-6 / ohms)


def test_the_gpu_rail_of_a_tx2_has_steps_of_76_milliwatts(tmp_path: Path) -> None:
    trees.tx2_r32(tmp_path)
    assert rail(find_rails(tmp_path), "VDD_SYS_GPU").step_w == pytest.approx(0.0766, abs=1e-4)


def test_a_kernel_that_gives_watts_is_read_for_watts(tmp_path: Path) -> None:
    trees.hwmon(tmp_path, trees.ORIN_NANO, power=True)
    found = rail(find_rails(tmp_path), "VDD_IN")
    assert found.read_w() == pytest.approx(4.984 * 1.856)
    assert [path.name for path in found.files] == ["power1_input"]


def test_nothing_is_found_on_other_machines(tmp_path: Path) -> None:
    assert find_rails(tmp_path) == []


@pytest.mark.parametrize(
    ("config", "seconds"),
    [
        (0x7127, 3 * 2.2e-3),  # after a reset
        (0x7727, 3 * 64 * 2.2e-3),
        (0x7607, 3 * 64 * 0.28e-3),
        (0x7003, 3 * 0.28e-3),
        (0x4FFF, 1 * 1024 * 16.488e-3),
        (0x5127, 2 * 2.2e-3),
    ],
)
def test_an_update_takes_channels_times_samples_times_conversions(
    config: int, seconds: float
) -> None:
    assert conversion_s(config) == pytest.approx(seconds)


def test_the_period_is_that_of_the_chip_where_it_is_told(tmp_path: Path) -> None:
    trees.tx2_r32(tmp_path / "continuous")
    trees.tx2_r32(tmp_path / "triggered")
    trees.write(tmp_path / "triggered", f"{IIO}/running_mode", "0")
    trees.hwmon(tmp_path / "hwmon", trees.ORIN_NANO)
    trees.hwmon(tmp_path / "old", trees.ORIN_NANO)
    (tmp_path / "old" / HWMON / "update_interval").unlink()
    trees.tx2_r32(tmp_path / "blank")
    shutil.rmtree(tmp_path / "blank/sys/firmware")
    periods = {
        name: find_rails(tmp_path / name)[0].period_s
        for name in ("continuous", "triggered", "hwmon", "old", "blank")
    }
    assert periods == pytest.approx(
        {
            "continuous": 0.05376,
            "triggered": 0.00084,
            "hwmon": 0.007,
            "old": 0.0066,
            "blank": 0.4224,
        }
    )


def test_unknown_or_senseless_shunts_and_voltages_give_the_coarsest_step(tmp_path: Path) -> None:
    for name, change in {
        "none": lambda root: (root / HWMON / "shunt1_resistor").unlink(),
        "senseless": lambda root: trees.write(root, f"{HWMON}/shunt1_resistor", "5"),
    }.items():
        trees.hwmon(tmp_path / name, trees.ORIN_NANO)
        change(tmp_path / name)
        assert find_rails(tmp_path / name)[0].step_w == pytest.approx(4.984 * 40e-6 / 0.002)
    trees.tx2_r32(tmp_path / "tx2")
    (tmp_path / "tx2" / IIO / "in_voltage0_input").unlink()
    found = rail(find_rails(tmp_path / "tx2"), "VDD_SYS_GPU")
    assert found.step_w == pytest.approx(20.0 * 40e-6 / 0.010)


@pytest.mark.parametrize("label", ["", "NC", "(null)"])
@pytest.mark.parametrize(
    ("build", "file"),
    [(trees.tx2_r32, f"{IIO}/rail_name_0"), (trees.orin_nano_r36, f"{HWMON}/in1_label")],
)
def test_channels_without_a_name_are_left_out(
    tmp_path: Path, build: Callable[[Path], None], file: str, label: str
) -> None:
    build(tmp_path)
    before = len(find_rails(tmp_path))
    trees.write(tmp_path, file, label)
    assert len(find_rails(tmp_path)) == before - 1


@pytest.mark.parametrize(
    ("build", "file"),
    [
        (trees.tx2_r32, f"{IIO}/in_power0_input"),
        (trees.tx2_r32, f"{IIO}/rail_name_0"),
        (trees.orin_nano_r36, f"{HWMON}/in1_input"),
        (trees.orin_nano_r36, f"{HWMON}/curr1_input"),
        (trees.orin_nano_r36, f"{HWMON}/in1_label"),
    ],
)
def test_channels_with_a_file_missing_are_left_out(
    tmp_path: Path, build: Callable[[Path], None], file: str
) -> None:
    build(tmp_path)
    before = len(find_rails(tmp_path))
    (tmp_path / file).unlink()
    assert len(find_rails(tmp_path)) == before - 1


def test_channels_that_are_switched_off_are_left_out(tmp_path: Path) -> None:
    trees.orin_nano_r36(tmp_path)
    trees.write(tmp_path, f"{HWMON}/in2_enable", "0")
    assert [item.label for item in find_rails(tmp_path)] == ["VDD_IN", "VDD_SOC"]


def test_a_label_that_may_not_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.tx2_r32(tmp_path)
    trees.refuse(monkeypatch, tmp_path / IIO / "rail_name_0", errno.EACCES)
    with pytest.raises(MeterError, match="rail_name_0 may not be read by this user; let root run"):
        find_rails(tmp_path)


#: What a file says -> what is told of it, of the files of both layouts.
FAULTS = [
    (f"{IIO}/in_power0_input", "garbage", "reads 'garbage' where a whole number should be"),
    (f"{IIO}/in_power0_input", "-500", "VDD_SYS_GPU reads -0.5 W in .*device0, which no load"),
    (f"{IIO}/in_power0_input", "2000000000", "VDD_SYS_GPU reads 2e\\+06 W"),
    (f"{HWMON}/curr2_input", "", "curr2_input reads ''"),
    (f"{HWMON}/curr2_input", "-1000", "VDD_CPU_GPU_CV reads -4.976 W"),
    (f"{HWMON}/in2_input", "32760000", "VDD_CPU_GPU_CV reads 1.31e\\+04 W"),
]


@pytest.mark.parametrize(("file", "text", "told"), FAULTS)
def test_readings_that_cannot_be_are_refused(
    tmp_path: Path, file: str, text: str, told: str
) -> None:
    trees.tx2_r32(tmp_path)
    trees.hwmon(tmp_path, trees.ORIN_NANO)
    rails = find_rails(tmp_path)
    trees.write(tmp_path, file, text)
    with pytest.raises(MeterError, match=told):
        RailSource([rail(rails, "VDD_SYS_GPU"), rail(rails, "VDD_CPU_GPU_CV")]).read_w()


@pytest.mark.parametrize("milliampere", [0, -8, -16])
def test_up_to_two_steps_below_zero_are_the_chips_offset(tmp_path: Path, milliampere: int) -> None:
    trees.orin_nano_r36(tmp_path)
    found = rail(find_rails(tmp_path), "VDD_SOC")
    trees.write(tmp_path, f"{HWMON}/curr3_input", str(milliampere))
    assert found.read_w() == 0.0


def test_more_than_two_steps_below_zero_are_refused(tmp_path: Path) -> None:
    trees.orin_nano_r36(tmp_path)
    found = rail(find_rails(tmp_path), "VDD_SOC")
    trees.write(tmp_path, f"{HWMON}/curr3_input", "-17")
    with pytest.raises(MeterError, match="VDD_SOC reads -0.08459 W"):
        found.read_w()


def test_a_rail_that_may_not_be_read_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.tx2_r32(tmp_path)
    found = find_rails(tmp_path)[0]
    trees.refuse(monkeypatch, tmp_path / IIO / "in_power0_input", errno.EACCES)
    with pytest.raises(MeterError, match="in_power0_input may not .* chmod a\\+r .* mount /sys"):
        found.read_w()


def test_a_chip_that_vanishes_in_a_window_is_told(tmp_path: Path) -> None:
    trees.orin_nano_r36(tmp_path)
    source = RailSource([rail(find_rails(tmp_path), "VDD_IN")])
    now = [0.0]
    with SampledMeter(source, lambda: now[0]) as meter:
        assert meter.read_j() == 0.0
        shutil.rmtree(tmp_path / "sys/devices")
        now[0] = 1.0
        with pytest.raises(MeterError, match="in1_input is gone; its driver was unloaded"):
            meter.read_j()


def test_rails_add_up_and_the_name_says_which(tmp_path: Path) -> None:
    trees.tx2_r32(tmp_path)
    rails = find_rails(tmp_path)
    both: Tuple[Rail, ...] = (rail(rails, "VDD_SYS_GPU"), rail(rails, "VDD_SYS_DDR"))
    source = RailSource(both)
    assert source.name == "ina3221 VDD_SYS_GPU + VDD_SYS_DDR"
    assert source.read_w() == pytest.approx(1.991 + 1.196)
    assert source.step_w == pytest.approx(math.sqrt(sum(item.step_w**2 for item in both)))
    assert source.period_s == pytest.approx(0.05376)


def test_the_period_covers_what_a_reading_waits_for(tmp_path: Path) -> None:
    trees.agx_xavier_r35(tmp_path / "xavier")
    trees.orin_nano_r36(tmp_path / "orin")
    trees.hwmon(tmp_path / "watts", trees.ORIN_NANO, power=True)
    trees.tx2_r32(tmp_path / "tx2")
    trees.write(tmp_path / "tx2", f"{IIO}/running_mode", "0")
    rails = {name: find_rails(tmp_path / name) for name in ("xavier", "orin", "watts", "tx2")}
    assert RailSource(rails["xavier"]).period_s == pytest.approx(12 * 0.007)
    assert RailSource(rails["orin"][:1]).period_s == pytest.approx(2 * 0.007)
    assert RailSource(rails["watts"][:1]).period_s == READ_EVERY_S
    assert RailSource(rails["tx2"][:1]).period_s == READ_EVERY_S


def test_constant_power_over_a_window_gives_power_times_time(tmp_path: Path) -> None:
    trees.agx_xavier_r35(tmp_path)
    source = RailSource([rail(find_rails(tmp_path), "GPU")])
    now = [0.0]
    with SampledMeter(source, lambda: now[0]) as meter:
        first = meter.read_j()
        for step in (0.2, 0.31, 1.7):
            now[0] += step
            meter.read_j()
        assert meter.read_j() - first == pytest.approx(19.080 * 0.240 * 2.21)
