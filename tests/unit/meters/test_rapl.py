"""RAPL: laps against a count that never wraps, what is added up, and every fault."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.errors import MeterError
from edgeecc.meters.rapl import MOST_W, PERIOD_S, Domain, RaplMeter, find_domains
from tests import sysfs_trees as trees

pytestmark = pytest.mark.device

#: What kernels say where the unit is 2^-14 J (61035 nJ in whole nanojoules) and 2^-16 J (15258 nJ).
HIGHEST_UJ = {61035: 262143328850, 15258: 65532610987}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def one(root: Path, energy_uj: int = 0, highest_uj: int = HIGHEST_UJ[61035]) -> Path:
    return trees.zone(root, "package-0", energy_uj, highest_uj, at="intel-rapl:0")


@pytest.mark.parametrize(("unit_nj", "highest_uj"), HIGHEST_UJ.items())
def test_a_lap_is_two_to_the_32_units(tmp_path: Path, unit_nj: int, highest_uj: int) -> None:
    assert (2**32 - 1) * unit_nj // 1000 == highest_uj
    one(tmp_path, highest_uj=highest_uj)
    assert find_domains(tmp_path)[0].lap_uj == pytest.approx(2**32 * unit_nj / 1000, abs=1)


@given(
    st.sampled_from(sorted(HIGHEST_UJ)),
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40),
)
def test_laps_are_followed_as_by_a_count_that_never_wraps(
    tmp_path_factory: pytest.TempPathFactory, unit_nj: int, start: int, steps: List[int]
) -> None:
    root = tmp_path_factory.mktemp("powercap")
    file = one(root, start * unit_nj // 1000, HIGHEST_UJ[unit_nj])
    clock = Clock()
    meter = RaplMeter(find_domains(root), clock)
    units = start
    for step in steps:
        units += step
        clock.now += 1e-9 * step * unit_nj / 100.0  # at 100 W
        file.write_text(f"{units % 2**32 * unit_nj // 1000}\n")
        truth_uj = (units - start) * unit_nj / 1000
        laps = units // 2**32
        assert abs(1e6 * meter.read_j() - truth_uj) <= 2.0 + laps


def test_packages_and_memory_are_added_and_nothing_twice(tmp_path: Path) -> None:
    counts = {
        at: trees.zone(tmp_path, name, 0, 10**9, at=at)
        for at, name in {
            "intel-rapl:0": "package-0",
            "intel-rapl:0:0": "core",
            "intel-rapl:0:1": "uncore",
            "intel-rapl:0:2": "dram",
            "intel-rapl:1": "package-1-die-0",
            "intel-rapl:2": "psys",
            "intel-rapl-mmio:0": "package-0",
        }.items()
    }
    meter = RaplMeter(find_domains(tmp_path), clock := Clock())
    assert meter.name == "rapl package-0 + dram of package-0 + package-1-die-0"
    for number, file in enumerate(counts.values()):
        file.write_text(str(10 ** (number + 2)))
    clock.now += 1.0
    assert meter.read_j() == pytest.approx(1e-6 * (10**2 + 10**5 + 10**6))
    assert (meter.period_s, meter.step_w, meter.blind_s()) == (PERIOD_S, 0.0, 0.0)
    assert meter.clock_s() == clock.now


def test_memory_at_the_top_is_added_too(tmp_path: Path) -> None:
    one(tmp_path)
    trees.zone(tmp_path, "dram", 0, 10**9, at="intel-rapl:1")
    assert [item.name for item in find_domains(tmp_path)] == ["package-0", "dram"]


def test_a_count_that_stands_still_gives_zero_joules_for_the_protocol_to_refuse(
    tmp_path: Path,
) -> None:
    one(tmp_path, 5)
    meter = RaplMeter(find_domains(tmp_path), clock := Clock())
    clock.now += 1.0
    assert meter.read_j() == 0.0


def test_no_domain_says_what_is_needed(tmp_path: Path) -> None:
    trees.zone(tmp_path, "psys", 0, 10**9, at="intel-rapl:0")
    with pytest.raises(MeterError, match="no RAPL counter is here: .* systempaths=unconfined"):
        RaplMeter(find_domains(tmp_path))


def test_a_hidden_powercap_is_no_domain(tmp_path: Path) -> None:
    one(tmp_path)
    shutil.rmtree(tmp_path / "sys/devices/virtual/powercap")
    assert find_domains(tmp_path) == []


@pytest.mark.parametrize("text", ["0", "-1", "", "many"])
def test_a_range_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    file = one(tmp_path)
    (file.parent / "max_energy_range_uj").write_text(text)
    with pytest.raises(MeterError, match="max_energy_range_uj reads"):
        find_domains(tmp_path)


def test_a_count_for_root_alone_says_how_to_allow_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one(tmp_path)
    trees.refuse(monkeypatch, tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj", errno.EACCES)
    with pytest.raises(MeterError, match="energy_uj may not .*CVE-2020-8694.: sudo chmod a.r"):
        RaplMeter(find_domains(tmp_path))


@pytest.mark.parametrize("text", ["garbage", "-5", str(HIGHEST_UJ[61035] + 100)])
def test_a_count_that_cannot_be_is_refused(tmp_path: Path, text: str) -> None:
    file = one(tmp_path)
    meter = RaplMeter(find_domains(tmp_path))
    file.write_text(text)
    with pytest.raises(MeterError, match="energy_uj reads"):
        meter.read_j()


def test_a_domain_that_vanishes_is_told(tmp_path: Path) -> None:
    file = one(tmp_path)
    meter = RaplMeter(find_domains(tmp_path))
    file.unlink()
    with pytest.raises(MeterError, match="energy_uj is gone"):
        meter.read_j()


def test_a_count_that_was_set_back_is_told_and_counts_nothing(tmp_path: Path) -> None:
    file = one(tmp_path, 10**9)
    other = trees.zone(tmp_path, "dram", 0, 10**9, at="intel-rapl:1")
    meter = RaplMeter(find_domains(tmp_path), clock := Clock())
    clock.now += 1.0
    file.write_text("0")
    other.write_text("7000000")
    with pytest.raises(MeterError, match="package-0 counted .* J in 1 s, .* was set back"):
        meter.read_j()
    file.write_text(str(10**9))
    assert meter.read_j() == pytest.approx(7.0)


def test_the_highest_power_that_is_believed(tmp_path: Path) -> None:
    domain = Domain("package-0", one(tmp_path), 10**12)
    meter = RaplMeter([domain], clock := Clock())
    clock.now += 1.0
    domain.file.write_text(str(int(1e6 * MOST_W)))
    assert meter.read_j() == pytest.approx(MOST_W)
