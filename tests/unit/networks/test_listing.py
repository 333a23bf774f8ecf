"""`edgeecc networks`: all at once, or some by name with their groups."""

from __future__ import annotations

import json

from click.testing import CliRunner

from edgeecc.catalogue import dense_counts
from edgeecc.cli.main import cli
from edgeecc.networks.table import NETWORKS


def test_every_network_is_listed_with_its_counts() -> None:
    result = CliRunner().invoke(cli, ["networks", "--json"])
    assert result.exit_code == 0, result.output
    entries = json.loads(result.stdout)["networks"]
    assert [entry["network"] for entry in entries] == list(NETWORKS)
    lenet = next(entry for entry in entries if entry["network"] == "lenet5")
    assert lenet == {
        "network": "lenet5",
        "input": [1, 28, 28],
        "macs": dense_counts("lenet5").macs,
        "params": 61_706,
        "task": "classification",
        "about": "LeNet-5 with ReLU",
    }


def test_named_networks_show_their_groups() -> None:
    result = CliRunner().invoke(cli, ["networks", "lenet5", "fashion_mobilenet"])
    assert result.exit_code == 0, result.output
    lines = {line.split()[1]: line for line in result.stdout.splitlines() if "x" in line}
    assert "4 / 5" in lines["lenet5"]
    assert "416.5 kMAC" in lines["lenet5"]
    assert "7 / 8" in lines["fashion_mobilenet"]
    assert "networks 2/2" in result.stderr


def test_an_unknown_name_is_told_before_anything_is_traced() -> None:
    result = CliRunner().invoke(cli, ["networks", "lenet5", "nothing"])
    assert result.exit_code == 1
    assert "unknown network 'nothing'; known are alexnet" in result.stderr
    assert "networks 0/2" not in result.stderr
