"""Every block of docs/extending.md, written to the file that it names and run."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch

from edgeecc.meters import sampled
from edgeecc.networks.table import NETWORKS
from edgeecc.solvers.table import METHODS
from tests.cli_runs import run

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "extending.md").read_text()
FILES = {
    re.match(r"# (\w+\.py)\n", block).group(1): block  # type: ignore[union-attr]
    for block in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
}
COMMANDS = [
    shlex.split(line)[1:]
    for block in re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    for line in block.splitlines()
]


def test_the_guide_works_as_written(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [str(workspace), *sys.path])
    for name, text in FILES.items():
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
        (workspace / name).write_text(text)
    monkeypatch.setattr(
        sampled, "BLIND_PERIODS", 10_000
    )  # the file never changes, whoever starves the thread
    calibrate, inspect = COMMANDS
    run(*calibrate)

    (workspace / "power").write_text("2500000\n")
    told = runpy.run_path("hwmon_power.py")["main"](workspace / "power")
    # Two medians over the same windows: one that a busy machine stretched would move a mean alone.
    assert told.energy_median_j / told.latency_s == pytest.approx(2.5, rel=0.05)
    assert told.meter == "hwmon power"

    differs, latency = ran(capsys, "reference.py").splitlines()
    assert float(differs.split()[-1]) < 1e-4
    assert float(latency.split()[-2]) > 0.0

    with torch.random.fork_rng():
        ran(capsys, "small.py")
    run(*inspect)
    with monkeypatch.context() as patch:
        patch.setitem(METHODS, "random", METHODS["uniform"])  # taken back in the end
        patch.setitem(NETWORKS, "small", NETWORKS["lenet5"])
        assert ran(capsys, "random_solver.py").startswith("random 0.")
        assert ran(capsys, "known.py") == "('small', {'classes': 7})\n"
    assert not {"random", "small"} & {*METHODS, *NETWORKS}


def ran(capsys: pytest.CaptureFixture[str], name: str) -> str:
    capsys.readouterr()
    runpy.run_path(name, run_name="__main__")
    return capsys.readouterr().out
