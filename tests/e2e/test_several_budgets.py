"""Several budgets at once through the command line: all hold, all are verified, and each keeps what priced it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from edgeecc.artifacts import load_json, read_tensors
from edgeecc.cost.profile import Profile
from edgeecc.data.sources import load
from edgeecc.run_folder import RunFolder
from edgeecc.solvers.base import Limit, Problem
from edgeecc.solvers.uniform import uniform_widths
from tests.cli_runs import complaint, run, run_json, wide_network
from tests.trained import on_digits

FACTORY = ["--network", "wide_net:net", "--input", "1x8x8"]
QUICK = [
    "prune", "net.pth", *FACTORY, "--data", "digits", "--steps", "12", "--finetune-steps", "4", "--batch-size", "64",
]  # fmt: skip
UNIFORM = [*QUICK, "--method", "uniform"]
CALIBRATION = Path("calibration/virtual-tx2/net/profile.json")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a trained network and its calibration on the virtual device."""
    folder = tmp_path_factory.mktemp("several")
    model = wide_network(folder, "wide_net")
    on_digits(model, load("digits", input_shape=(1, 8, 8)), steps=30, lr=3e-3)
    torch.save(model.state_dict(), folder / "net.pth")
    run("calibrate", *FACTORY, "--samples", "60", "--workspace", folder)
    return folder


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def pruned(home: Path, *options: str, name: str) -> dict:
    command = [str(home / word) if word == "net.pth" else word for word in options]
    return run_json(*command, "--run", home / "runs" / name, "--workspace", home)


@pytest.fixture(scope="module")
def three(home: Path) -> dict:
    """Return the result of a run with three budgets, after its export."""
    budgets = ["--budget", "90%", "--budget", "1.3MB", "--budget", "90%macs"]
    result = pruned(home, *QUICK, *budgets, name="three")
    assert run_json("export", home / "runs/three")["verify"]["within_budget"] is True
    return result


@pytest.fixture(scope="module")
def alone(home: Path) -> dict:
    """Return the result of a run with one budget."""
    return pruned(home, *UNIFORM, "--budget", "90%", name="alone")


def widths_of(folder: RunFolder) -> tuple:
    spec = folder.read_spec()
    keep = folder.read_keep(spec)
    return spec, spec.vector({name: len(units) for name, units in keep.items()})


def test_all_budgets_hold_on_the_integer_widths(home: Path, three: dict) -> None:
    energy, size, macs = three["budgets"]
    assert [told["metric"] for told in three["budgets"]] == ["energy", "size", "macs"]
    assert [told["text"] for told in three["budgets"]] == ["90%", "1.3MB", "90%macs"]
    shares = [told["cost"] * (1.0 + told["margin"]) / told["value"] for told in three["budgets"]]
    assert 0.9 < max(shares) <= 1.0 + 1e-12
    assert (energy["device"], size["device"], macs["device"]) == ("virtual:tx2", "", "")
    assert energy["margin"] > 0.0 == size["margin"] == macs["margin"]
    assert {told["meter"] for told in (size, macs)} == {"exact count"}
    assert energy["value"] == pytest.approx(0.9 * energy["dense"])
    assert macs["value"] == pytest.approx(0.9 * macs["dense"])
    # Counted again in what was exported.
    arrays, _ = read_tensors(home / "runs/three/slim.safetensors")
    assert 4 * sum(value.size for value in arrays.values()) == size["cost"] <= 1.3e6
    rows = load_json(home / "runs/three/report.json")["networks"]
    slim = {row["network"]: row for row in rows}["slim"]
    assert (slim["macs"], slim["size_b"]) == (pytest.approx(macs["cost"]), size["cost"])


def test_the_first_budget_is_told_as_ever_and_all_in_a_list(home: Path, three: dict) -> None:
    first = three["budgets"][0]
    assert three["budget"] == {key: first[key] for key in ("value", "unit", "metric", "text")}
    assert all(three[key] == first[key] for key in ("cost", "meter", "device", "margin"))
    kept = sorted(path.name for path in (home / "runs/three").glob("profile*"))
    assert kept == ["profile-energy-corrected.json", "profile-energy.json"]  # export's, prune's
    folder = RunFolder(home / "runs/three")
    spec, widths = widths_of(folder)
    assert Profile.load(folder.file(kept[1])).cost_for(spec).predict(widths) == first["cost"]


def test_every_budget_is_verified_and_listed(home: Path, three: dict) -> None:
    verified = run_json("verify", "runs/three")
    assert [told["metric"] for told in verified["budgets"]] == ["energy", "size", "macs"]
    assert (verified["missed"], [told["within"] for told in verified["budgets"]]) == (
        [],
        [True] * 3,
    )
    assert verified["budgets"][0]["meter"] == "virtual:tx2 (simulated)"
    assert verified["budgets"][0]["found"] == verified["energy_j"]
    for told, promised in zip(verified["budgets"][1:], three["budgets"][1:]):
        assert (told["found"], told["value"]) == (promised["cost"], promised["value"])
    report = load_json(home / "runs/three/report.json")
    assert [told["metric"] for told in report["verify"]["budgets"]] == ["energy", "size", "macs"]
    assert report["result"]["budgets"] == three["budgets"]


def test_every_budget_is_explained(home: Path, three: dict) -> None:
    explained = run_json("explain", "runs/three")
    report = load_json(home / "runs/three/report.json")
    rows = {row["network"]: row for row in report["networks"]}
    counted = [
        sum(layer[key] for layer in explained["layers"]) for key in ("macs_dense", "macs_slim")
    ]
    assert counted == pytest.approx([rows["dense"]["macs"], rows["slim"]["macs"]])
    for told, promised in zip(explained["budgets"], three["budgets"]):
        assert [told[key] for key in ("metric", "text", "value", "meter", "dense", "slim")] == [
            promised[key] for key in ("metric", "text", "value", "meter", "dense", "cost")
        ]
        for when in ("dense", "slim"):
            total = told["fixed"] + sum(part[when] for part in told["parts"])
            assert total == pytest.approx(told[when], rel=1e-12)
        gap = sum(cause["excess"] for cause in told["causes"])
        assert gap == pytest.approx(told["gap"], abs=1e-12)
    energy, size, _ = explained["budgets"]
    by_export, by_verify = energy["measured"]
    assert (by_export["dense"], by_export["slim"]) == tuple(
        rows[name]["energy_j"] for name in ("dense", "slim")
    )
    assert {by_export["meter"], by_verify["meter"]} == {"virtual:tx2 (simulated)"}
    assert by_export["slim"] == pytest.approx(energy["slim"], rel=0.1)
    assert {part["kind"] for part in size["parts"]} == {"conv", "linear"}
    assert sum(part["slim"] for part in size["parts"]) == rows["slim"]["size_b"]
    words = run("explain", "runs/three").stdout
    assert "why energy did not fall as MACs did" in words
    assert "(virtual:tx2 (simulated))" in words


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_missed_budget_of_several_exits_with_three(home: Path, place: int) -> None:
    path = home / "runs/three/result.json"
    whole = path.read_text()
    document = json.loads(whole)
    document["budgets"][place]["value"] *= 0.1
    name = document["budgets"][place]["metric"]
    path.write_text(json.dumps(document))
    try:
        printed = run("verify", "runs/three", code=3).stdout
    finally:
        path.write_text(whole)
    found = load_json(home / "runs/three/verify.json")
    assert (found["within_budget"], found["missed"]) == (False, [name])
    assert [told["within"] for told in found["budgets"]] == [i != place for i in range(3)]
    assert found["verdict"].startswith(f"{name} missed: ")
    lines = [line for line in printed.splitlines() if line.startswith("within ")]
    assert [" NO (" in line for line in lines] == [i == place for i in range(3)]
    assert lines[place].startswith(f"within {name} budget")


def test_a_row_a_budget_with_its_meter() -> None:
    """The run folder is named after all budgets."""
    printed = run(*UNIFORM, "--budget", "80% of macs", "--budget", "92%").stdout
    rows = [line for line in printed.splitlines() if "(" in line and "│" in line]
    assert [row.split("(")[0].strip("│ ") for row in rows] == ["macs", "energy"]
    assert "exact count" in rows[0]
    assert "model of virtual:tx2 (simulated)" in rows[1]
    assert Path("runs/net-uniform-80pctofmacs-92pct/result.json").is_file()


def test_one_budget_is_the_problem_of_one_limit_and_a_slack_one_changes_nothing(
    home: Path, alone: dict
) -> None:
    """The oracle makes the problem by hand, as the first version did."""
    spec, widths = widths_of(RunFolder(home / "runs/alone"))
    profile = Profile.load(home / CALIBRATION)
    cost = profile.cost_for(spec)
    bound = 0.9 * cost.predict(spec.vector(spec.dense_widths()))
    assert alone["budget"] == {"value": bound, "unit": "J", "metric": "energy", "text": "90%"}
    limit = Limit(cost, bound / (1.0 + profile.margin().share))
    assert widths.tolist() == uniform_widths(Problem(spec, (limit,), 0)).tolist()
    slack = pruned(home, *UNIFORM, "--budget", "90%", "--budget", "100%size", name="slack")
    assert (slack["widths"], slack["scores"]) == (alone["widths"], alone["scores"])
    one, other = (
        read_tensors(home / f"runs/{name}/masked.safetensors")[0] for name in ("alone", "slack")
    )
    assert all((one[name] == other[name]).all() for name in one)


def test_another_set_of_budgets_is_another_run(alone: dict) -> None:
    command = [*UNIFORM, "--run", alone["run"], "--budget"]
    for budgets in (["92%"], ["90%", "--budget", "80%macs"]):
        assert "holds another run" in complaint(*command, *budgets)
    assert "is finished" in complaint(*command, "90%")


def test_a_run_of_the_first_version_is_exported_and_verified(home: Path, alone: dict) -> None:
    """It has one budget, not in a list, and one profile.json."""
    folder = home / "runs/alone"
    document = load_json(folder / "result.json")
    assert len(document.pop("budgets")) == 1
    (folder / "result.json").write_text(json.dumps(document))
    (folder / "profile-energy.json").rename(folder / "profile.json")
    assert run_json("export", folder)["verify"]["within_budget"] is True
    assert [told["metric"] for told in run_json("verify", folder)["budgets"]] == ["energy"]
    assert "within budget  yes" in run("verify", folder).stdout
    assert run_json("explain", folder)["budgets"][0]["slim"] == document["cost"]


def test_energy_and_latency_each_have_their_profile(home: Path) -> None:
    """The second profile is the first one's, told as seconds of another device."""
    document = json.loads(CALIBRATION.read_text())
    document["device"] = "onnxruntime:cpu"
    document["model"].update(metric="latency", meter="model of onnxruntime:cpu (1 thread)")
    document["ratios"] = []
    document["heldout_error"]["p95"] = 0.025
    (home / "latency.json").write_text(json.dumps(document))
    command = [*UNIFORM, "--budget", "95%latency", "--budget", "90%"]
    mixed = ["--device", "virtual:tx2", "--profile", "latency.json"]
    latency, energy = pruned(home, *command, *mixed, name="mixed")["budgets"]
    assert (latency["device"], energy["device"]) == ("onnxruntime:cpu", "virtual:tx2")
    assert (latency["unit"], energy["unit"]) == ("s", "J")
    assert latency["margin"] == 0.025 != energy["margin"]
    assert latency["cost"] <= latency["value"] / 1.025
    kept = sorted(path.name for path in (home / "runs/mixed").glob("profile*"))
    assert kept == ["profile-energy.json", "profile-latency.json"]
    explained = run_json("explain", "runs/mixed")["budgets"]
    assert [each["slim"] for each in explained] == [latency["cost"], energy["cost"]]
    assert [each["meter"] for each in explained] == [latency["meter"], energy["meter"]]
    both = ["--profile", str(CALIBRATION), "--profile", "latency.json", "--margin", "0.01"]
    told = pruned(home, *command, *both, name="both")["budgets"]
    assert [each["margin"] for each in told] == [0.01, 0.01]
    assert [each["meter"] for each in told] == [latency["meter"], energy["meter"]]
    said = complaint(*command, "--run", "runs/no")
    assert "no profile of wide_net:net on onnxruntime:cpu; make one with" in said
    said = complaint(*UNIFORM, "--budget", "90%", "--profile", "latency.json")
    assert "profile latency.json predicts latency, which no budget bounds" in said


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--budget", "80%", "--budget", "2mJ"], 2, "'80%' and '2mJ' both bound energy"),
        (["--budget", "5MB", "--budget", "4MB"], 2, "'5MB' and '4MB' both bound size"),
        (["--budget", "80%", "--budget", "60%"], 2, "name what a percentage is of: '60% of macs'"),
        (["--budget", "80%", "--budget", "60%flops"], 2, "unknown metric 'flops'"),
        (["--budget", "80%", "--budget", "7"], 2, "'7' is a bare number"),
        (["--budget", "90%", "--budget", "10B"], 1, "size budget 10 B is below what the thinnest"),
        (
            ["--budget", "90%", "--device", "virtual:tx2", "--device", "onnxruntime:cpu"],
            1,
            "device onnxruntime:cpu predicts latency, which no budget bounds",
        ),
        (
            ["--budget", "40%", "--budget", "5MB", "--method", "wsp"],
            2,
            "wsp takes one budget, a share of energy; leave the others out",
        ),
        (
            ["--budget", "40%", "--method", "eap", "--device", "systolic:eyeriss", "--device", "b"],
            1,
            "eap takes one budget and one device",
        ),
    ],
)
def test_budgets_that_do_not_go_together_are_refused(options: list, code: int, said: str) -> None:
    assert said in complaint(*QUICK, *options, "--run", "runs/refused", code=code)
    assert not Path("runs/refused").exists()


@pytest.mark.parametrize("config", [[], ["--config", "own.toml"]])
def test_a_file_names_one_budget_or_a_list(
    config: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two budgets of one metric tell which ones were read."""
    monkeypatch.chdir(tmp_path)
    command = ["prune", "gone.pth", *FACTORY, "--data", "digits", *config]

    def said(budget: str, *options: str, code: int = 2) -> str:
        path = tmp_path / (config[1] if config else "edgeecc.toml")
        path.write_text(f"[prune]\ndevice = 'virtual:tx2'\nbudget = {budget}\n")
        return complaint(*command, *options, code=code)

    assert "'80%' and '2mJ' both bound" in said("['80%', '5MB', '2mJ']")
    assert "'7' is a bare number" in said("'7'")
    assert "'3' is a bare number" in said("3")
    assert "Missing option '--budget'" in said("[]")
    for fine in ("'80%'", "['80%', '5MB']"):
        assert "cannot read gone.pth" in said(fine, code=1)
    assert "cannot read gone.pth" in said("['80%', '2mJ']", "--budget", "70%", code=1)
