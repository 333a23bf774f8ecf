"""Several budgets at once through the command line: all hold, all are verified, and each keeps what priced it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from edgeecc.artifacts import load_json, read_tensors
from edgeecc.cli.main import cli
from edgeecc.cost.exact import mac_cost
from edgeecc.cost.profile import Profile
from edgeecc.data.sources import load
from edgeecc.networks.table import build
from edgeecc.run_folder import RunFolder
from edgeecc.solvers.base import Limit, Problem
from edgeecc.solvers.uniform import uniform_widths
from edgeecc.training.dense import initialise_, train_dense_
from tests.cli_runs import complaint, run, run_json

QUICK = [
    "prune", "net.pth", "--network", "digits_mobilenet", "--data", "digits", "--steps", "16", "--finetune-steps", "6",
    "--batch-size", "64",
]  # fmt: skip
CALIBRATION = Path("calibration/virtual-tx2/digits_mobilenet/profile.json")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a trained network and its calibration on the virtual device."""
    folder = tmp_path_factory.mktemp("several")
    model = build("digits_mobilenet")
    initialise_(model, 0)
    data = load("digits", input_shape=(1, 8, 8))
    train_dense_(model, data.train, steps=40, batch_size=64, lr=5e-3, seed=0)
    torch.save(model.state_dict(), folder / "net.pth")
    run(
        "calibrate", "--network", "digits_mobilenet", "--samples", "120", "--workspace", folder
    )  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


@pytest.fixture(scope="module")
def exported(home: Path) -> dict:
    """Return the result of a run with three budgets, after its export."""
    budgets = ["--budget", "70%", "--budget", "60kB", "--budget", "40%macs"]
    result = run_json(*_from(home), *budgets, "--run", home / "runs/three", "--workspace", home)
    assert run_json("export", home / "runs/three")["verify"]["within_budget"] is True
    return result


def _from(home: Path) -> list:
    return [str(home / word) if word == "net.pth" else word for word in QUICK]


def test_all_budgets_hold_on_the_integer_widths(home: Path, exported: dict) -> None:
    energy, size, macs = exported["budgets"]
    assert [told["metric"] for told in exported["budgets"]] == ["energy", "size", "macs"]
    assert [told["text"] for told in exported["budgets"]] == ["70%", "60kB", "40%macs"]
    for told in exported["budgets"]:
        assert told["cost"] * (1.0 + told["margin"]) <= told["value"] * (1.0 + 1e-12)
    assert (energy["device"], size["device"], macs["device"]) == ("virtual:tx2", "", "")
    assert energy["margin"] > 0.0 == size["margin"] == macs["margin"]
    assert {told["meter"] for told in (size, macs)} == {"exact count"}
    assert energy["value"] == pytest.approx(0.7 * energy["dense"])
    assert macs["value"] == pytest.approx(0.4 * macs["dense"])
    tightest = max(told["cost"] * (1.0 + told["margin"]) / told["value"] for told in (energy, size))
    assert tightest > 0.9
    # Counted again in what was exported.
    arrays, _ = read_tensors(home / "runs/three/slim.safetensors")
    stored = 4 * sum(value.size for value in arrays.values())
    assert stored == size["cost"] <= 60e3
    report = load_json(home / "runs/three/report.json")
    slim = {row["network"]: row for row in report["networks"]}["slim"]
    assert slim["macs"] == pytest.approx(macs["cost"])
    assert slim["size_b"] == size["cost"]


def test_one_budget_is_told_as_ever_and_all_in_a_list(home: Path, exported: dict) -> None:
    first = exported["budgets"][0]
    assert exported["budget"] == {key: first[key] for key in ("value", "unit", "metric", "text")}
    for key in ("cost", "meter", "device", "margin"):
        assert exported[key] == first[key]
    kept = [path.name for path in (home / "runs/three").glob("profile*")]
    assert kept == ["profile-energy.json"]
    folder = RunFolder(home / "runs/three")
    profile = Profile.load(folder.file(kept[0]))
    spec = folder.read_spec()
    widths = spec.vector({name: len(units) for name, units in folder.read_keep(spec).items()})
    assert profile.cost_for(spec).predict(widths) == first["cost"]


def test_every_budget_is_verified_and_listed(home: Path, exported: dict) -> None:
    verified = run_json("verify", "runs/three")
    assert [told["metric"] for told in verified["budgets"]] == ["energy", "size", "macs"]
    assert all(told["within"] for told in verified["budgets"])
    assert verified["missed"] == []
    assert verified["budgets"][0]["meter"] == "virtual:tx2 (simulated)"
    assert verified["budgets"][0]["found"] == verified["energy_j"]
    for told, promised in zip(verified["budgets"][1:], exported["budgets"][1:]):
        assert (told["found"], told["value"]) == (promised["cost"], promised["value"])
    report = load_json(home / "runs/three/report.json")
    assert [told["metric"] for told in report["verify"]["budgets"]] == ["energy", "size", "macs"]
    assert report["result"]["budgets"] == exported["budgets"]
    printed = run("verify", "runs/three").stdout
    for words in ("energy budget", "size budget", "macs budget"):
        assert f"within {words}" in printed


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_missed_budget_of_several_exits_with_three(
    home: Path, exported: dict, place: int
) -> None:
    path = home / "runs/three/result.json"
    whole = path.read_text()
    document = json.loads(whole)
    document["budgets"][place]["value"] *= 0.5
    name = document["budgets"][place]["metric"]
    path.write_text(json.dumps(document))
    try:
        found = run_json("verify", "runs/three", code=3)
        printed = run("verify", "runs/three", code=3).stdout
    finally:
        path.write_text(whole)
    assert (found["within_budget"], found["missed"]) == (False, [name])
    assert [told["within"] for told in found["budgets"]] == [i != place for i in range(3)]
    assert found["verdict"].startswith(f"{name} missed: ")
    line = next(line for line in printed.splitlines() if line.startswith(f"within {name} budget"))
    assert " NO (" in line
    assert printed.count(" NO (") == 1


def test_the_table_has_a_row_a_budget_with_its_meter() -> None:
    printed = run(
        *QUICK, "--budget", "45%macs", "--budget", "80%", "--method", "uniform", "--run", "runs/table",
    ).stdout  # fmt: skip
    rows = [line for line in printed.splitlines() if "(" in line and "│" in line]
    assert [row.split("(")[0].strip("│ ") for row in rows] == ["macs", "energy"]
    assert "exact count" in rows[0]
    assert "model of virtual:tx2 (simulated)" in rows[1]
    history = load_json(Path("runs/table/history.json"))
    assert history["prune"] == []


def test_a_single_budget_is_solved_as_before_and_a_slack_one_changes_nothing(home: Path) -> None:
    """The oracle makes the problem of one limit by hand."""
    uniform = [*QUICK, "--method", "uniform"]
    alone = run_json(*uniform, "--budget", "40%macs", "--run", "runs/alone")
    spec = RunFolder(home / "runs/alone").read_spec()
    cost = mac_cost(spec)
    bound = 0.4 * cost.predict(spec.vector(spec.dense_widths()))
    expected = uniform_widths(Problem(spec, (Limit(cost, bound),), 0))
    assert [kept for kept, _ in alone["widths"].values()] == expected.tolist()
    named = run_json(*uniform, "--budget", "40%", "--of", "macs", "--run", "runs/named")
    slack = run_json(*uniform, "--budget", "40%macs", "--budget", "100%size", "--run", "runs/slack")
    for other in (named, slack):
        assert (other["widths"], other["scores"]) == (alone["widths"], alone["scores"])
    masked = [
        read_tensors(home / f"runs/{name}/masked.safetensors")[0] for name in ("alone", "slack")
    ]
    assert all((masked[0][name] == masked[1][name]).all() for name in masked[0])


def test_a_run_of_the_first_version_is_exported_and_verified(home: Path) -> None:
    """It has one budget, not in a list, and one profile.json."""
    run(*QUICK, "--budget", "80%", "--method", "uniform", "--run", "runs/older")
    folder = home / "runs/older"
    document = load_json(folder / "result.json")
    assert len(document.pop("budgets")) == 1
    (folder / "result.json").write_text(json.dumps(document))
    (folder / "profile-energy.json").rename(folder / "profile.json")
    assert run_json("export", folder)["verify"]["within_budget"] is True
    assert [told["metric"] for told in run_json("verify", folder)["budgets"]] == ["energy"]
    assert "within budget  yes" in run("verify", folder).stdout
    again = [*QUICK, "--budget", "80%", "--method", "uniform", "--run", folder, "--force"]
    run(*again)
    assert sorted(path.name for path in folder.glob("profile*")) == ["profile-energy.json"]


def test_energy_and_latency_each_have_their_profile(home: Path) -> None:
    """The second profile is the first one's, told as seconds of another device."""
    document = json.loads(CALIBRATION.read_text())
    document["device"] = "onnxruntime:cpu"
    document["model"].update(metric="latency", meter="model of onnxruntime:cpu (1 thread)")
    document["heldout_error"]["p95"] = 0.125
    (home / "latency.json").write_text(json.dumps(document))
    command = [*QUICK, "--method", "uniform", "--budget", "90%latency", "--budget", "80%"]
    profiles = ["--profile", "latency.json", "--profile", CALIBRATION]
    devices = ["--device", "virtual:tx2", "--profile", "latency.json"]
    for name, options in (("profiles", profiles), ("mixed", devices)):
        result = run_json(*command, *options, "--run", f"runs/{name}")
        latency, energy = result["budgets"]
        assert (latency["device"], energy["device"]) == ("onnxruntime:cpu", "virtual:tx2")
        assert (latency["unit"], energy["unit"]) == ("s", "J")
        assert latency["margin"] == 0.125 != energy["margin"]
        assert latency["cost"] <= latency["value"] / 1.125
        kept = sorted(path.name for path in (home / "runs" / name).glob("profile*"))
        assert kept == ["profile-energy.json", "profile-latency.json"]
    both = run_json(*command, *profiles, "--margin", "0.05", "--run", "runs/margin")
    assert [told["margin"] for told in both["budgets"]] == [0.05, 0.05]
    said = complaint(*command, "--run", "runs/no")
    assert "no profile of digits_mobilenet on onnxruntime:cpu; make one with" in said
    said = complaint(*QUICK, "--budget", "80%", "--budget", "5kB", "--profile", "latency.json")
    assert "profile latency.json predicts latency, which no budget bounds" in said
    done = CliRunner().invoke(cli, ["-q", "export", "runs/mixed", "--json"])
    verified = json.loads(done.stdout)["verify"]
    assert done.exit_code == (0 if verified["within_budget"] else 3)
    assert verified["budgets"][0]["found"] == verified["latency_s"]
    # The first budget is latency; energy is still told by the energy budget's own device.
    report = load_json(home / "runs/mixed/report.json")
    assert {row["meter"] for row in report["networks"]} == {"virtual:tx2 (simulated)"}


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--budget", "80%", "--budget", "2mJ"], 2, "'80%' and '2mJ' both bound energy"),
        (["--budget", "5MB", "--budget", "4MB"], 2, "'5MB' and '4MB' both bound size"),
        (["--budget", "80%", "--budget", "60%"], 2, "name what a percentage is of: '60% of macs'"),
        (["--budget", "80%", "--budget", "60%flops"], 2, "unknown metric 'flops'"),
        (["--budget", "80%", "--budget", "7"], 2, "'7' is a bare number"),
        (["--budget", "80%", "--budget", "10B"], 1, "size budget 10 B is below what the thinnest"),
        (["--budget", "1uJ", "--budget", "5MB"], 1, "energy budget 1 uJ is below"),
        (
            ["--budget", "80%", "--device", "virtual:tx2", "--device", "onnxruntime:cpu"],
            1,
            "device onnxruntime:cpu predicts latency, which no budget bounds",
        ),
        (
            ["--budget", "80%", "--device", "virtual:tx2", "--device", "jetson-tx2"],
            1,
            "devices virtual:tx2 and jetson-tx2 both predict energy",
        ),
        (
            ["--budget", "50%macs", "--profile", str(CALIBRATION)],
            1,
            "predicts energy, which no budget bounds",
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


def test_another_set_of_budgets_is_another_run() -> None:
    command = [*QUICK, "--method", "uniform", "--run", "runs/set", "--budget", "80%"]
    run(*command, "--budget", "50%macs")
    for others in ([], ["--budget", "60%macs"], ["--budget", "50%size"]):
        assert "holds another run" in complaint(*command, *others)
    assert "is finished" in complaint(*command, "--budget", "50%macs")


@pytest.mark.parametrize("file", ["edgeecc.toml", "own.toml"])
def test_a_file_names_one_budget_or_a_list(
    home: Path, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.pth").write_bytes((home / "net.pth").read_bytes())
    config = [] if file == "edgeecc.toml" else ["--config", file]
    command = [*QUICK, *config, "--method", "uniform", "--force", "--run"]

    def texts(value: str, *more: str) -> list:
        (tmp_path / file).write_text(f"[prune]\ndevice = 'virtual:tx2'\nbudget = {value}\n")
        return [told["text"] for told in run_json(*command, "r", *more)["budgets"]]

    assert texts("'50%macs'") == ["50%macs"]
    assert texts("['50%macs', '90kB']") == ["50%macs", "90kB"]
    assert texts("['50%macs', '90kB']", "--budget", "55%macs") == ["55%macs"]
    for value, said in (("[]", "Missing option '--budget'"), ("3", "'3' is a bare number")):
        (tmp_path / file).write_text(f"[prune]\nbudget = {value}\n")
        assert said in complaint(*command, "r", code=2)


def test_the_run_is_named_after_all_its_budgets() -> None:
    result = run_json(*QUICK, "--method", "uniform", "--budget", "60% of macs", "--budget", "90 kB")
    assert Path(result["run"]) == Path("runs/digits_mobilenet-uniform-60pctofmacs-90kB")
