"""`torchrun ... prune` on the digits: one result, one voice, and a run that goes on in another number of processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict

import pytest
import torch
from safetensors.torch import load_file

from edgeecc.artifacts import load_json
from edgeecc.data.sources import load
from edgeecc.networks.table import build
from tests.cli_runs import complaint, own_module, run, run_json
from tests.gpus import TWO_GPUS
from tests.trained import on_digits

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}.", "OMP_NUM_THREADS": "1"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "--"]
COMMON = ["--network", "digits_mobilenet", "--batch-size", "32", "--accelerator", "cpu"]
QUICK = [*COMMON, "--budget", "50%", "--of", "macs", "--data", "digits", "--finetune-steps", "4"]
OWN = """
import os
import torch

class Images:
    def __init__(self, label):
        self.label = label

    def __len__(self):
        return 64

    def __getitem__(self, place):
        return torch.zeros(1, 8, 8), self.label

def wrong_in_one():
    return Images(99 if os.environ.get("RANK") == "1" else 0), Images(0)
"""

DOUBLE = """
import torch
from torch import nn

class Double(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.c2, self.c3 = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 12, 3), nn.Conv2d(12, 16, 3)
        self.n1, self.n2, self.n3 = nn.BatchNorm2d(8), nn.BatchNorm2d(12), nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = torch.relu(self.n1(self.c1(x.to(self.c1.weight.dtype))))
        x = torch.relu(self.n2(self.c2(x)))
        return self.fc(torch.relu(self.n3(self.c3(x))).mean((2, 3)))

def double():
    return Double().double()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    model = build("digits_mobilenet", width=0.05)
    on_digits(model, load("digits", input_shape=(1, 8, 8)), steps=60)
    torch.save(model.state_dict(), folder / "net.pth")
    (folder / "own_images.py").write_text(OWN)
    double = own_module(folder, "double_nets", DOUBLE).double()
    on_digits(double, load("digits", input_shape=(1, 8, 8)), steps=60)
    torch.save(double.state_dict(), folder / "double.pth")
    return folder


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TORCHRUN, "edgeecc", *map(str, arguments)], env=ENVIRONMENT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("accelerator", ["cpu", TWO_GPUS])
def test_two_processes_give_one_result(accelerator: str, home: Path) -> None:
    prune = [
        "prune", "net.pth", *QUICK, "--accelerator", accelerator, "--set", "pace=0", "--steps", "8", "--run",
    ]  # fmt: skip
    process = start(*prune, f"{accelerator}-two", "--json")
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    # With the half of the pruning steps that was left.
    assert errors.count("fine-tuning 8/8 steps") == 1
    assert "Warning" not in errors
    result: Any = json.loads(out)  # one object, from one process
    assert result["compute"] == {
        "accelerator": accelerator, "precision": "fp32", "channels_last": True, "processes": 2,
    }  # fmt: skip
    assert load_json(home / f"{accelerator}-two/result.json")["widths"] == result["widths"]
    assert result["cost"] <= result["budget"]["value"]
    alone = run_json(*prune, f"{accelerator}-alone")
    assert result["accuracy"] == pytest.approx(alone["accuracy"], abs=0.1)
    for (kept, dense), (other, _) in zip(result["widths"].values(), alone["widths"].values()):
        assert abs(kept - other) <= 1 + 0.1 * dense


IN_DOUBLE = [
    "prune", "double.pth", "--network", "double_nets:double", "--input", "1x8x8", "--data", "digits", "--of", "macs",
    "--budget", "40%", "--batch-size", "32", "--accelerator", "cpu", "--steps", "24", "--finetune-steps", "12",
    "--set", "pace=0", "--run",
]  # fmt: skip


def finished(folder: Path) -> Dict[str, Any]:
    result: Any = load_json(folder / "result.json")
    return {name: result[name] for name in ("widths", "accuracy", "pruned_accuracy", "steps")}


@pytest.mark.slow
def test_in_double_precision_two_processes_end_as_one_also_where_they_were_stopped(
    home: Path,
) -> None:
    """Gradients, batch norm, slim fine-tuning and what a run remembers, through the command."""
    run(*IN_DOUBLE, "double-alone")
    process = start(*IN_DOUBLE, "double-two")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    expected = finished(home / "double-alone")
    assert finished(home / "double-two") == expected
    weights = [
        load_file(home / f"double-{name}" / "masked.safetensors") for name in ("alone", "two")
    ]
    for name, one in weights[0].items():
        assert torch.allclose(one, weights[1][name], rtol=1e-5, atol=1e-7), name
    # Stopped in two, gone on with in one.
    process = start(*IN_DOUBLE, "double-stopped", "--checkpoint-s", "1e-9")
    while process.poll() is None and not (home / "double-stopped/checkpoint.safetensors").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert not (home / "double-stopped/result.json").exists()
    run(*IN_DOUBLE, "double-stopped")
    assert finished(home / "double-stopped") == expected


@pytest.mark.slow
def test_an_interrupted_job_goes_on_in_one_process(home: Path) -> None:
    prune = ["prune", "net.pth", *QUICK, "--steps", "16", "--checkpoint-s", "1e-9", "--run", "job"]
    process = start(*prune)
    while process.poll() is None and not (home / "job/checkpoint.safetensors").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert said.count("interrupted; what was saved is kept, give the same command to go on") == 1
    assert not (home / "job/result.json").exists()
    assert run_json(*prune)["compute"]["processes"] == 1


@pytest.mark.slow
def test_a_process_that_fails_ends_the_job_in_one_line() -> None:
    process = start(
        "prune", "net.pth", *COMMON, "--budget", "50%", "--of", "macs", "--steps", "2", "--data",
        "own_images:wrong_in_one", "--run", "wrong",
    )  # fmt: skip
    out, errors = process.communicate()
    assert process.returncode == 1
    assert out == ""
    (line,) = [line for line in errors.splitlines() if line.startswith("Error: ")]
    assert line.startswith(
        "Error: process 1: the first process was asked for something else, with request.data"
    )
    assert line.endswith("; give all processes the same files and options")


@pytest.mark.slow
def test_a_command_that_does_not_join_is_refused_in_one_line() -> None:
    process = start("compare", "net.pth", "--budget", "50%", "--data", "digits", "--out", "refused")
    out, errors = process.communicate()
    assert process.returncode == 1
    assert out == ""
    (line,) = [line for line in errors.splitlines() if line.startswith("Error: ")]
    assert line.startswith("Error: compare works in one process, and torchrun started 2; ")
    assert not Path("refused").exists()


def test_precision_belongs_to_the_run_and_the_number_of_processes_does_not() -> None:
    prune = ["prune", "net.pth", *QUICK, "--steps", "2", "--run", "precise", "--precision"]
    run(*prune, "bf16")
    assert "holds another run" in complaint(*prune, "fp32")
    assert "fp16 needs a GPU" in complaint(*prune, "fp16")
    assert run_json(*prune, "fp32", "--force")["compute"]["precision"] == "fp32"
