"""Faults between the start and the end of a run: each is one line, costs nothing that was done, and can be undone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from sklearn.datasets import load_digits

from edgeecc.artifacts import load_json, read_tensors
from edgeecc.cli.main import cli
from edgeecc.export import export
from edgeecc.run_folder import FIT_SCHEMA, RunFolder, differing, latest_run
from edgeecc.sources import trace_source
from edgeecc.training.dense import initialise_
from edgeecc.training.loop import TorchTrainer
from tests.cli_runs import complaint, own_module, run, run_json

OWN = """
from torch import nn

def net():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(192, 10),
    )
"""
#: Pruning takes some steps, fine-tuning ten; a checkpoint after each.
PRUNE = [
    "prune", "net.pth", "--network", "faulty_nets:net", "--input", "3x8x8", "--data", "imagefolder:images",
    "--budget", "60%", "--of", "macs", "--steps", "12", "--finetune-steps", "10", "--batch-size", "16",
    "--checkpoint-s", "1e-9",
]  # fmt: skip


def write_images(folder: Path) -> None:
    """Write some of scikit-learn's digits as a folder of images."""
    digits = load_digits()
    for place, (pixels, label) in enumerate(zip(digits.images[:160], digits.target[:160])):
        split = "val" if place % 4 == 0 else "train"
        path = folder / split / str(label) / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype(np.uint8)).convert("RGB").save(path)


@contextlib.contextmanager
def stopped_at(phase: str, index: int) -> Iterator[None]:
    """Interrupt training before a step."""
    step = TorchTrainer._step

    def stopping(self: TorchTrainer, name: str, at: int, *rest: Any, **more: Any) -> Any:
        if (name, at) == (phase, index):
            raise KeyboardInterrupt
        return step(self, name, at, *rest, **more)

    TorchTrainer._step = stopping  # type: ignore[method-assign]
    try:
        yield
    finally:
        TorchTrainer._step = step  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a network, images, a whole run, and one that was stopped in fine-tuning."""
    folder = tmp_path_factory.mktemp("made")
    faulty_nets = own_module(folder, "faulty_nets", OWN)
    write_images(folder / "images")
    model = faulty_nets.net()
    initialise_(model, 0)
    torch.save(model.state_dict(), folder / "net.pth")
    before = Path.cwd()
    os.chdir(folder)
    try:
        run(*PRUNE, "--run", "whole")
        with stopped_at("finetune", 4):
            run(*PRUNE, "--run", "stopped", code=130)
    finally:
        os.chdir(before)
    assert (folder / "stopped/checkpoint.safetensors").exists()
    return folder


@pytest.fixture(scope="module", autouse=True)
def _traced_once() -> Iterator[None]:
    """Trace the network once: no fault here is one of tracing."""
    known: Dict[str, Any] = {}

    def trace(model: Any, source: Any) -> Any:
        if source.reference not in known:
            known[source.reference] = trace_source(model, source)
        return known[source.reference]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("edgeecc.prune.trace_source", trace)
        patched.setattr("edgeecc.comparison.plan.trace_source", trace)
        patched.setattr("edgeecc.sources.trace_source", trace)
        yield


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy to be damaged, which is the working directory."""
    home = tmp_path / "home"
    shutil.copytree(made, home)
    monkeypatch.chdir(home)
    return home


RESUME = [*PRUNE, "--run", "stopped"]


def goes_on() -> None:
    """Give the command again; it must end as the run that nothing disturbed."""
    found = run_json(*RESUME)
    expected = load_json(Path("whole/result.json"))
    for name in ("accuracy", "pruned_accuracy", "widths", "cost", "steps", "finetune_steps"):
        assert found[name] == expected[name], name
    one, other = (
        read_tensors(Path(name, "masked.safetensors"))[0] for name in ("whole", "stopped")
    )
    assert all((one[name] == other[name]).all() for name in one)
    assert sorted(path.name for path in Path("stopped").iterdir()) == sorted(
        path.name for path in Path("whole").iterdir()
    )


def test_progress_of_a_run_that_goes_on(home: Path) -> None:
    """Plain lines, as a log has them: the phase and the count of now, the budget with its kind, the last score."""
    result = CliRunner().invoke(cli, RESUME)
    assert result.exit_code == 0
    told = [line for line in result.stderr.splitlines() if line.startswith("fine-tuning")]
    words = re.fullmatch(
        r"fine-tuning 5/(\d+) steps  0:0\d elapsed  macs ([0-9.]+) of ([0-9.]+) kMAC counted  "
        r"top-1 ([0-9.]+) \(pruned\)  loss [0-9.]+  by exact count",
        told[0],
    )
    assert words is not None, told[0]
    found = load_json(Path("whole/result.json"))
    assert int(words.group(1)) == found["finetune_steps"]
    assert float(words.group(2)) * 1e3 == pytest.approx(found["cost"], rel=1e-3)
    assert float(words.group(3)) * 1e3 == pytest.approx(found["budget"]["value"], rel=1e-3)
    assert float(words.group(4)) == pytest.approx(found["pruned_accuracy"], abs=1e-4)
    assert told[-1].startswith(f"fine-tuning {words.group(1)}/{words.group(1)} steps")
    assert "pruning" not in result.stderr


def moved(path: str) -> Callable[[], object]:
    """Take a file or folder away; return what brings it back."""
    Path(path).rename(f"{path}.away")
    return lambda: Path(f"{path}.away").rename(path)


def replaced(path: str, data: bytes) -> Callable[[], object]:
    """Write other bytes into a file; return what brings the first back."""
    before = Path(path).read_bytes()
    Path(path).write_bytes(data)
    return lambda: Path(path).write_bytes(before)


def other_weights() -> Callable[[], object]:
    state = torch.load("net.pth", weights_only=True)
    before = Path("net.pth").read_bytes()
    state["0.weight"][0, 0, 0, 0] += 1e-6
    torch.save(state, "net.pth")
    return lambda: Path("net.pth").write_bytes(before)


def one_image_less() -> Callable[[], object]:
    return moved("images/train/3/13.png")


def other_labels() -> Callable[[], object]:
    """Swap two classes: as many images as before."""
    for one, other in (("3", "x"), ("5", "3"), ("x", "5")):
        Path("images/val", one).rename(Path("images/val", other))

    def back() -> None:
        for one, other in (("5", "x"), ("3", "5"), ("x", "3")):
            Path("images/val", one).rename(Path("images/val", other))

    return back


def test_what_a_run_came_from(home: Path) -> None:
    """Weights and images that are lost or others are told, nothing is touched, and with the first ones it goes on."""
    faults: List[Tuple[Callable[[], Callable[[], object]], str]] = [
        (lambda: moved("net.pth"), "net.pth"),
        (other_weights, "holds another run, with request.weights_sha256 "),
        (lambda: moved("images"), "images"),
        (one_image_less, "holds another run, with request.data_sha256 "),
        (other_labels, "holds another run, with request.data_sha256 "),
        (lambda: replaced("images/val/0/0.png", b"no image"), "images/val/0/0.png"),
    ]
    before = {path: path.read_bytes() for path in Path("stopped").iterdir()}
    for fault, said in faults:
        undo = fault()
        assert said in complaint(*RESUME)
        assert {path: path.read_bytes() for path in Path("stopped").iterdir()} == before
        undo()
    goes_on()


def test_the_profile_that_priced_a_run(home: Path) -> None:
    run("calibrate", *PRUNE[2:6], "--samples", "40", "--target-error", "0")
    Path("calibration/virtual-tx2/net/profile.json").rename("p.json")
    asked = [*PRUNE, "--profile", "p.json", "--margin", "0", "--run", "priced"]
    asked[asked.index("60%") : asked.index("macs") + 1] = ["99.9%"]
    with stopped_at("prune", 2):
        run(*asked, code=130)
    undo = moved("p.json")
    assert "cannot read p.json" in complaint(*asked)
    undo()
    document = load_json(Path("p.json"))
    document["model"]["constant"] *= 1.1
    undo = replaced("p.json", json.dumps(document).encode())
    assert "holds another run, with request.bound " in complaint(*asked)
    undo()
    run(*asked)


def test_an_image_that_is_lost_while_training(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, undo = TorchTrainer._step, []

    def losing(self: TorchTrainer, name: str, at: int, *rest: Any, **more: Any) -> Any:
        if at == 6:
            undo.append(moved("images/train"))
        return step(self, name, at, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(TorchTrainer, "_step", losing)
        text = complaint(*RESUME)
    assert "images/train" in text
    undo[0]()
    goes_on()


def flipped(path: Path, place: int) -> bytes:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    return bytes(data)


def test_a_damaged_checkpoint_is_told_and_can_go(home: Path) -> None:
    path = Path("stopped/checkpoint.safetensors")
    whole = path.read_bytes()
    a_bit_of_a_weight, a_bit_of_the_head = flipped(path, -100), flipped(path, 60)
    for damaged in (whole[:-100], a_bit_of_a_weight, a_bit_of_the_head, b""):
        path.write_bytes(damaged)
        text = complaint(*RESUME)
        assert "stopped/checkpoint.safetensors is damaged" in text
        assert "remove it to begin this phase of training again" in text
    path.unlink()
    goes_on()


def test_a_full_disk_in_fine_tuning(home: Path) -> None:
    """No file may be larger than all of them but the checkpoint, which holds the moments too."""
    size = Path("stopped/pruned.safetensors").stat().st_size + 2000
    kept = Path("stopped/checkpoint.safetensors").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        text = complaint(*RESUME)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot write stopped/checkpoint.safetensors: " in text
    assert "free space or choose another folder" in text
    assert Path("stopped/checkpoint.safetensors").read_bytes() == kept
    assert not [path for path in Path("stopped").iterdir() if path.suffix == ".tmp"]
    goes_on()


@pytest.fixture
def read_only(home: Path) -> Iterator[Callable[[], object]]:
    """Make the working directory one that nothing can be written to; yield what ends that."""
    if subprocess.run(["mount", "--bind", ".", "."], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    os.chdir(home)  # in what is mounted
    subprocess.run(["mount", "-o", "remount,ro,bind", "."], capture_output=True, check=True)
    yield lambda: subprocess.run(["mount", "-o", "remount,rw,bind", "."], check=True)
    os.chdir(home.parent)
    subprocess.run(["umount", "-l", str(home)], capture_output=True, check=True)


def test_a_read_only_folder(home: Path, read_only: Callable[[], object]) -> None:
    for words in (
        RESUME,
        ["export", "whole"],
        ["export", "whole", "--fit-budget"],
        ["verify", "whole"],
    ):
        text = complaint(*words)
        assert "cannot write folder" in text
        assert "Read-only file system; choose another" in text
    assert run_json("explain", "whole")["macs"]["slim"] > 0, "what only reads may go on"
    read_only()
    goes_on()


def test_clocks_that_jump(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Durations are no differences of the time of day; the run begun last is the latest, whatever its date."""
    times = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: 1.7e9 + (-1) ** next(times) * 1e8)
    started = time.perf_counter()
    found = run_json(*RESUME)
    assert 0.0 < found["seconds"] <= time.perf_counter() - started
    Path("runs").mkdir()
    for name in ("first", "second", "third"):
        folder = RunFolder(Path("runs", name))
        folder.path.mkdir()
        folder.write_run({})
        assert latest_run(Path()).path.name == name
        if name == "second":  # it was made while the clock was a year ahead
            ahead = time.perf_counter_ns() + 2**61
            os.utime(folder.file("run.json"), ns=(ahead, ahead))
    assert RunFolder(Path("runs/third")).file("run.json").stat().st_mtime_ns > 2**61


def test_what_a_late_kill_leaves_is_cleared_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the result and the end of the command."""
    leftovers = ("checkpoint.safetensors", "pruned.safetensors", "fit.safetensors")
    for name in leftovers:
        Path("whole", name).write_bytes(b"left")
    assert "is finished; export it" in complaint(*PRUNE, "--run", "whole")
    assert not any(Path("whole", name).exists() for name in leftovers)
    for name in leftovers:
        Path("whole", name).write_bytes(b"left")
    with monkeypatch.context() as patched:
        patched.setattr("edgeecc.export.export_locked", lambda *_: {})
        assert export(RunFolder(Path("whole"))) == {}
    assert not any(Path("whole", name).exists() for name in leftovers)


def test_a_run_whose_files_are_being_replaced(home: Path) -> None:
    """Between the first and the last file that --fit-budget puts in place of the run's."""
    folder = RunFolder(Path("whole"))
    folder.write_json("fit.json", FIT_SCHEMA, {"result": {}})
    for words in (["export"], ["verify"], ["explain"]):
        text = complaint(*words, "whole")
        assert "is being fitted to its budget; give edgeecc export --fit-budget again" in text


def test_a_forced_run_that_is_stopped_at_once_is_nobodys(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request of the run before goes first: nothing of it may be taken for it later, nor its engine."""
    engine = Path("stopped/slim-fp16.engine.json")
    engine.write_text("{}")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "write_tensors", stop)
        result = run(*RESUME, "--force", code=130)
    assert "give the same command without --force to go on" in result.stderr
    assert not Path("stopped/run.json").exists()
    assert not engine.exists()
    goes_on()


def test_runs_of_before_say_nothing_of_their_images(home: Path) -> None:
    path = Path("stopped/run.json")
    document: Dict[str, Any] = load_json(path)
    del document["request"]["data_sha256"]
    path.write_text(json.dumps(document))
    goes_on()
    assert load_json(path) == document


def test_differences_are_told() -> None:
    before = {"a": {"b": 1, "long": "x" * 64}, "c": [1]}
    assert differing(before, before) == ""
    told = differing(before, {"a": {"b": 2, "long": "y" * 64}, "c": [1], "d": None})
    assert told == "a.b 1 (now 2), a.long xxxxxxxxxxxx... (now yyyyyyyyyyyy...)"


def held(folder: str) -> Any:
    return RunFolder(Path(folder)).locked()


def test_a_run_belongs_to_one_process_at_a_time(home: Path) -> None:
    waits: List[List[str]] = [
        RESUME,
        ["export", "stopped"],
        ["export", "stopped", "--fit-budget"],
        ["verify", "stopped"],
    ]
    with held("stopped"):
        for words in waits:
            text = complaint(*words)
            assert "stopped is in use by another process" in text
            assert "wait for it, or take another run folder" in text
        assert "is not finished; give the edgeecc prune command again" in complaint(
            "explain", "stopped"
        )
    goes_on()


def test_two_comparisons_of_a_folder(home: Path) -> None:
    words = ["compare", *PRUNE[1:], "--out", "compared", "--methods", "uniform", "--seeds", "0"]
    words.remove("--checkpoint-s"), words.remove("1e-9")
    with held("compared"):
        assert "compared is in use by another process" in complaint(*words)
