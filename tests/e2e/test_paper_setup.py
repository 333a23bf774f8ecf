"""The published set-ups: each file is understood, and runs on the layouts of the real data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgeecc.artifacts import read_tensors
from edgeecc.graph.paper_groups import keep_streams_whole
from edgeecc.graph.trace import trace
from edgeecc.networks.table import build
from tests.cli_runs import complaint, run, run_json

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "paper").glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_taken_by_both_commands(path: Path, workspace: Path) -> None:
    """Each command gets as far as what is not here: the weights, or the board."""
    said = complaint("prune", "--config", path)
    assert f"cannot read {path.stem.split('-')[0]}" in said
    said = complaint("calibrate", "--config", path)
    assert "jetson-tx2" in said or "gtx1080ti" in said


def test_a_file_that_comes_with_edgeecc_is_found_anywhere(workspace: Path) -> None:
    assert "alexnet.pth" in complaint("prune", "--config", "paper/alexnet-tx2.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[prune]\nbudgets = '1J'\n", "sets 'budgets' for prune, which has no such option"),
        ("[prone]\nbudget = '1J'\n", "holds 'prone', which is no command's table"),
        ("prune = 3\n", "holds 'prune', which is no command's table"),
        ("[export]\n", r"has no table [prune]"),
        ("[prune\n", "cannot read own.toml"),
    ],
)
def test_a_wrong_file_is_refused(text: str, said: str, workspace: Path) -> None:
    (workspace / "own.toml").write_text(text)
    assert said in complaint("prune", "net.pth", "--config", "own.toml", code=2)


def test_a_missing_file_is_refused(workspace: Path) -> None:
    assert "cannot read gone.toml" in complaint("prune", "--config", "gone.toml", code=2)


@pytest.mark.parametrize(
    ("name", "shape", "widths"), [("mobilenet_v1", (3, 32, 32), 14), ("erfnet", (3, 32, 32), 51)]
)
def test_paper_groups_are_the_papers(name: str, shape: tuple, widths: int) -> None:
    spec = trace(build(name), (torch.zeros(1, *shape),))
    kept = keep_streams_whole(spec)
    assert len(kept.prunable) == widths
    gone = {group.name for group in spec.prunable} - {group.name for group in kept.prunable}
    assert all("residual stream" in group.reason for group in kept.groups if group.name in gone)


def images(folder: Path, count: int, shape: tuple[int, int], name: str = "{}.jpg") -> None:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(count):
        pixels = generator.integers(0, 255, (*shape, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name.format(number))


def test_mobilenet_on_the_layout_of_imagenet(workspace: Path) -> None:
    for part, count in (("train", 4), ("val", 2)):
        for label in ("n01440764", "n01443537"):
            images(workspace / "imagenet" / part / label, count, (40, 48))
    torch.save(build("mobilenet_v1", width=0.25, classes=2).state_dict(), "mobilenet_v1.pth")
    result = run_json(
        "prune", "--config", "paper/mobilenet-tx2.toml", "--input", "3x32x32", "--device", "virtual:tx2",
        "--budget", "95%", "--batch-size", "4", "--steps", "3", "--finetune", "2,constant", "--finetune",
        "2,lr=3e-5,distill=0", "--normalise", "0.5,0.5,0.5/0.5,0.5,0.5", "--run", "run", "--margin", "0.02",
    )  # fmt: skip
    assert result["finetune_steps"] == 4
    assert len(result["widths"]) == 14
    assert result["cost"] <= result["budget"]["value"]
    # The normalisation goes with the run: export keeps images of -1..1, where ImageNet's reaches 1.8 and beyond.
    run("export", "run")
    images_kept = read_tensors(Path("run/check.safetensors"))[0]["input"]
    assert -1.0 <= images_kept.min() < -0.7
    assert 0.7 < images_kept.max() <= 1.0


def test_erfnet_on_the_layout_of_cityscapes(workspace: Path) -> None:
    generator = np.random.default_rng(1)
    for part, count in (("train", 4), ("val", 2)):
        scenes, masks = (
            Path("cityscapes", kind, part, "ulm") for kind in ("leftImg8bit", "gtFine")
        )
        images(workspace / scenes, count, (48, 96), name="ulm_{:06d}_000019_leftImg8bit.png")
        masks.mkdir(parents=True)
        for number in range(count):
            ids = generator.integers(0, 34, (48, 96), dtype=np.uint8)
            Image.fromarray(ids).save(masks / f"ulm_{number:06d}_000019_gtFine_labelIds.png")
    torch.save(build("erfnet").state_dict(), "erfnet.pth")
    result = run_json(
        "prune", "--config", "paper/erfnet-tx2.toml", "--input", "3x32x64", "--device", "virtual:tx2", "--budget",
        "90%", "--steps", "2", "--finetune-steps", "1", "--run", "run",
    )  # fmt: skip
    assert result["score"] == "mean IoU"
    assert result["finetune_steps"] == 1  # typed over the file's stages
    assert len(result["widths"]) == 51
    assert result["cost"] <= result["budget"]["value"]


def test_what_is_no_normalisation_or_stage_is_refused(workspace: Path) -> None:
    common = ["prune", "net.pth", "--budget", "50%", "--data", "digits"]
    assert "'1' is no normalisation" in complaint(*common, "--normalise", "1")
    assert "does not begin with its steps" in complaint(*common, "--finetune", "lr=1")
    both = ["--finetune", "5", "--finetune-steps", "5"]
    assert "both --finetune and --finetune-steps" in complaint(*common, *both)
