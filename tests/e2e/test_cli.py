"""The whole way through the command line on real data (scikit-learn's digits), and every kind of bad input."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shlex
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from edgeecc.artifacts import load_json, read_tensors, write_tensors
from edgeecc.cli.main import cli
from edgeecc.compressed import unpack
from edgeecc.data.sources import load
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.networks.table import build
from edgeecc.training.dense import initialise_
from edgeecc.training.evaluate import top1
from tests.cli_runs import complaint, own_module, run, run_json
from tests.commands import Command
from tests.report_runs import Page, check_page
from tests.trained import on_digits

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
OWN = """
import torch
from torch import nn
from edgeecc.networks.mobilenet import MobileNet

def net():
    return MobileNet(1, (16, 1), ((32, 2), (128, 2), (512, 1), (512, 1)), 10)

class Running(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.c2, self.c3 = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 12, 3), nn.Conv2d(12, 16, 3)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = torch.relu(self.c2(torch.cumsum(torch.relu(self.c1(x)), 3)))
        return self.fc(torch.relu(self.c3(x)).mean((2, 3)))

def running():
    return Running()

class Three(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.c2, self.c3 = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 12, 3), nn.Conv2d(12, 10, 3)
        self.fc = nn.Linear(10, 10)

    def forward(self, x):
        x = torch.relu(self.c2(torch.relu(self.c1(x))))
        return self.fc(torch.relu(self.c3(x)).mean((2, 3)))

def three():
    return Three()

class One(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(1, 10, 3)

    def forward(self, x):
        return self.c(x).mean((2, 3))

def one():
    return One()

def frozen():
    return net().requires_grad_(False)

def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

def nothing():
    return 3

def broken():
    raise RuntimeError("no weights here")
"""
FACTORY = ["--network", "own_nets:net", "--input", "1x8x8"]
QUICK = ["--data", "digits", "--steps", "24", "--finetune-steps", "12", "--batch-size", "64"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a trained network of the user's own."""
    folder = tmp_path_factory.mktemp("home")
    own_nets = own_module(folder, "own_nets", OWN)
    data = load("digits", input_shape=(1, 8, 8))
    model = on_digits(own_nets.net(), data, steps=60, lr=3e-3)
    assert top1(model, data.val) > 0.8
    torch.save(model.state_dict(), folder / "net.pth")
    return folder


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def asked_again(command: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what run.json would keep of the request that a command makes, short of training."""
    taken: list = []

    def take(request: Any, *_: object, **__: object) -> None:
        taken.append(request)
        raise ConfigError("taken")

    kind = "edgeecc.sparsify" if "--method wsp" in command else "edgeecc.prune"
    with monkeypatch.context() as patched:
        patched.setattr(f"{kind}.{kind.rpartition('.')[2]}", take)
        assert "taken" in complaint(*shlex.split(command)[1:])
    module = importlib.import_module(kind)
    return json.loads(json.dumps(module._identity(taken[0], module.prepare(taken[0]))))


def reported(folder: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what the report of a run tells; its page holds to the rules, and its command asks for the same run."""
    told = run_json("report", folder)
    found = Page.of(told["report"])
    check_page(found)
    assert found.charts() == told["charts"]
    request = load_json(Path(folder) / "run.json")["request"]
    assert asked_again(told["reproduce"]["commands"][0], monkeypatch) == request
    return told


def test_prune_export_verify_on_an_energy_budget(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspected = run_json("inspect", *FACTORY)
    state = torch.load("net.pth", weights_only=True)
    trained = [value for name, value in state.items() if value.ndim and "running" not in name]
    assert inspected["total"]["params"] == sum(value.numel() for value in trained)
    assert "simulated" in inspected["meter"]
    assert inspected["total"]["cost"] > sum(layer["cost"] for layer in inspected["layers"])
    result = run_json(
        "prune", "net.pth", *FACTORY, *QUICK, "--budget", "97%", "--run", "runs/energy"
    )
    assert {
        "run",
        "method",
        "budget",
        "dense",
        "accuracy",
        "cost",
        "widths",
        "steps",
        "status",
        "meter",
        "seconds",
    } <= set(result)
    assert result["budget"]["unit"] == "J"
    assert result["budget"]["value"] == pytest.approx(0.97 * result["dense"]["cost"])
    assert result["cost"] <= result["budget"]["value"]
    assert (result["task"], result["score"]) == ("classification", "top-1")
    assert result["accuracy"] == result["scores"]["pruned"]["top-1"] > 0.6
    assert result["dense"]["accuracy"] == result["scores"]["dense"]["top-1"]
    assert result["scores"]["pruned"]["top-5"] >= result["accuracy"]
    assert all(1 <= kept <= dense for kept, dense in result["widths"].values())
    exported = run_json("export", "runs/energy")
    assert exported["engine"] is None
    verified = exported["verify"]
    assert verified["within_budget"] is True
    assert verified["max_abs_error"] < 1e-4
    assert verified["accuracy"] == pytest.approx(result["accuracy"], abs=0.01)
    assert verified["scores"] == pytest.approx(result["scores"]["pruned"], abs=0.01)
    assert verified["energy_j"] <= result["budget"]["value"]
    assert verified["latency_s"] > 0.0
    report = load_json(home / "runs/energy/report.json")
    dense, masked, slim = report["networks"]
    assert (dense["network"], masked["network"], slim["network"]) == ("dense", "masked", "slim")
    assert masked["params"] == dense["params"] > slim["params"]
    assert slim["macs"] < dense["macs"]
    arrays, _ = read_tensors(home / "runs/energy/slim.safetensors")
    trained = [v for n, v in arrays.items() if "running" not in n and v.ndim]
    assert sum(v.size for v in trained) == slim["params"]
    onnx.checker.check_model(onnx.load(exported["onnx"]), full_check=True)
    again = run_json("verify", "runs/energy")
    assert again["energy_j"] == verified["energy_j"]
    told = reported("runs/energy", monkeypatch)
    assert (told["within_budget"], told["basis"], told["outdated"]) == (True, "simulated", [])
    (finding,) = told["budgets"][0]["findings"]
    assert finding["figure"]["value"] == verified["energy_j"]
    assert finding["figure"]["error"] == verified["energy_se_j"]
    slim = told["networks"][2]
    assert (slim["name"], slim["params"]) == ("slim", report["networks"][2]["params"])
    assert slim["energy"]["error"] > 0.0
    course = ["loss", "phi", "bounds", "prices", "duals"]
    assert told["charts"][:8] == ["widths", "costs-energy", "gap-energy", *course]
    history = load_json(home / "runs/energy/history.json")
    steps = result["finetune_steps"]
    assert (len(history["finetune"]["step"]), history["finetune"]["step"][-1]) == (steps, steps)
    assert history["course"]["groups"] == list(result["widths"])


def test_a_group_that_the_graph_cannot_follow_stays_whole(home: Path) -> None:
    """Torch could cut c1; ONNX cannot be followed through a running sum. That is known before training."""
    import own_nets

    model = own_nets.running()
    initialise_(model, 0)
    torch.save(model.state_dict(), "running.pth")
    running = ["--network", "own_nets:running", "--input", "1x8x8"]
    inspected = run_json("inspect", *running)
    groups = {group["name"]: group for group in inspected["groups"]}
    assert "CumSum" in groups["c1"]["reason"]
    assert groups["c2"]["prunable"]
    budget = f"{0.7e-6 * inspected['total']['macs']}MMAC"
    result = run_json(
        "prune", "running.pth", *running, *QUICK, "--budget", budget, "--run", "runs/r"
    )
    assert sorted(result["widths"]) == ["c2", "c3"]
    assert run_json("export", "runs/r")["verify"]["within_budget"] is True


@pytest.mark.parametrize(
    ("budget", "of", "unit"),
    [
        ("1.5MMAC", "energy", "MAC"),
        ("2MB", "energy", "B"),
        ("40%", "size", "B"),
        ("30%", "macs", "MAC"),
    ],
)
def test_exact_budgets_need_no_device(budget: str, of: str, unit: str) -> None:
    folder = f"runs/{budget}-{of}".replace("%", "pct")
    result = run_json(
        "prune", "net.pth", *FACTORY, *QUICK, "--budget", budget, "--of", of, "--run", folder
    )
    assert result["budget"]["unit"] == unit
    assert result["meter"] == "exact count"
    assert result["cost"] <= result["budget"]["value"]
    assert run_json("export", folder)["verify"]["within_budget"] is True


def test_a_latency_budget_takes_a_measured_profile() -> None:
    text = complaint("prune", "net.pth", *FACTORY, *QUICK, "--budget", "1ms")
    assert (
        "make one with: edgeecc calibrate --network own_nets:net --device onnxruntime:cpu" in text
    )
    made = run_json(
        "calibrate",
        *FACTORY,
        "--device",
        "onnxruntime:cpu",
        "--samples",
        "25",
        "--tolerance",
        "0.2",
        "--window-s",
        "0.01",
    )
    assert {
        "profile",
        "samples",
        "heldout_error",
        "model",
        "meter",
        "variants_per_s",
        "resumed_from",
    } <= set(made)
    assert made["meter"] == "onnxruntime:cpu (1 thread)"
    result = run_json(
        "prune",
        "net.pth",
        *FACTORY,
        *QUICK,
        "--budget",
        "70%",
        "--of",
        "latency",
        "--margin",
        "0.0",
        "--run",
        "runs/latency",
    )
    assert result["budget"]["unit"] == "s"
    assert "model of onnxruntime:cpu" in result["meter"]
    done = CliRunner().invoke(cli, ["-q", "export", "runs/latency", "--json"])
    verified = json.loads(done.stdout)["verify"]
    assert done.exit_code == (0 if verified["within_budget"] else 3)


def test_uniform_and_the_published_form_run_too() -> None:
    for name, options in (("uniform", ["--method", "uniform"]), ("adam", ["--metric", "adam"])):
        result = run_json(
            "prune",
            "net.pth",
            *FACTORY,
            *QUICK,
            *options,
            "--budget",
            "50%",
            "--of",
            "macs",
            "--run",
            f"runs/{name}",
        )
        assert result["cost"] <= result["budget"]["value"]


def test_a_missed_budget_exits_with_three(home: Path) -> None:
    run_json("prune", "net.pth", *FACTORY, *QUICK, "--budget", "97%", "--run", "runs/missed")
    run("export", "runs/missed")
    path = home / "runs/missed/result.json"
    document = load_json(path)
    document["budget"]["value"] *= 0.5
    path.write_text(json.dumps(document))
    assert run_json("verify", "runs/missed", code=3)["within_budget"] is False


def test_calibrate_resumes_and_needs_no_torch(home: Path) -> None:
    first = run_json("calibrate", *FACTORY, "--samples", "50", "--target-error", "0")
    assert first["resumed_from"] == 0
    again = run_json("calibrate", *FACTORY, "--samples", "80", "--target-error", "0")
    assert again["resumed_from"] == 50
    graph = home / "calibration/virtual-tx2/net"
    code = (
        "import sys; from edgeecc.cli.main import cli\n"
        f"try: cli(['-q', 'calibrate', '--graph', {str(graph)!r}, '--samples', '40', '--workspace', 'board'])\n"
        "except SystemExit as e: sys.exit(e.code or ('torch' in sys.modules) * 9)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _done(checkpoint: Path) -> int:
    try:
        return int(read_tensors(checkpoint)[1]["done"])
    except ArtifactError:
        return 0


def test_kill_nine_during_prune_then_resume(home: Path) -> None:
    arguments = [
        "prune",
        "net.pth",
        *FACTORY,
        "--data",
        "digits",
        "--steps",
        "48",
        "--finetune-steps",
        "24",
    ]
    arguments += ["--batch-size", "32", "--budget", "40%", "--of", "macs", "--json"]

    def start(folder: str) -> Command:
        return Command([*arguments, "--run", folder, "--checkpoint-s", "0.05"], home)

    code, told, errors = start("runs/straight").ended()
    assert code == 0, errors
    expected = json.loads(told)
    folder = home / "runs/killed"
    checkpoint, pattern = folder / "checkpoint.safetensors", folder / "keep.json"
    # Early and late in pruning, then in fine-tuning; a fast machine may finish before the last.
    moments = [
        checkpoint.exists,
        lambda: _done(checkpoint) > 20,
        lambda: pattern.exists() and _done(checkpoint) > 5,
    ]
    killed = 0
    for moment in moments:
        command = start("runs/killed")
        command.until(moment)
        command.send(signal.SIGKILL)
        code, _, errors = command.ended()
        assert code in (0, -signal.SIGKILL), errors
        killed += code != 0
        assert all(load_json(path) for path in folder.glob("*.json"))
    assert killed >= 1
    if not (folder / "result.json").exists():
        code, _, errors = start("runs/killed").ended()
        assert code == 0, errors
    found = load_json(home / "runs/killed/result.json")
    assert found["widths"] == expected["widths"]
    assert found["accuracy"] == expected["accuracy"]
    one, other = (
        read_tensors(home / f"runs/{name}/masked.safetensors")[0] for name in ("straight", "killed")
    )
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert not list((home / "runs/killed").glob("*.tmp"))


def _count(database: Path) -> int:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            return int(db.execute("SELECT count(*) FROM samples").fetchone()[0])
    except sqlite3.Error:
        return 0


def test_ctrl_c_exits_with_130_and_keeps_the_samples(home: Path) -> None:
    arguments = [
        "calibrate",
        *FACTORY,
        "--samples",
        "30000",
        "--target-error",
        "0",
        "--workspace",
        "interrupted",
    ]
    command = Command(arguments, home)
    database = home / "interrupted/calibration/virtual-tx2/net/samples.db"
    command.until(lambda: database.exists() and _count(database) > 100)
    command.send(signal.SIGINT)
    code, _, errors = command.ended()
    assert code == 130, errors
    assert "interrupted; what was saved is kept" in errors
    assert "Traceback" not in errors
    resumed = run_json("calibrate", *FACTORY, "--samples", "60", "--workspace", "interrupted")
    assert resumed["resumed_from"] == 60


def test_fine_tuning_that_was_stopped_goes_on_with_the_steps_it_was_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["prune", "net.pth", *FACTORY, *QUICK, "--budget", "60%", "--of", "macs"]
    command += ["--set", "pace=0", "--steps", "8", "--finetune-steps", "3", "--run"]
    whole = run_json(*command, "runs/unstopped")
    assert (whole["steps"], whole["finetune_steps"]) == (4, 7)
    with monkeypatch.context() as stopped:
        stopped.setattr("edgeecc.prune._finetune", _interrupted)
        run(*command, "runs/stopped", code=130)
    path = Path("runs/stopped/pruned.safetensors")
    tensors, metadata = read_tensors(path)
    assert metadata["left"] == "4"
    write_tensors(path, tensors, {"status": "converged"})
    said = complaint(*command, "runs/stopped")
    assert "does not tell how many steps are left; remove it to prune again" in said
    shutil.copytree("runs/stopped", "runs/pruned-again")
    write_tensors(path, tensors, metadata)
    went_on = run_json(*command, "runs/stopped")
    Path("runs/pruned-again/pruned.safetensors").unlink()
    again = run_json(*command, "runs/pruned-again")
    assert {**again, "seconds": 0, "run": 0} == {**went_on, "seconds": 0, "run": 0}
    for name in ("steps", "finetune_steps", "accuracy", "pruned_accuracy", "widths", "cost"):
        assert went_on[name] == whole[name], name


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_finished_run_is_not_overwritten() -> None:
    command = (
        "prune",
        "net.pth",
        *FACTORY,
        *QUICK,
        "--budget",
        "60%",
        "--of",
        "macs",
        "--run",
        "runs/once",
    )
    run(*command)
    assert "is finished; export it, or --force" in complaint(*command)
    other = (
        "prune",
        "net.pth",
        *FACTORY,
        *QUICK,
        "--budget",
        "50%",
        "--of",
        "macs",
        "--run",
        "runs/once",
    )
    assert "holds another run" in complaint(*other)
    run(*other, "--force")


PRUNE = ("prune", "net.pth", *FACTORY, *QUICK)


@pytest.mark.parametrize(
    ("budget", "code", "text"),
    [
        ("0.025", 2, "bare number"),
        ("25Joule", 2, "unknown unit 'Joule'"),
        ("0J", 2, "positive"),
        ("-3mJ", 2, "positive"),
        ("120%", 2, "at most 100%"),
        ("1uJ", 1, "the lowest that can be met is"),
        ("5%", 1, "the lowest that can be met is"),
    ],
)
def test_bad_budgets(budget: str, code: int, text: str) -> None:
    assert text in complaint(*PRUNE, "--budget", budget, code=code)


def test_the_lowest_budget_named_can_be_met() -> None:
    text = complaint(*PRUNE, "--budget", "1uJ")
    lowest = text.split("can be met is ")[1].split(" (")[0].replace(" ", "")
    result = run_json(*PRUNE, "--budget", lowest, "--run", "runs/lowest")
    assert result["cost"] <= result["budget"]["value"]


def _pickled(path: Path) -> None:
    torch.save(nn.Linear(2, 2), path)


def _truncated(path: Path) -> None:
    path.write_bytes(Path("net.pth").read_bytes()[:5000])


def _nan(path: Path) -> None:
    state = torch.load("net.pth", weights_only=True)
    state["fc.bias"][0] = float("nan")
    torch.save(state, path)


def _surplus(path: Path) -> None:
    torch.save({**torch.load("net.pth", weights_only=True), "extra": torch.zeros(1)}, path)


def _missing_name(path: Path) -> None:
    state = torch.load("net.pth", weights_only=True)
    state.pop("fc.bias")
    torch.save(state, path)


def _wrong_shape(path: Path) -> None:
    torch.save({**torch.load("net.pth", weights_only=True), "fc.bias": torch.zeros(3)}, path)


def _list(path: Path) -> None:
    torch.save([torch.zeros(1)], path)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda path: None, "no such file"),
        (_pickled, "torch.save(model.state_dict(), PATH)"),
        (_truncated, "damaged or no weights file"),
        (_nan, "fc.bias in bad.pth holds NaN"),
        (_surplus, "have 'extra', which the network lacks"),
        (_missing_name, "lack 'fc.bias'"),
        (_wrong_shape, "have fc.bias (3,), the network (10,)"),
        (_list, "holds no state dict"),
        (lambda path: path.write_bytes(b""), "damaged or no weights file"),
    ],
)
def test_bad_weights(damage: Any, text: str, home: Path) -> None:
    (home / "bad.pth").unlink(missing_ok=True)
    damage(home / "bad.pth")
    assert text in complaint("prune", "bad.pth", *FACTORY, *QUICK, "--budget", "50%")


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (
            ["--network", "own_nets:net", "--input", "3x8x8", *QUICK],
            1,
            "forward failed in module stem.conv",
        ),
        (
            ["--network", "own_nets:net", "--input", "1x6x6", *QUICK],
            1,
            "images of digits are 1x8x8",
        ),
        (["--network", "own_nets:net", "--input", "big", *QUICK], 2, "no input shape"),
        (["--network", "own_nets:net", *QUICK], 1, "give --input"),
        (
            ["--network", "own_nets:nothing", "--input", "1x8x8", *QUICK],
            1,
            "it must return a torch.nn.Module",
        ),
        (["--network", "own_nets:broken", "--input", "1x8x8", *QUICK], 1, "no weights here"),
        (["--network", "own_nets:absent", "--input", "1x8x8", *QUICK], 1, "has no 'absent'"),
        (
            ["--network", "no_such_module:net", "--input", "1x8x8", *QUICK],
            1,
            "cannot import 'no_such_module'",
        ),
        (["--network", "resnet9000", *QUICK], 1, "unknown network 'resnet9000'; known are alexnet"),
        (QUICK, 1, "fit no known network; give --network"),
        ([*FACTORY, "--steps", "3"], 2, "no data to train on"),
        ([*FACTORY, "--data", "moonlight"], 1, "unknown data set 'moonlight'"),
        ([*FACTORY, "--data", "imagefolder:nowhere"], 1, "no folder nowhere/train"),
        ([*FACTORY, "--data", "fashion-mnist:nowhere"], 1, "dataset-fashion-mnist"),
        ([*FACTORY, "--data", "own_nets:nothing"], 1, "must return (train, validation) datasets"),
        ([*FACTORY, *QUICK, "--device", "toaster"], 1, "unknown device 'toaster'"),
        ([*FACTORY, *QUICK, "--method", "magic"], 1, "unknown method 'magic'"),
        ([*FACTORY, *QUICK, "--lr", "-1"], 1, "must be positive"),
        ([*FACTORY, *QUICK, "--lr", "nan"], 1, "must be positive"),
        ([*FACTORY, *QUICK, "--seed", "-1"], 1, "seed -1 must lie in 0..4294967295"),
        (
            ["--network", "own_nets:frozen", "--input", "1x8x8", *QUICK],
            1,
            "every weight of the network is frozen",
        ),
        ([*FACTORY, *QUICK, "--steps", "-1"], 1, "steps -1 must be at least 0"),
        ([*FACTORY, *QUICK, "--margin", "1.5"], 1, "margin 1.5 must lie in [0, 1)"),
        ([*FACTORY, *QUICK, "--profile", "nowhere.json"], 1, "cannot read nowhere.json"),
        (
            [*FACTORY, *QUICK, "--device", "onnxruntime:cpu", "--workspace", "bare"],
            1,
            "predicts latency, which no budget bounds",
        ),
    ],
)
def test_bad_options(options: list, code: int, text: str) -> None:
    assert text in complaint("prune", "net.pth", "--budget", "97%", *options, code=code)


def test_bad_profiles(home: Path) -> None:
    run("calibrate", *FACTORY, "--samples", "30", "--workspace", "profiles")
    good = home / "profiles/calibration/virtual-tx2/net/profile.json"
    bad = home / "bad.json"
    bad.write_text(good.read_text()[:400])
    command = (*PRUNE, "--budget", "97%", "--profile", "bad.json")
    assert "is damaged" in complaint(*command)
    bad.write_text(good.read_text().replace('"coefficient": ', '"coefficient": -'))
    assert "is damaged" in complaint(*command)
    shipped = ROOT / "calibration/virtual-tx2/alexnet/profile.json"
    assert "profile is of another network" in complaint(
        *PRUNE, "--budget", "97%", "--profile", str(shipped)
    )
    assert "predicts energy" in complaint(*PRUNE, "--budget", "1ms", "--profile", str(good))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_while_printing_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgeecc", "doctor", "--json"],
            env=ENVIRONMENT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a file system of 300 kB, where this user may mount one."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], capture_output=True, check=False)


def test_a_full_disk_is_one_line_and_loses_nothing(tiny_disk: Path) -> None:
    text = complaint(*PRUNE, "--budget", "50%", "--of", "macs", "--run", str(tiny_disk / "run"))
    assert "cannot write" in text
    assert "free space" in text
    text = complaint(
        "calibrate",
        "--network",
        "lenet5",
        "--samples",
        "5000",
        "--target-error",
        "0",
        "--workspace",
        str(tiny_disk),
    )
    assert "cannot write" in text
    left = [path.name for path in tiny_disk.rglob("*") if path.is_file()]
    assert not [name for name in left if name.endswith(".tmp")], left


def test_an_unwritable_run_folder(home: Path) -> None:
    (home / "a-file").write_text("")
    text = complaint(*PRUNE, "--budget", "50%", "--of", "macs", "--run", "a-file/run")
    assert "cannot write" in text
    assert "choose another" in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_workspace(home: Path) -> None:
    locked = home / "locked"
    locked.mkdir(exist_ok=True)
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
    text = complaint("calibrate", *FACTORY, "--samples", "20", "--workspace", "locked")
    assert "cannot write" in text


def test_runs_that_are_none_or_not_finished(home: Path) -> None:
    assert "is no run folder" in complaint("export", "nowhere")
    assert "run edgeecc export first" in complaint("verify", "nowhere")
    run(*PRUNE, "--budget", "50%", "--of", "macs", "--run", "runs/tampered")
    run("export", "runs/tampered")
    slim = home / "runs/tampered/slim.onnx"
    slim.write_bytes(slim.read_bytes()[:-3])
    assert "slim.onnx" in complaint("verify", "runs/tampered")
    (home / "runs/tampered/keep.json").write_text("{}")
    assert "schema None" in complaint("export", "runs/tampered")
    assert "no run in" in complaint("export", "--workspace", str(home / "profiles"))


def test_the_run_is_locked_while_it_works(home: Path) -> None:
    from edgeecc.run_folder import RunFolder

    with RunFolder(home / "runs/busy").locked():
        text = complaint(*PRUNE, "--budget", "50%", "--of", "macs", "--run", "runs/busy")
    assert "in use by another process" in text


def test_table_networks_are_told_by_their_weights(home: Path) -> None:
    model = build("mobilenet_v1", width=0.25, classes=7)
    initialise_(model, 0)
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in model.state_dict().items()}},
        home / "mb.pth",
    )
    inspected = run_json("inspect", "mb.pth", "--input", "3x64x64")
    assert inspected["network"] == "mobilenet_v1"
    assert next(g for g in inspected["groups"] if not g["prunable"])["width"] == 7
    assert inspected["layers"][0]["kind"] == "conv"


def test_the_shipped_profile_of_mobilenet_is_used(home: Path) -> None:
    inspected = run_json("inspect", "--network", "mobilenet_v1")
    assert inspected["total"]["cost"] == pytest.approx(0.0367, rel=0.03)
    assert inspected["total"]["macs"] == 568_740_352
    assert not (home / "calibration/virtual-tx2/mobilenet_v1").exists()
    real = run_json("inspect", "--network", "alexnet", "--device", "jetson-tx2")
    assert real["total"]["cost"] == pytest.approx(0.04982351)
    assert real["meter"] == "published model of Jetson TX2 GPU rail, PyTorch"


def test_single_weights_are_priced_on_a_systolic_array(home: Path) -> None:
    inspected = run_json("inspect", "--network", "lenet5", "--device", "systolic:eyeriss")
    assert (inspected["metric"], inspected["meter"]) == ("accesses", "systolic:eyeriss (analytic)")
    fc1 = next(layer for layer in inspected["layers"] if layer["name"] == "fc1")
    assert fc1["cost"] == sum(fc1["levels"].values()) == 10_253_600
    assert inspected["total"]["cost"] == sum(layer["cost"] for layer in inspected["layers"])
    assert (
        "10.25 MRF" in run("inspect", "--network", "lenet5", "--device", "systolic:eyeriss").stdout
    )
    (home / "mine.toml").write_text("rows = 12")
    for device, words in (
        ("systolic:tpu", "unknown hardware 'tpu'"),
        ("systolic:mine.toml", "mine.toml lacks 'cache'"),
        ("systolic:none.toml", "cannot read none.toml"),
    ):
        assert words in complaint("inspect", "--network", "lenet5", "--device", device)


def test_single_weights_go_and_the_export_is_verified(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run_json(
        "prune",
        "net.pth",
        *FACTORY,
        *QUICK,
        "--method",
        "wsp",
        "--budget",
        "40%",
        "--run",
        "runs/wsp",
    )
    budget = result["budget"]
    assert (budget["unit"], budget["metric"], budget["text"]) == ("RF", "accesses", "40%")
    assert budget["value"] == pytest.approx(0.4 * result["dense"]["cost"])
    assert result["cost"] <= budget["value"]
    assert result["meter"] == "systolic:eyeriss (analytic)"
    assert (result["status"], result["steps"], result["widths"]) == ("converged", 24, {})
    assert all(0.0 < share <= 1.0 for share in result["density"].values())
    assert result["accuracy"] > 0.6
    told = reported("runs/wsp", monkeypatch)
    assert (told["within_budget"], told["charts"][:2]) == (None, ["density", "loss"])
    exported = run_json("export", "runs/wsp")
    verified = exported["verify"]
    assert verified["within_budget"] is True
    assert verified["max_abs_error"] < 1e-4
    assert "systolic:eyeriss (analytic)" in verified["verdict"]
    assert verified["energy_j"] is None
    report = load_json(home / "runs/wsp/report.json")
    assert sum(layer["total"] for layer in report["layers"]) == pytest.approx(result["cost"])
    assert {layer["name"]: layer["density"] for layer in report["layers"]} == result["density"]
    stored, shapes = read_tensors(home / "runs/wsp/sparse.safetensors")
    whole, _ = read_tensors(home / "runs/wsp/masked.safetensors")
    tensors = unpack(stored, shapes)
    assert sorted(tensors) == sorted(whole)
    assert all((tensors[name] == whole[name]).all() for name in whole)
    files = [home / "runs/wsp" / f"{name}.safetensors" for name in ("sparse", "masked")]
    assert files[0].stat().st_size < 0.7 * files[1].stat().st_size
    assert run_json("verify", "runs/wsp")["verdict"] == verified["verdict"]
    assert "within budget  yes" in run("verify", "runs/wsp").stdout
    told = reported("runs/wsp", monkeypatch)
    assert (told["within_budget"], told["basis"]) == (True, "counted")
    assert told["charts"][:2] == ["density", "costs-accesses"]
    assert {layer["name"]: layer["density"] for layer in told["weights"]} == result["density"]
    assert sum(layer["energy"] for layer in told["weights"]) == pytest.approx(result["cost"])
    assert sum(layer["dense"] for layer in told["weights"]) == pytest.approx(
        result["dense"]["cost"]
    )
    assert "edgeecc export runs/wsp writes what each layer costs" in complaint(
        "explain", "runs/wsp"
    )
    assert "is finished" in complaint(
        "prune",
        "net.pth",
        *FACTORY,
        *QUICK,
        "--method",
        "wsp",
        "--budget",
        "40%",
        "--run",
        "runs/wsp",
    )


MASKED = [
    "--method",
    "wsp",
    "--input-mask",
    "--mask-schedule",
    "rounds",
    "--steps",
    "15",
    "--finetune-steps",
    "6",
    "--batch-size",
    "64",
]


def test_inputs_are_masked_in_rounds(home: Path) -> None:
    common = ["prune", "net.pth", *FACTORY, "--data", "digits", *MASKED, "--budget", "40%"]
    result = run_json(*common, "--run", "runs/masked")
    rounds = result["rounds"]
    assert rounds[0]["share"] == 1.0
    assert all(r["share"] <= 1.0 - 0.1 * number + 1e-6 for number, r in enumerate(rounds))
    accuracies = [r["accuracy"] for r in rounds]
    assert all(b > a for a, b in zip(accuracies, accuracies[1:-1]))
    assert len(rounds) == 9 or accuracies[-1] <= max(accuracies[:-1])
    assert all(r["cost"] <= result["budget"]["value"] for r in rounds)
    assert result["cost"] <= result["budget"]["value"]
    best = max(rounds, key=lambda r: r["accuracy"])
    sizes = {
        name: value.size
        for name, value in read_tensors(home / "runs/masked/masked.safetensors")[0].items()
    }
    kept = sum(
        share * sizes[f"{name}.input_mask"] for name, share in result["mask_density"].items()
    )
    total = sum(sizes[f"{name}.input_mask"] for name in result["mask_density"])
    assert kept / total == pytest.approx(best["share"])
    exported = run_json("export", "runs/masked")["verify"]
    assert exported["within_budget"] is True
    assert exported["max_abs_error"] < 1e-4
    graph = onnx.load(home / "runs/masked/slim.onnx")
    names = {tensor.name for tensor in graph.graph.initializer}
    assert {f"{name}.input_mask" for name in result["mask_density"]} <= names
    report = load_json(home / "runs/masked/report.json")
    masks = {row["name"]: row["mask_density"] for row in report["layers"]}
    assert {name: kept for name, kept in masks.items() if kept is not None} == pytest.approx(
        result["mask_density"]
    )
    assert sum(layer["total"] for layer in report["layers"]) == pytest.approx(result["cost"])
    stored, shapes = read_tensors(home / "runs/masked/sparse.safetensors")
    tensors = unpack(stored, shapes)
    assert all(tensors[f"{name}.input_mask"].dtype == np.bool_ for name in result["mask_density"])
    assert not list((home / "runs/masked").glob("*phase*"))


def test_a_tampered_sparse_network_misses_its_budget(home: Path) -> None:
    """The zeros are counted in the file that is exported, not believed."""
    from edgeecc.artifacts import file_sha256

    sparse = [
        *FACTORY,
        "--data",
        "digits",
        "--steps",
        "5",
        "--finetune-steps",
        "0",
        "--method",
        "wsp",
    ]
    run("prune", "net.pth", *sparse, "--budget", "35%", "--run", "runs/touched")
    run("export", "runs/touched")
    folder = home / "runs/touched"
    graph = onnx.load(folder / "slim.onnx")
    for tensor in graph.graph.initializer:
        if tensor.name.endswith("conv.weight"):
            value = onnx.numpy_helper.to_array(tensor).copy()
            value[value == 0] = 1e-12
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    (folder / "slim.onnx").write_bytes(graph.SerializeToString())
    assert "is not the exported one" in complaint("verify", "runs/touched")
    arrays, _ = read_tensors(folder / "check.safetensors")
    digest = {"slim_sha256": file_sha256(folder / "slim.onnx")}
    write_tensors(folder / "check.safetensors", arrays, digest)
    assert run_json("verify", "runs/touched", code=3)["within_budget"] is False
    document = load_json(folder / "result.json")
    for change, words in (
        ({"hardware": None}, "names no hardware"),
        ({"hardware": {**document["hardware"], "rows": "many"}}, "rows is 'many'"),
        ({"hardware": {"name": "x"}}, "lacks 'cache'"),
    ):
        (folder / "result.json").write_text(json.dumps({**document, **change}))
        assert words in complaint("verify", "runs/touched")


PATTERN = [
    "prune", "three.pth", "--network", "own_nets:three", "--input", "1x8x8", "--data", "digits", "--batch-size", "64",
    "--method", "wsp", "--pattern", "2:4",
]  # fmt: skip


def follows(weight: np.ndarray) -> bool:
    """Return whether of every four consecutive input channels at most two weights are not zero."""
    fours = np.split(weight, weight.shape[1] // 4, axis=1)
    return all((np.count_nonzero(four, axis=1) <= 2).all() for four in fours)


@pytest.fixture(scope="module")
def three(home: Path) -> None:
    """Write the weights of a network in which two layers can have a pattern."""
    import own_nets

    model = own_nets.three()
    initialise_(model, 0)
    torch.save(model.state_dict(), home / "three.pth")


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("options", "status"),
    [
        (["--budget", "100%", "--steps", "12", "--finetune-steps", "4"], "converged"),
        (["--budget", "60%", "--steps", "12", "--finetune-steps", "4", "--input-mask"], "converged"),
    ],
)  # fmt: skip
def test_a_pattern_is_kept_and_verified_in_the_file(home: Path, options: list, status: str) -> None:
    result = run_json(*PATTERN, *options, "--run", "runs/pattern", "--force")
    assert result["status"] == status
    assert result["cost"] <= result["budget"]["value"]
    applies = {"c1": False, "c2": True, "c3": True, "fc": False}
    assert result["pattern"] == {"text": "2:4", "layers": applies}
    verified = run_json("export", "runs/pattern")["verify"]
    assert verified["pattern"] == {"text": "2:4", "layers": 2, "holds": True, "broken": []}
    assert verified["max_abs_error"] < 1e-4
    graph = onnx.load(home / "runs/pattern/slim.onnx")
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in graph.graph.initializer}
    assert follows(stored["c2.weight"])
    assert follows(stored["c3.weight"])
    report = load_json(home / "runs/pattern/report.json")
    assert {row["name"]: row["pattern"] == "2:4" for row in report["layers"]} == applies
    said = "pattern        2:4 in all 2 layers that can have it"
    assert said in run("verify", "runs/pattern").stdout


@pytest.mark.usefixtures("three")
def test_a_broken_pattern_is_noticed(home: Path) -> None:
    from edgeecc.artifacts import file_sha256

    folder = home / "runs/broken"
    cut = ["--budget", "100%", "--steps", "0", "--finetune-steps", "0"]
    printed = run(*PATTERN, *cut, "--run", folder).stdout
    assert "cut_without_training" in printed
    assert " yes " in printed
    assert " free " in printed
    assert "holds another run" in complaint(*PATTERN[:-2], *cut, "--run", folder)
    run("export", folder)
    graph = onnx.load(folder / "slim.onnx")
    tensor = next(t for t in graph.graph.initializer if t.name == "c3.weight")
    weight = onnx.numpy_helper.to_array(tensor).copy()
    weight[0, :4] = 1e-12  # too small to be seen in the outputs
    tensor.CopyFrom(onnx.numpy_helper.from_array(weight, tensor.name))
    (folder / "slim.onnx").write_bytes(graph.SerializeToString())
    arrays, _ = read_tensors(folder / "check.safetensors")
    digest = {"slim_sha256": file_sha256(folder / "slim.onnx")}
    write_tensors(folder / "check.safetensors", arrays, digest)
    found = run_json("verify", folder, code=3)
    assert (found["within_budget"], found["pattern"]["holds"]) == (True, False)
    assert found["pattern"]["broken"] == ["c3"]
    assert "2:4 BROKEN in c3" in run("verify", folder, code=3).stdout
    document = load_json(folder / "result.json")
    for change in ("2:4", {"text": "9:4"}, {"layers": {}}):
        (folder / "result.json").write_text(json.dumps({**document, "pattern": change}))
        assert "is damaged: its pattern is" in complaint("verify", folder)


@pytest.mark.parametrize(
    ("options", "phase", "steps"),
    [
        ([], "wsp", 9),
        (["--input-mask", "--mask-schedule", "joint"], "wsp", 11),
        (["--input-mask"], "mask-1", 7),
        (["--input-mask"], "finetune", 3),
    ],
)
def test_a_killed_sparse_run_goes_on_exactly(
    home: Path, options: list, phase: str, steps: int
) -> None:
    common = [
        "prune", "net.pth", *FACTORY, "--data", "digits", *MASKED, "--budget", "45%", "--checkpoint-s", "1e-9",
    ]  # fmt: skip
    common = [word for word in common if word != "--input-mask"] + options
    whole, killed = (home / f"runs/{kind}-{phase}{len(options)}" for kind in ("whole", "killed"))
    run(*common, "--run", whole)
    command = Command(["-q", *common, "--run", killed], home)
    command.until(lambda: _at(killed / "checkpoint.safetensors", phase, steps))
    command.send(signal.SIGKILL)
    code, _, errors = command.ended()
    assert code == -signal.SIGKILL, errors
    assert not (killed / "result.json").exists()
    run(*common, "--run", killed)
    one, _ = read_tensors(killed / "masked.safetensors")
    other, _ = read_tensors(whole / "masked.safetensors")
    assert sorted(one) == sorted(other)
    assert all((one[name] == other[name]).all() for name in other)


def _at(checkpoint: Path, phase: str, steps: int) -> bool:
    with contextlib.suppress(ArtifactError):
        _, metadata = read_tensors(checkpoint)
        return metadata.get("phase") == phase and int(metadata.get("done", 0)) >= steps
    return False


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (
            ["--budget", "20mJ"],
            1,
            "a budget of wsp is a share of the dense network's energy; give --budget 20%",
        ),
        (
            ["--budget", "20%", "--device", "virtual:tx2"],
            1,
            "which virtual:tx2 does not tell; use --device systolic",
        ),
        (["--budget", "20%", "--device", "systolic:tpu"], 1, "unknown hardware 'tpu'"),
        (["--budget", "0.1%"], 1, "0.1% of dense is below what moving inputs"),
        (["--budget", "20%", "--of", "macs"], 1, "is a share of the dense network's energy"),
        (
            ["--budget", "20%", "--margin", "0.1"],
            1,
            "wsp takes no --profile, --margin or --confidence",
        ),
        (
            ["--budget", "20%", "--profile", "p.json"],
            1,
            "wsp takes no --profile, --margin or --confidence",
        ),
        (
            ["--budget", "20%", "--input-mask", "--steps", "0"],
            1,
            "input masks are trained; give --steps",
        ),
        (
            ["--budget", "90%", "--input-mask", "--method", "ecc"],
            1,
            "input masks go with --method wsp, not with ecc",
        ),
        (
            ["--budget", "90%", "--pattern", "2:4", "--method", "ecc"],
            1,
            "a pattern goes with --method wsp or magnitude, not with ecc",
        ),
        (
            ["--budget", "20%", "--metric", "taylor"],
            1,
            "unknown metric 'taylor'; known are adam, mag",
        ),
        (
            ["--budget", "90%", "--method", "ecc", "--metric", "adam", "--optimizer", "sgd"],
            1,
            "reads Adam's moments, which sgd does not keep",
        ),
        (["--budget", "90%", "--rho1", "3"], 2, "--rho1 goes with ecc as published, not with wsp"),
        (
            ["--budget", "90%", "--method", "ecc", "--beta", "2"],
            1,
            "beta is a setting of ecc with metric adam, and metric taylor does not read it",
        ),
        (
            ["--budget", "90%", "--method", "ecc", "--metric", "adam", "--set", "tile=4"],
            1,
            "tile is a setting of ecc with metric taylor",
        ),
        (["--budget", "20%", "--pattern", "3:4"], 1, "pattern 3:4 is not served by sparse"),
        (["--budget", "20%", "--pattern", "half"], 1, "pattern 'half' is not written as N:M"),
        (["--budget", "20%", "--run", "runs/no"], 0, ""),
    ],
)
def test_wsp_and_ecc_are_refused_in_one_line(options: list, code: int, text: str) -> None:
    common = [
        "prune",
        "net.pth",
        *FACTORY,
        "--data",
        "digits",
        "--steps",
        "2",
        "--finetune-steps",
        "1",
        "--method",
        "wsp",
    ]
    if code:
        assert text in complaint(*common, *options, code=code)
    else:
        run(*common, *options)
        assert "holds another run" in complaint(*common[:-1], "ecc", *options, "--of", "macs")


@pytest.mark.parametrize(
    ("steps", "options"),
    [
        (14, ["--method", "magnitude"]),
        (14, ["--method", "eap", "--optimizer", "sgd"]),
        (14, ["--input-mask"]),
        (0, ["--method", "magnitude"]),
        (0, ["--method", "eap"]),
    ],
)
def test_every_method_of_single_weights_ends_within_the_budget(
    home: Path, steps: int, options: list
) -> None:
    result = run_json(
        "prune", "net.pth", *FACTORY, "--data", "digits", "--budget", "40%", "--steps", str(steps), "--finetune-steps",
        "6", "--batch-size", "64", "--method", "wsp", *options, "--run", "runs/method", "--force",
    )  # fmt: skip
    assert 0.9 * result["budget"]["value"] < result["cost"] <= result["budget"]["value"]
    assert result["rounds"] == []
    assert bool(result["mask_density"]) == ("--input-mask" in options)
    verified = run_json("export", "runs/method")["verify"]
    assert verified["within_budget"] is True
    assert verified["max_abs_error"] < 1e-4


def test_masks_make_a_budget_below_the_inputs_feasible(home: Path) -> None:
    """Moving all inputs of this network costs more than the budget."""
    common = [
        "prune", "net.pth", *FACTORY, "--data", "digits", "--method", "wsp", "--steps", "12", "--finetune-steps", "4",
        "--batch-size", "64", "--run", "runs/low", "--force", "--budget",
    ]  # fmt: skip
    said = complaint(*common, "0.5%")
    lowest = float(said.rsplit(" ", 1)[1].rstrip("%\n."))
    budget = f"{0.9 * lowest:.2f}%"
    assert "below what moving inputs" in complaint(*common, budget)
    result = run_json(*common, budget, "--input-mask")
    assert result["cost"] <= result["budget"]["value"]
    assert min(result["mask_density"].values()) < 0.9


def test_a_network_without_inputs_to_mask_is_refused(home: Path) -> None:
    import own_nets

    torch.save(own_nets.linear().state_dict(), home / "linear.pth")
    said = complaint(
        "prune", "linear.pth", "--network", "own_nets:linear", "--input", "1x8x8", "--data", "digits", "--method",
        "wsp", "--budget", "50%", "--input-mask", "--run", "runs/linear",
    )  # fmt: skip
    assert "no layer can have an input mask" in said
    assert not (home / "runs/linear").exists()


def test_a_network_that_no_pattern_fits_is_refused(home: Path) -> None:
    import own_nets

    torch.save(own_nets.one().state_dict(), home / "one.pth")
    said = complaint(
        "prune", "one.pth", "--network", "own_nets:one", *PATTERN[4:], "--budget", "90%"
    )  # fmt: skip
    assert "no layer can have the pattern 2:4" in said
    assert not list((home / "runs").glob("*2of4*"))


def test_defaults_come_from_edgeecc_toml(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edgeecc.toml").write_text('[inspect]\nnetwork = "lenet5"\n')
    assert run_json("inspect")["network"] == "lenet5"
    (tmp_path / "edgeecc.toml").write_text("[inspect\n")
    assert "cannot read edgeecc.toml" in complaint("inspect", code=2)


def test_doctor_says_what_is_here() -> None:
    found = run_json("doctor")
    assert [device["name"] for device in found["devices"]][:2] == ["virtual:tx2", "onnxruntime:cpu"]
    assert {item["name"] for item in found["runtimes"]} == {
        "tensorrt",
        "trtexec",
        "onnxruntime",
        "torch",
    }
    assert all(
        item["ok"] or item["hint"]
        for section in ("devices", "runtimes", "meters", "packages", "data", "workspace")
        for item in found[section]
    )
    assert "virtual:tx2" in run("doctor").stdout
