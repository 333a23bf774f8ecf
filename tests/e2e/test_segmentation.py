"""A segmentation network of the user's own through the command line: prune, export, verify, and what is refused.

The images are scikit-learn's digits enlarged; a pixel's label is paper, ink of a low digit or ink of a high one, and
where grey leaves it open 255. The network tells them at half the resolution, in a dict.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Tuple

import numpy as np
import pytest
import torch

from edgeecc.artifacts import load_json, read_tensors, write_tensors
from edgeecc.check_set import read_check
from edgeecc.config import VerifyConfig
from edgeecc.data.sources import load
from edgeecc.export_parts import data_of, make_check, network_of
from edgeecc.networks.weights import load_into, load_state
from edgeecc.run_folder import RunFolder
from edgeecc.sources import NetworkSource
from edgeecc.training.dense import initialise_, train_dense_
from edgeecc.training.evaluate import evaluate
from edgeecc.training.segmentation import Segmentation
from tests.cli_runs import complaint, own_module, run, run_json

OWN = """
import torch
from sklearn.datasets import load_digits
from torch import nn

class Net(nn.Module):
    def __init__(self, stride=2):
        super().__init__()
        self.c1 = nn.Conv2d(1, 12, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(12)
        self.c2 = nn.Conv2d(12, 16, 3, padding=1, stride=stride)
        self.c3 = nn.Conv2d(16, 16, 5, padding=2)
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, image):
        out = torch.relu(self.c2(torch.relu(self.bn(self.c1(image)))))
        return {"out": self.head(torch.relu(self.c3(out)))}

def net():
    return Net()

def coarse():
    return Net(3)

class Items:
    def __init__(self, start, stop, change):
        digits = load_digits()
        self.images = torch.tensor(digits.images[start:stop] / 8.0 - 1.0).float()
        high = torch.tensor(digits.target[start:stop] >= 5).long()
        ink = (self.images > 0.3).long()
        maps = ink * (1 + high[:, None, None])
        maps[(self.images > -0.5) & (self.images <= 0.3)] = 255
        self.maps = change(maps)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        large = lambda values: values[index].repeat_interleave(2, 0).repeat_interleave(2, 1)
        return large(self.images)[None], large(self.maps).to(torch.uint8)

def sets(val=lambda maps: maps):
    return Items(0, 200, lambda maps: maps), Items(200, 260, val)

def data():
    return sets()

def beyond():
    return sets(lambda maps: maps.clamp(max=7))

def void():
    return sets(lambda maps: torch.full_like(maps, 255))
"""
SHAPE = ["--input", "1x16x16"]
PRUNE = ["prune", "net.pth", *SHAPE, "--steps", "20", "--finetune-steps", "10", "--lr", "1e-3"]
NET = ["--network", "own_segmentation:net", "--data", "own_segmentation:data"]
BUDGET = ["--budget", "60%", "--of", "macs"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a trained network and its data."""
    folder = tmp_path_factory.mktemp("segmentation")
    own_segmentation = own_module(folder, "own_segmentation", OWN)
    model = own_segmentation.net()
    initialise_(model, 0)
    data = load("own_segmentation:data", input_shape=(1, 16, 16))
    assert data.task == "segmentation"
    train_dense_(
        model, data.train, steps=150, batch_size=16, lr=1e-2, seed=0, task=Segmentation()
    )  # fmt: skip
    torch.save(model.state_dict(), folder / "net.pth")
    torch.save(own_segmentation.coarse().state_dict(), folder / "coarse.pth")
    return folder


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


@pytest.fixture(scope="module")
def pruned(home: Path) -> Tuple[Path, Any]:
    """Return a finished run and what it printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        return home / "runs/net", run_json(*PRUNE, *NET, *BUDGET, "--run", "runs/net")


def test_prune_says_its_scores_by_name(home: Path, pruned: Tuple[Path, Any]) -> None:
    folder, result = pruned
    assert (result["task"], result["score"]) == ("segmentation", "mean IoU")
    scores = result["scores"]
    assert set(scores) == {"dense", "pruned"}
    assert all(list(found) == ["mean IoU", "pixel accuracy"] for found in scores.values())
    assert result["accuracy"] == scores["pruned"]["mean IoU"] > 0.5
    assert result["dense"]["accuracy"] == scores["dense"]["mean IoU"] > 0.6
    assert result["cost"] <= result["budget"]["value"]
    settings = load_json(folder / "run.json")["request"]["training"]
    assert (settings["batch_size"], settings["class_weights"]) == (4, True)


def test_scores_are_those_of_the_kept_weights(home: Path, pruned: Tuple[Path, Any]) -> None:
    import own_segmentation

    folder, result = pruned
    model = own_segmentation.net()
    load_into(model, load_state(folder / "masked.safetensors"))
    data = load("own_segmentation:data", input_shape=(1, 16, 16))
    assert evaluate(model, data.val, Segmentation()) == result["scores"]["pruned"]


def test_the_exported_file_is_scored_pixel_by_pixel(home: Path, pruned: Tuple[Path, Any]) -> None:
    folder, result = pruned
    verified = run_json("export", folder)["verify"]
    assert verified["within_budget"] is True
    assert verified["max_abs_error"] < 1e-4
    assert verified["images"] == 60
    assert verified["score"] == "mean IoU"
    assert verified["scores"] == pytest.approx(result["scores"]["pruned"], abs=2e-3)
    networks = {row["network"]: row for row in load_json(folder / "report.json")["networks"]}
    assert networks["dense"]["scores"] == pytest.approx(result["scores"]["dense"], abs=2e-3)
    assert networks["slim"]["scores"] == verified["scores"]
    assert networks["slim"]["macs"] < networks["dense"]["macs"]
    check = read_check(RunFolder(folder))
    assert check.labels.dtype == np.uint8
    assert check.reference.shape == (60, 3, 8, 8)
    tensors, metadata = read_tensors(folder / "check.safetensors")
    tensors["reference"][1, 2, 7, 7] += 0.5
    write_tensors(folder / "check.safetensors", tensors, metadata)
    words = run("verify", folder, code=3).stdout
    assert f"mean IoU       {verified['accuracy']:.4f} (pixel accuracy 0." in words
    assert "output error   5.00e-01 at most" in words


def test_kept_images_and_outputs_are_bounded(home: Path, pruned: Tuple[Path, Any]) -> None:
    folder = RunFolder(pruned[0])
    run_document = folder.read_run()
    source = NetworkSource.from_json(run_document["source"], folder.path)
    masked = network_of(folder, source, "masked")
    image, output = 16 * 16 * (4 + 8), 3 * 8 * 8 * 4
    for most, images, outputs in ((10 * image + 1, 10, 10), (2 * image - 1, 1, 1), (output, 1, 1)):
        check = make_check(data_of(run_document, source), masked, VerifyConfig(check_bytes=most))
        assert (len(check.images), len(check.labels), len(check.reference)) == (
            images,
            images,
            outputs,
        )


def test_single_weights_go_and_the_table_names_the_scores(home: Path) -> None:
    printed = run(*PRUNE, *NET, "--method", "wsp", "--budget", "50%", "--run", "runs/wsp").stdout
    head = next(line for line in printed.splitlines() if "mean IoU" in line)
    assert "pixel accuracy" in head
    assert "accuracy" not in head.replace("pixel accuracy", "")
    result = load_json(home / "runs/wsp/result.json")
    assert (result["task"], result["score"]) == ("segmentation", "mean IoU")
    assert result["accuracy"] == result["scores"]["pruned"]["mean IoU"] > 0.4
    verified = run_json("export", "runs/wsp")["verify"]
    assert verified["within_budget"] is True
    assert verified["scores"] == pytest.approx(result["scores"]["pruned"], abs=2e-3)


@pytest.mark.parametrize(
    ("network", "data", "words"),
    [
        ("net", "beyond", "the data holds label 7, the network tells 0..2"),
        ("net", "void", "no pixel of the validation images has a label"),
        ("coarse", "data", "returns 6x6 logits for labels of 16x16"),
    ],
)
def test_what_does_not_fit_is_one_line(home: Path, network: str, data: str, words: str) -> None:
    names = ["--network", f"own_segmentation:{network}", "--data", f"own_segmentation:{data}"]
    text = complaint(
        "prune", f"{network}.pth", *PRUNE[2:], *names, *BUDGET, "--run", "runs/wrong", "--force"
    )
    assert words in text
    assert not (home / "runs/wrong/result.json").exists()
