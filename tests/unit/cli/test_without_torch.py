"""What the command line says where the host tier is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.device
ROOT = Path(__file__).resolve().parents[3]
CODE = """
import sys
sys.modules["torch"] = None  # as if it were not installed
sys.argv = ["edgeecc", *{arguments!r}]
from edgeecc.cli.main import main
main()
"""


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", CODE.format(arguments=list(arguments))]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["prune", "model.pth", "--budget", "25mJ", "--data", "digits"],
        ["compare", "model.pth", "--budget", "50%", "--data", "digits"],
        ["inspect", "--network", "lenet5"],
        ["calibrate", "--network", "lenet5"],
        ["export", "runs/nothing"],
        ["demo"],
    ],
)
def test_commands_of_the_host_tier_say_what_they_need(arguments: list) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    *before, last = done.stderr.splitlines()
    assert last == "Error: this command needs torch, which is not here; pip install 'edgeecc[host]'"
    assert all(line.startswith("tracing the network") for line in before)  # progress
    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["doctor"],
        *([name, "--help"] for name in ("prune", "verify", "explain")),
    ],
)
def test_the_rest_works(arguments: list) -> None:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout
