"""jetson-stats by its documented interface, of versions 3 and 4, and all the ways in which its service is not there."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.errors import MeterError, RuntimeUnavailableError
from edgeecc.meters.conditions import Conditions
from edgeecc.meters.jtop import (
    CompletedSensors,
    JtopSensors,
    board_model,
    clocks_hz,
    diagnosis,
    power_mode,
    temperatures_c,
)

pytestmark = pytest.mark.device

NEW = {
    "board": {"hardware": {"Model": "NVIDIA Orin NX Developer Kit", "Module": "Orin NX"}},
    "nvpmodel": SimpleNamespace(name="MAXN", id=0),
    "gpu": {"gpu": {"type": "integrated", "freq": {"cur": 918000, "max": 918000}}},
    "cpu": {
        "total": {"user": 1.0},
        "cpu": [
            {"online": True, "freq": {"cur": 1984000}},
            {"online": False},
            {"online": True, "freq": {"cur": 729600}},
        ],
    },
    "memory": {"RAM": {"tot": 1}, "EMC": {"cur": 3199000, "online": True}},
    "temperature": {
        "CPU": {"temp": 48.5, "online": True},
        "cv0": {"temp": -256, "online": False},
        "tj": {"temp": 49.0, "online": True},
    },
}
OLD = {
    "board": {
        "info": {"machine": "NVIDIA Jetson TX2", "jetpack": "4.6"},
        "hardware": {"TYPE": "TX2"},
    },
    "nvpmodel": "MAXN",
    "gpu": {"val": 12, "frq": 1300},
    "cpu": {"CPU1": {"val": 1, "frq": 2035}, "CPU2": {}, "MTS": {"frq": 1}},
    "emc": {"val": 3, "frq": 1866},
    "temperature": {"GPU": 41.5, "iwlwifi": -256.0},
}


class Client:
    """What `jtop.jtop()` gives."""

    def __init__(self, told: dict, *, start: object = None, alive: object = True) -> None:
        vars(self).update(told)
        self.fault_of_start, self.alive, self.closed = start, alive, 0

    def start(self) -> None:
        if self.fault_of_start:
            raise self.fault_of_start

    def ok(self, spin: bool = False) -> bool:
        if isinstance(self.alive, Exception):
            raise self.alive
        return bool(self.alive)

    def close(self) -> None:
        self.closed += 1


class WaitingClient(Client):
    """Of a version whose `ok` takes no argument, and that fails when it is closed."""

    def ok(self) -> bool:
        return super().ok()

    def close(self) -> None:
        super().close()
        raise RuntimeError("not running")


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    def put(client: Client) -> Client:
        module = ModuleType("jtop")
        module.jtop = lambda: client
        monkeypatch.setitem(sys.modules, "jtop", module)
        return client

    return put


@pytest.mark.parametrize("kind", [Client, WaitingClient])
def test_version_4(install, kind: type) -> None:
    client = install(kind(NEW))
    with JtopSensors() as sensors:
        assert sensors.model == "NVIDIA Orin NX Developer Kit"
        assert sensors.conditions().to_json() == {
            "clocks_hz": {"gpu": 918e6, "memory": 3199e6, "cpu0": 1984e6, "cpu2": 729.6e6},
            "temperatures_c": {"CPU": 48.5, "tj": 49.0},
            "mode": "MAXN",
            "held_back": [],
            "alerts": [],
        }
    assert client.closed == 1


class Interface:
    """What version 4 gives for some of its mappings: keys and items, and no more."""

    def __init__(self, items: dict) -> None:
        self._items = items

    def keys(self) -> list:
        return list(self._items)

    def __getitem__(self, key: str) -> object:
        return self._items[key]


def test_version_4_by_classes_of_its_own(install) -> None:
    told = {name: Interface(NEW[name]) for name in ("board", "gpu", "cpu", "memory", "temperature")}
    install(Client({**NEW, **told}))
    with JtopSensors() as sensors:
        assert sensors.model == "NVIDIA Orin NX Developer Kit"
        found = sensors.conditions()
    assert found.clocks_hz == {"gpu": 918e6, "memory": 3199e6, "cpu0": 1984e6, "cpu2": 729.6e6}
    assert found.temperatures_c == {"CPU": 48.5, "tj": 49.0}


def test_version_3(install) -> None:
    install(Client(OLD))
    with JtopSensors() as sensors:
        assert sensors.model == "NVIDIA Jetson TX2"
        found = sensors.conditions()
    assert found.clocks_hz == {"gpu": 1.3e9, "memory": 1.866e9, "cpu0": 2.035e9}
    assert found.temperatures_c == {"GPU": 41.5}
    assert found.mode == "MAXN"


def test_a_board_that_tells_nothing(install) -> None:
    install(Client({"board": None, "gpu": 3, "cpu": [], "temperature": "warm", "nvpmodel": None}))
    with JtopSensors() as sensors:
        assert sensors.model == ""
        found = sensors.conditions()
    assert found.to_json() == {
        "clocks_hz": {},
        "temperatures_c": {},
        "mode": "",
        "held_back": [],
        "alerts": [],
    }


def test_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jtop", None)
    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'edgeecc\[jtop\]'"):
        JtopSensors().__enter__()


@pytest.mark.parametrize(
    ("fault", "alive"),
    [(RuntimeError("service\ninactive"), True), (None, OSError(2)), (None, False)],
)
def test_a_service_that_does_not_serve_is_one_line(
    install, tmp_path: Path, fault: object, alive: object
) -> None:
    client = install(Client(NEW, start=fault, alive=alive))
    with pytest.raises(RuntimeUnavailableError, match="systemctl restart") as caught:
        JtopSensors(tmp_path / "jtop.sock").__enter__()
    assert "\n" not in str(caught.value)
    assert client.closed == 1


def test_a_connection_that_breaks_or_is_closed(install, tmp_path: Path) -> None:
    client = install(Client(NEW))
    (tmp_path / "jtop.sock").touch()
    with JtopSensors(tmp_path / "jtop.sock") as sensors:
        for alive in (False, ConnectionResetError("gone")):
            client.alive = alive
            with pytest.raises(MeterError, match="jtop's service does not answer"):
                sensors.conditions()
    sensors.__exit__()
    assert client.closed == 1
    with pytest.raises(MeterError, match="is closed; open it before"):
        sensors.conditions()


class Broken(Client):
    """A board whose answer cannot be made out."""

    @property
    def temperature(self) -> dict:
        raise KeyError("temp")


def test_an_answer_that_cannot_be_made_out(install) -> None:
    told = {name: value for name, value in NEW.items() if name != "temperature"}
    install(Broken(told))
    with JtopSensors() as sensors, pytest.raises(MeterError, match="'temp'"):
        sensors.conditions()


def test_what_is_wrong_with_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent, there = tmp_path / "absent", tmp_path / "there"
    there.touch()
    assert "differ in version (Version Mismatch 4.2 and 4.3)" in diagnosis(
        "Version Mismatch 4.2 and 4.3", absent
    )
    assert f"-v {absent}:{absent}" in diagnosis("", absent)
    assert "does not answer (timeout)" in diagnosis("timeout", there)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "sudo usermod -aG jtop $USER" in diagnosis("", there)


@pytest.mark.parametrize(
    ("board", "model"),
    [
        ({"hardware": {"Model": " ", "Module": "TX2"}}, "TX2"),
        ({"hardware": {"TYPE": "Nano"}}, "Nano"),
        ({"info": {"machine": "Xavier"}, "hardware": None}, "Xavier"),
        ({}, ""),
    ],
)
def test_models(board: dict, model: str) -> None:
    assert board_model(board) == model


def test_modes() -> None:
    assert power_mode(None) == ""
    assert power_mode("10W") == "10W"
    assert power_mode(SimpleNamespace(name="15W")) == "15W"


@given(st.floats(1e7, 9.99e9))
def test_a_clock_is_the_same_in_any_unit(hertz: float) -> None:
    for factor in (1.0, 1e3, 1e6):
        found = clocks_hz({"gpu": {"freq": {"cur": hertz / factor}}}, {}, {})
        assert found["gpu"] == pytest.approx(hertz)


@pytest.mark.parametrize("wrong", [0, -5, None, "fast", True, float("nan"), float("inf"), 10**15])
def test_what_is_no_clock_is_left_out(wrong: object) -> None:
    assert (
        clocks_hz({"gpu": {"freq": {"cur": wrong}}}, {"cpu": [{"freq": wrong}]}, {"cur": wrong})
        == {}
    )


@pytest.mark.parametrize("wrong", [None, "hot", float("nan"), {"temp": None}, {}, True])
def test_what_is_no_temperature_is_left_out(wrong: object) -> None:
    assert temperatures_c({"GPU": wrong}) == {}


def test_huge_integers_are_no_numbers() -> None:
    assert temperatures_c({"GPU": 10**400}) == {}


class Fixed:
    """Says always the same."""

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = lambda: conditions


def test_what_one_does_not_tell_the_other_completes() -> None:
    first = Fixed(Conditions({"gpu": 1e9}, {}, "", ("thermal",), ("oc1",)))
    second = Fixed(Conditions({"gpu": 2e9, "cpu0": 3e9}, {"GPU": 50.0}, "MAXN", ("thermal", "cap")))
    found = CompletedSensors(first, second).conditions()
    assert found == Conditions(
        {"gpu": 1e9, "cpu0": 3e9}, {"GPU": 50.0}, "MAXN", ("thermal", "cap"), ("oc1",)
    )
