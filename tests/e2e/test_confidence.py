"""From calibration to the budget: the form that is chosen, and the confidence with which a budget is held."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgeecc.cost.profile import Profile
from tests.cli_runs import complaint, run, run_json, wide_network

FACTORY = ["--network", "confident_net:net", "--input", "1x8x8"]
CALIBRATE = ["calibrate", *FACTORY, "--samples", "120", "--target-error", "0"]
PRUNE = [
    "prune", "net.pth", *FACTORY, "--data", "digits", "--steps", "2", "--finetune-steps", "2", "--batch-size", "32",
    "--method", "uniform", "--budget", "90%",
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a network and its calibration, 36 samples held out."""
    folder = tmp_path_factory.mktemp("confidence")
    torch.save(wide_network(folder, "confident_net").state_dict(), folder / "net.pth")
    run(*CALIBRATE, "--workspace", folder)
    return folder


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def test_calibrate_says_which_forms_it_tried() -> None:
    made = run_json(*CALIBRATE)
    forms = [one["model"] for one in made["tried"]]
    assert made["model"] == forms[0]
    assert {"bilinear", "bilinear+linear", "bilinear+linear+tiles:8"} <= set(forms)
    assert all(0.0 < one["error"] < 0.2 for one in made["tried"])
    printed = run(*CALIBRATE).stdout
    assert f"{made['model']} by {made['fit']}, the " in printed
    assert f"of {len(forms)} tried" in printed
    assert "held off a budget" in printed


def test_a_form_may_be_given() -> None:
    form = "bilinear+linear+tiles:8+spans"
    made = run_json(*CALIBRATE, "--model", form, "--workspace", "given")
    assert made["model"] == form
    assert {(one["model"], one["fit"]) for one in made["tried"]} == {(form, "work"), (form, "nnls")}
    alone = run_json(*CALIBRATE, "--model", form, "--fit", "nnls", "--workspace", "given")
    assert (alone["model"], alone["fit"], alone["tried"]) == (form, "nnls", [])
    cost = Profile.load(Path(made["profile"])).model
    assert {factor.tile for term in cost.terms for factor in term.factors} == {1, 8}
    text = complaint(*CALIBRATE, "--model", "mlp")
    assert "unknown cost model 'mlp'; known are auto and bilinear" in text


def test_more_confidence_holds_off_more() -> None:
    told = [
        run_json(*PRUNE, "--confidence", share, "--run", f"runs/{share}")["budgets"][0]
        for share in ("0.5", "0.95")
    ]
    assert [one["confidence"] for one in told] == [0.5, 0.95]
    assert told[0]["margin"] < told[1]["margin"]
    assert all(one["cost"] * (1.0 + one["margin"]) <= one["value"] for one in told)
    usual = run_json(*PRUNE, "--run", "runs/usual")["budgets"][0]
    assert (usual["confidence"], usual["margin"]) == (0.95, told[1]["margin"])
    fixed = run_json(*PRUNE, "--margin", "0.02", "--run", "runs/fixed")["budgets"][0]
    assert (fixed["confidence"], fixed["margin"]) == (None, 0.02)


def test_confidence_that_the_samples_cannot_tell_is_refused() -> None:
    text = complaint(*PRUNE, "--confidence", "0.99")
    assert "36 held-out samples cannot tell 0.99 confidence, which takes 99" in text
    assert "must lie in (0, 1)" in complaint(*PRUNE, "--confidence", "95")
    text = complaint(*PRUNE, "--confidence", "0.9", "--margin", "0.1")
    assert "--confidence and --margin say the same in two ways" in text
    text = complaint(
        "prune", "net.pth", *FACTORY, "--data", "digits", "--method", "wsp", "--device", "systolic:eyeriss",
        "--budget", "50%", "--confidence", "0.9",
    )  # fmt: skip
    assert "wsp takes no --profile, --margin or --confidence" in text


def test_few_samples_are_enough_where_an_error_is_asked_for() -> None:
    command = ["calibrate", *FACTORY, "--samples", "600", "--workspace", "few"]
    made = run_json(*command)
    assert made["samples"] < 200
    assert made["upper_error"] < made["target_error"] == 0.03
    printed = run(*command).stdout
    assert f"{made['samples']} of at most 600" in printed
    assert "the 0.03 of --target-error is reached" in printed
    missed = run(
        *command[:-4], "--samples", "40", "--target-error", "0.001", "--workspace", "missed"
    ).stdout
    assert "the 0.001 of --target-error is not reached" in missed


def test_a_calibration_is_warmed_up_by_another_profile(home: Path) -> None:
    like = home / "calibration/virtual-tx2/net/profile.json"
    made = run_json(*CALIBRATE[:-4], "--samples", "12", "--like", like, "--workspace", "warm")
    assert "like" in {one["fit"] for one in made["tried"]}
    text = complaint("calibrate", "--network", "lenet5", "--like", like, "--workspace", "warm")
    assert "profile is of another network" in text
    assert "No such file" in complaint(*CALIBRATE, "--like", "nowhere.json")
