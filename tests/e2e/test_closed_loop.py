"""The closed loop through the command line: a device that is not the calibrated one, on real data."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict

import pytest
import torch

from edgeecc import fit_budget as use_case
from edgeecc.artifacts import load_json
from edgeecc.cost.profile import Profile
from edgeecc.data.sources import load
from edgeecc.errors import ArtifactError
from edgeecc.meters import virtual
from edgeecc.run_folder import RunFolder
from edgeecc.verify import measuring_of
from tests.cli_runs import complaint, run, run_json, wide_network
from tests.trained import on_digits

FACTORY = ["--network", "looped_net:net", "--input", "1x8x8"]
PRUNE = [
    "prune", "net.pth", *FACTORY, "--data", "digits", "--steps", "12", "--finetune-steps", "6", "--batch-size", "64",
    "--budget", "90%",
]  # fmt: skip

#: What an export tells, for tests of what comes before it.
EXPORTED: Dict[str, Any] = {
    "onnx": "slim.onnx",
    "engine": None,
    "verify": {
        "score": "top-1", "accuracy": 0.5, "scores": {"top-1": 0.5}, "images": 2, "max_abs_error": 0.0,
        "energy_j": None, "latency_s": 1.0, "latency_meter": "a clock", "budgets": [{}], "within_budget": True,
        "verdict": "fine", "pattern": None, "outputs_agree": True,
    },
    "correction": [
        {
            "metric": "energy", "measured": 2.02, "predicted": 2.0, "predicted_by": "a model", "scale": 1.01,
            "offset": 0.0, "profile": "better.json",
        }
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a network that was pruned to 90 % of its energy."""
    folder = tmp_path_factory.mktemp("loop")
    model = wide_network(folder, "looped_net")
    on_digits(model, load("digits", input_shape=(1, 8, 8)), steps=40, lr=3e-3)
    torch.save(model.state_dict(), folder / "net.pth")
    here = Path.cwd()
    os.chdir(folder)
    try:
        run("calibrate", *FACTORY, "--samples", "60", "--target-error", "0")
        run(*PRUNE, "--run", "pruned")
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def copy(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the pruned run."""
    monkeypatch.chdir(home)
    shutil.copytree(home / "pruned", tmp_path / "run")
    return tmp_path / "run"


def shift(monkeypatch: pytest.MonkeyPatch, **factors: float) -> None:
    """Let the virtual device be another than the one that was calibrated."""
    law = virtual.TX2
    values = {name: getattr(law, name) * factor for name, factor in factors.items()}
    monkeypatch.setitem(virtual.LAWS, law.name, replace(law, **values))


def changed(path: Path, **fields: Any) -> None:
    document = json.loads(path.read_text())
    document.update(fields)
    path.write_text(json.dumps(document))


def test_a_dearer_device_is_met_and_every_command_agrees_afterwards(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shift(monkeypatch, fixed_j=1.03, byte_j=2.0)
    before, history = (load_json(copy / f"{name}.json") for name in ("result", "history"))
    result = run_json("export", copy, "--fit-budget")
    fit, verified = result["fit_budget"], result["verify"]
    assert (fit["holds"], fit["close"], fit["reason"]) == (True, True, "close to the budget")
    assert 1 <= len(fit["rounds"]) - 1 <= 4
    assert fit["rounds"][1]["removed"] > 0
    last = fit["rounds"][fit["chosen"]]["budgets"][0]
    assert 0.98 * last["budget"] <= last["measured"] < last["upper"] <= last["budget"]
    # The exported network is the one that was measured, at the same fineness.
    assert verified["energy_j"] == pytest.approx(last["measured"], rel=1e-12)
    assert verified["energy_se_j"] / verified["energy_j"] <= fit["tolerance"]
    assert verified["outputs_agree"]
    assert verified["within_budget"] is True
    assert run_json("verify", copy)["energy_j"] == verified["energy_j"]
    after = load_json(copy / "result.json")
    assert after["budget"] == before["budget"]
    assert after["cost"] == after["budgets"][0]["cost"] == pytest.approx(last["measured"], rel=0.01)
    count = len(fit["rounds"])
    assert after["meter"] == f"model of virtual:tx2 (simulated), corrected by {count} networks"
    assert {name: kept for name, (kept, _) in after["widths"].items()} == fit["rounds"][-1][
        "widths"
    ]
    explained = run_json("explain", copy)["budgets"][0]
    assert explained["slim"] == pytest.approx(after["cost"], rel=1e-12)
    report = load_json(copy / "report.json")
    assert report["result"]["fit_budget"] == fit
    assert not list(copy.glob("fit*"))
    told = load_json(copy / "history.json")
    losses = told["fitting"]
    assert all(told[part] == history[part] for part in ("prune", "finetune"))
    assert losses["step"] == [float(step) for step in range(1, fit["finetune_steps"] + 1)]
    assert all(0.0 < loss < 10.0 for loss in losses["loss"])
    assert run_json("report", copy)["report"]
    assert "fitting to the measured" in (copy / "report.html").read_text()
    # What the export measured corrects the profile once more, beside the run's own.
    told, path = result["correction"][0], copy / "profile-energy-corrected.json"
    assert told["meter"] == "virtual:tx2 (simulated)"
    assert told["measured"] == pytest.approx(last["measured"], rel=1e-12)
    assert abs(told["corrected"] - told["measured"]) <= 3.0 * told["standard_error"]
    assert Profile.load(copy / "profile-energy.json").model.meter == told["predicted_by"]
    better = Profile.load(path)
    assert "corrected by 2 networks measured by virtual:tx2 (simulated)" in better.note
    spec = RunFolder(copy).read_spec()
    widths = spec.vector(fit["rounds"][-1]["widths"])
    assert better.cost_for(spec).predict(widths) == pytest.approx(told["corrected"], rel=1e-12)


def stop(name: str) -> Callable[..., Any]:
    def stopped(*_: Any, **__: Any) -> Any:
        raise ArtifactError(f"stopped before {name}")

    return stopped


def test_a_cheaper_device_brings_channels_back_and_an_interrupted_command_goes_on(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after the first measurement, before training, and half through replacing the run's files."""
    shift(monkeypatch, fixed_j=0.97, byte_j=0.9)
    before = load_json(copy / "keep.json")["keep"]
    result, weights = (
        (copy / "result.json").read_bytes(),
        (copy / "masked.safetensors").read_bytes(),
    )
    seen = []
    for name in ("_order", "_trained"):
        with monkeypatch.context() as patched:
            patched.setattr(use_case._Fit, name, stop(name))
            assert f"stopped before {name}" in complaint("export", copy, "--fit-budget")
        assert (copy / "result.json").read_bytes() == result
        seen.append(load_json(copy / "fit.json"))
    assert (seen[0]["chosen"], len(seen[0]["rounds"])) == (None, 1)
    assert seen[1]["rounds"][0] == seen[0]["rounds"][0]
    assert seen[1]["chosen"] == len(seen[1]["rounds"]) - 1 >= 1
    text = complaint("export", copy, "--fit-budget", "--rounds", "2")
    assert "is being fitted with other options (rounds 4, confidence 0.95)" in text
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "write_keep", stop("keep.json"))
        assert "stopped before keep.json" in complaint("export", copy, "--fit-budget")
    assert (copy / "masked.safetensors").read_bytes() != weights
    assert "give edgeecc export --fit-budget again to go on" in complaint("export", copy)
    monkeypatch.setattr(use_case, "export_locked", lambda *_: EXPORTED)
    printed = run("export", copy, "--fit-budget").stdout
    assert "rounds of --fit-budget" in printed
    assert "holds the budget with 0.95 confidence" in printed
    assert "energy measured +1.0% from the 2 J of a model: scale 1.0100, offset 0 uJ" in printed
    assert "--profile better.json" in printed
    rounds = load_json(copy / "result.json")["fit_budget"]["rounds"]
    assert [each["budgets"] for each in rounds] == [each["budgets"] for each in seen[1]["rounds"]]
    assert rounds[1]["returned"] > 0 == rounds[1]["removed"]
    after = load_json(copy / "keep.json")["keep"]
    assert after == seen[1]["units"]
    assert all(set(units) <= set(after[name]) for name, units in before.items())
    # Fitted again it is close at once, and stays as it is.
    weights = (copy / "masked.safetensors").read_bytes()
    history = load_json(copy / "history.json")
    assert len(history["fitting"]["loss"]) == len(history["fitting"]["step"]) > 0
    again = use_case.fit_budget(RunFolder(copy))["fit_budget"]
    assert (len(again["rounds"]), again["chosen"], again["finetune_steps"]) == (1, 0, 0)
    assert (copy / "masked.safetensors").read_bytes() == weights
    assert load_json(copy / "history.json") == history


def test_a_budget_that_nothing_holds_says_so(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The export that follows is left out; its own verdict would be that the budget holds."""
    shift(monkeypatch, fixed_j=2.0)
    monkeypatch.setattr(use_case, "export_locked", lambda *_: EXPORTED)
    printed = run("export", copy, "--fit-budget", code=3).stdout
    assert "NO round holds the budget with 0.95 confidence; round 0 is nearest" in printed
    assert "not even the thinnest network" in printed
    fit = load_json(copy / "result.json")["fit_budget"]
    assert (fit["holds"], fit["chosen"], fit["finetune_steps"]) == (False, 0, 0)


def test_what_cannot_be_fitted_is_refused_in_one_line(copy: Path) -> None:
    for option in (["--rounds", "2"], ["--confidence", "0.9"]):
        assert "goes with --fit-budget" in complaint("export", copy, *option, code=2)
    fitted = ["export", copy, "--fit-budget"]
    assert "must lie in (0.5, 1)" in complaint(*fitted, "--confidence", "0.4")
    assert "must lie in 0..100" in complaint(*fitted, "--rounds", "-1")
    kept = {path: path.read_text() for path in (copy / "run.json", copy / "result.json")}

    def said(path: Path, **fields: Any) -> str:
        changed(path, **fields)
        text = complaint(*fitted)
        path.write_text(kept[path])
        return text

    request: Dict[str, Any] = load_json(copy / "run.json")["request"]
    result = load_json(copy / "result.json")
    assert "removed single weights, --fit-budget fits the widths" in said(
        copy / "run.json", request={**request, "kind": "weights"}
    )
    text = said(copy / "result.json", budgets=[], device="jetson-tx2")
    assert "no meter here tells the energy of jetson-tx2" in text
    count = {**result["budget"], "metric": "macs", "value": 1e6}
    assert "macs of" in said(copy / "result.json", budgets=[], budget=count)
    for damage in (
        {**request, "training": {**request["training"], "lr": "fast"}},
        {**request, "training": {}},
        {**request, "judged": -1},
        {**request, "precision": "fp12"},
    ):
        assert "does not tell how it was trained" in said(copy / "run.json", request=damage)
    (copy / "fit.json").write_text("{")
    assert "fit.json is damaged" in complaint(*fitted)
    (copy / "fit.json").unlink()
    for damage, said_of_it in (
        ({"tolerance": 0.01}, "max_windows in"),
        ({"tolerance": 7.0, "max_windows": 9}, "tolerance 7.0 must lie in"),
        (3, "max_windows in"),
    ):
        with pytest.raises(ArtifactError, match=said_of_it):
            measuring_of({**result, "fit_budget": damage}, copy / "result.json")
