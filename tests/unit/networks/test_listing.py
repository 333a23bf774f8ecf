"""`edgeecc networks`: every row of the table, with its counts."""

from __future__ import annotations

import json

from click.testing import CliRunner

from edgeecc.catalogue import dense_counts
from edgeecc.cli.main import cli
from edgeecc.networks.names import NAMES
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
        "prunable_groups": 4,
        "groups": 5,
        "task": "classification",
        "about": "LeNet-5 with ReLU",
    }


def test_the_table_shows_groups_and_counts() -> None:
    result = CliRunner().invoke(cli, ["networks"])
    assert result.exit_code == 0, result.output
    lines = {line.split()[1]: line for line in result.stdout.splitlines() if "x" in line}
    assert "4 / 5" in lines["lenet5"]
    assert "416.5 kMAC" in lines["lenet5"]
    assert "54 / 56" in lines["resnet110"]


def test_the_names_that_are_known_without_torch_are_those_of_the_table() -> None:
    assert sorted(NAMES) == sorted(NETWORKS)
