"""`edgeecc inspect`: ties as numbers, and drawings that cannot be made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeecc.cli.main import cli

pytest.importorskip("torch")
LENET = ("inspect", "--network", "lenet5", "--device", "systolic:eyeriss")


def test_groups_name_their_layers_and_their_share(workspace: Path) -> None:
    result = CliRunner().invoke(cli, [*LENET, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    macs = {layer["name"]: layer["macs"] for layer in found["layers"]}
    assert found["drawing"] is None
    for group, after in zip(found["groups"], [*found["groups"][1:], None]):
        readers = [] if after is None else after["makers"]
        assert (group["makers"], group["carriers"]) == ([group["name"]], [])
        assert group["readers"] == readers
        touched = sum(macs[name] for name in group["makers"] + readers)
        assert group["mac_share"] == pytest.approx(touched / sum(macs.values()))


@pytest.mark.parametrize(
    ("drawing", "text"),
    [
        ("groups.png", "cannot draw groups.png; give a file that ends in .dot or .svg"),
        ("groups", "cannot draw groups;"),
        ("taken/groups.svg", "cannot write taken/groups.svg"),
    ],
)
def test_a_drawing_that_cannot_be_made(drawing: str, text: str, workspace: Path) -> None:
    (workspace / "taken").write_text("no folder")
    result = CliRunner().invoke(cli, [*LENET, "--draw", drawing])
    assert result.exit_code == 1
    assert text in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_calibrate_takes_a_program_or_a_name(workspace: Path) -> None:
    result = CliRunner().invoke(cli, ["calibrate", "net.pt2", "--network", "lenet5"])
    assert result.exit_code == 2
    assert "net.pt2 carries its own network; leave out --network" in result.stderr
    result = CliRunner().invoke(cli, ["calibrate", "net.pt2"])
    assert result.exit_code == 1
    assert "cannot read net.pt2" in result.stderr
