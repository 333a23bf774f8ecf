"""Tests run with the versions they are said to: `make test` with the newest, `make floor` with the oldest."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import pytest

from tools.check_wheels import read_pins

pytestmark = pytest.mark.device

ROOT = Path(__file__).resolve().parents[2]
#: Of the device tier, what has an oldest and a newest version to run with.
TIER = ("click", "numpy", "onnx", "onnxruntime", "rich", "safetensors")


def installed(name: str) -> str:
    """Return the version that is installed, without the label of a build (2.13.0+cpu); empty when none is."""
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return ""


@pytest.mark.skipif("EDGEECC_PINS" not in os.environ, reason="make names the file of pins")
def test_what_is_installed_is_what_is_pinned() -> None:
    pins = dict(read_pins(ROOT / os.environ["EDGEECC_PINS"]))
    assert {name: installed(name) for name in TIER} == {name: pins[name] for name in TIER}
    there = {name: installed(name) for name in pins if installed(name)}
    assert there == {name: pins[name] for name in there}


@pytest.mark.parametrize(
    "file", ["constraints.txt", "constraints-floor.txt", "constraints-l4t.txt"]
)
def test_each_set_pins_the_device_tier(file: str) -> None:
    assert set(TIER) <= set(dict(read_pins(ROOT / file)))


def test_the_two_sets_differ() -> None:
    newest, oldest = (dict(read_pins(ROOT / f"constraints{end}.txt")) for end in ("", "-floor"))
    assert all(newest[name] != oldest[name] for name in TIER)


def test_the_image_has_the_oldest_versions() -> None:
    image = dict(read_pins(ROOT / "constraints-l4t.txt"))
    oldest = dict(read_pins(ROOT / "constraints-floor.txt"))
    for_pcs = {"nvidia-ml-py"}  # a Jetson is read by its rails
    assert {name: image[name] for name in oldest if name not in for_pcs} == {
        name: version for name, version in oldest.items() if name not in for_pcs
    }


def test_make_names_the_pins_of_both_runs() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "EDGEECC_PINS=constraints.txt $(BIN)/python -m pytest" in makefile
    assert "EDGEECC_PINS=constraints-floor.txt $(FLOOR_VENV)/bin/python -m pytest" in makefile
