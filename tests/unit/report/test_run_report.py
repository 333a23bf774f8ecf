"""The report of a run: its verdict, its numbers, what it says where something is missing, and damaged files."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from edgeecc.artifacts import load_json, write_json
from edgeecc.calibrate import Job, calibrate
from edgeecc.config import CalibrateConfig, MeasureProtocol
from edgeecc.cost.exact import mac_cost, parameter_count
from edgeecc.cost.profile import Profile
from edgeecc.errors import ArtifactError
from edgeecc.report.job import find_folder
from edgeecc.report.run_files import read_run_files
from edgeecc.report.run_job import as_json, told_of
from edgeecc.report.run_page import page
from edgeecc.report.standing import standing_of, words_of
from edgeecc.run_folder import SPEC_SCHEMA, RunFolder
from edgeecc.verdict import HALF_WIDTH
from tests.chains import chain_spec
from tests.cli_runs import complaint, run, run_json
from tests.report_runs import MARGIN, Page, changed, check_page, engine, exported, made_run
from tests.unit.test_calibrate import small_network

pytestmark = pytest.mark.device
WIDTHS = {"c1": 9, "c2": 30}
BAD_ROUND = {
    "rounds": [{"round": 0, "budgets": [{"metric": "x"}]}], "chosen": 0, "confidence": 0.9,
}  # fmt: skip
COURSE = ["loss", "phi", "bounds", "prices", "duals"]


@pytest.fixture(scope="module")
def workspace_of_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a workspace with a calibration and a run that prune finished."""
    home = tmp_path_factory.mktemp("reported")
    spec, graph = small_network()
    folder = home / "calibration" / "virtual-tx2" / "small"
    write_json(folder / "spec.json", SPEC_SCHEMA, {"spec": spec.to_json()})
    wanted = CalibrateConfig(samples=80, target_error=0.0, model="bilinear+linear+tiles:8")
    calibrate(Job(spec, graph, "virtual:tx2", folder), wanted, MeasureProtocol())
    profile = Profile.load(folder / "profile.json")
    made_run(home / "runs" / "first", spec, WIDTHS, profile=profile)
    return home


@pytest.fixture
def home(workspace_of_one: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(workspace_of_one, tmp_path / "home"))


@pytest.fixture
def folder(home: Path) -> RunFolder:
    return RunFolder(home / "runs" / "first")


def export(folder: RunFolder, share: float = 0.9, **more: Any) -> float:
    """Let export have measured a share of the budget; return the energy."""
    entry = load_json(folder.file("result.json"))["budgets"][0]
    energy = share * entry["value"]
    exported(folder, folder.read_spec(), WIDTHS, energy_j=energy, **more)
    return energy


def drawn(folder: RunFolder) -> Any:
    """Return what the command tells of a run whose page it wrote."""
    pytest.importorskip("matplotlib")
    told = run_json("report", folder.path, "--workspace", folder.path.parents[1])
    check_page(Page.of(told["report"]))
    return told


def report(folder: RunFolder) -> Any:
    """Return the numbers of a run, and as "text" its page, without the time that charts take."""
    told = told_of(read_run_files(folder), folder.path.resolve().parents[1])
    found = Page(page(told, dict.fromkeys(("layers", "why", "course", "calibration"), ())))
    check_page(found)
    return {**json.loads(json.dumps(as_json(told), allow_nan=False)), "text": found.text}


def standing(folder: RunFolder) -> tuple:
    return words_of(standing_of(read_run_files(folder)))


def test_after_prune_alone_nothing_is_claimed(folder: RunFolder) -> None:
    told = drawn(folder)
    assert (told["within_budget"], told["basis"]) == (None, "predicted")
    assert told["report"] == str(folder.file("report.html"))
    assert told["charts"] == ["widths", "costs-energy", "gap-energy", *COURSE, "predicted-energy"]
    found = Page.of(told["report"])
    assert found.charts() == told["charts"]
    assert "Not verified: the budget should hold, as the cost model predicts" in found.text
    assert "nothing was measured on virtual:tx2" in found.text
    assert f"edgeecc export {folder.path}" in found.text
    assert [row["name"] for row in told["networks"]] == ["dense", "pruned"]
    assert told["networks"][1]["scores"] == {"top-1": 0.94, "top-5": 0.99}
    spec = folder.read_spec()
    for row, widths in zip(told["networks"], (spec.dense_widths(), WIDTHS)):
        assert row["params"] == parameter_count(spec, widths)
        assert row["macs"] == mac_cost(spec).predict(spec.vector(widths))
    (quality,) = told["calibrations"]
    assert quality["samples"] == {"train": 52, "heldout": 28}
    assert (quality["margin"], quality["confidence"]) == (MARGIN, 0.95)


def test_what_was_measured_is_told_with_its_interval_and_meter(folder: RunFolder) -> None:
    energy = export(folder)
    told = report(folder)
    assert (told["within_budget"], told["basis"]) == (True, "simulated")
    (finding,) = told["budgets"][0]["findings"]
    assert finding["figure"]["value"] == energy
    assert finding["figure"]["low"] == pytest.approx(energy * (1.0 - 0.01 * HALF_WIDTH))
    assert finding["figure"]["high"] == pytest.approx(energy * (1.0 + 0.01 * HALF_WIDTH))
    text = told["text"]
    assert "Met on the simulated device: no board has measured it" in text
    assert "10.0% under the budget" in text
    assert "onnxruntime:cpu (1 thread)" in text
    assert "-50.0%" in text
    assert "not exported" not in text
    assert [row["name"] for row in told["networks"]] == ["dense", "masked", "slim"]


@pytest.mark.parametrize(
    ("share", "meter", "kind", "words"),
    [
        (0.9, "virtual:tx2 (simulated)", "good", "Met on the simulated device: no board has measured it"),
        (0.9, "rail VDD_IN", "good", "Met: the budget held when measured"),
        (1.2, "rail VDD_IN", "bad", "Missed: the energy budget does not hold"),
        (1.2, "virtual:tx2 (simulated)", "bad", "Missed: the energy budget does not hold"),
    ],
)  # fmt: skip
def test_the_verdict_says_what_it_rests_on(
    folder: RunFolder, share: float, meter: str, kind: str, words: str
) -> None:
    export(folder, share, meter=meter)
    assert standing(folder) == (kind, words)


def test_without_a_meter_the_way_to_one_is_told(folder: RunFolder) -> None:
    exported(folder, folder.read_spec(), WIDTHS, energy_j=None)
    assert standing(folder)[0] == "unsure"
    told = report(folder)
    text = told["text"]
    assert told["within_budget"] is None
    assert "No meter told the energy of virtual:tx2" in text
    assert f"edgeecc export {folder.path} --trt" in text
    assert "no meter" in text


def test_counts_need_no_device(tmp_path: Path) -> None:
    spec, _ = small_network()
    folder = made_run(tmp_path / "runs" / "macs", spec, WIDTHS)
    told = report(folder)
    assert (told["within_budget"], told["basis"], told["calibrations"]) == (True, "counted", [])
    assert standing(folder) == ("good", "Met: the budget held by count")
    assert told["why"] == []
    exported(folder, spec, WIDTHS, energy_j=None)
    assert standing(folder) == ("good", "Met: the budget held by count")


def test_the_engine_of_the_device_decides(folder: RunFolder) -> None:
    changed(folder, "result.json", device="nvidia-a40:tensorrt:fp16")
    document = load_json(folder.file("result.json"))
    entry = {**document["budgets"][0], "device": "nvidia-a40:tensorrt:fp16"}
    changed(folder, "result.json", budgets=[entry])
    export(folder, 0.9, meter="rail VDD_IN")
    engine(folder, "fp32", "nvidia-a40:tensorrt:fp32", 1.3 * entry["value"])
    assert standing(folder)[0] == "good"  # of another precision than was asked
    engine(folder, "fp16", "nvidia-a40:tensorrt:fp16", 1.2 * entry["value"])
    assert standing(folder) == ("bad", "Missed: the energy budget does not hold")
    told = report(folder)
    by = [finding["by"] for finding in told["budgets"][0]["findings"]]
    assert by == ["engine fp16", "verify", "engine fp32"]
    assert [row["name"] for row in told["networks"]][-2:] == ["engine fp16", "engine fp32"]
    text = told["text"]
    for words in (
        "8 in fp16, 1 in fp32",
        "the timing cache was started anew",
        "power cap",
        "conv1",
    ):
        assert words in text
    assert any("--trt" in command for command in told["reproduce"]["commands"])


def test_an_engine_of_another_export_is_left_aside(folder: RunFolder) -> None:
    export(folder)
    folder.file("slim.onnx").write_bytes(b"present")
    engine(folder, "fp16", "nvidia-a40:tensorrt:fp16", 1.0, onnx_sha256="ab" * 32)
    told = report(folder)
    assert told["outdated"] == ["slim-fp16.engine"]
    assert "Left aside, as of an earlier result of this run: slim-fp16.engine" in told["text"]


def test_an_export_of_an_earlier_result_is_left_aside(folder: RunFolder) -> None:
    export(folder)
    engine(folder, "fp16", "nvidia-a40:tensorrt:fp16", 1.0)
    document = load_json(folder.file("result.json"))
    document["accuracy"] = 0.5
    folder.file("result.json").write_text(json.dumps(document))
    told = report(folder)
    assert told["outdated"] == ["report.json", "verify.json", "slim-fp16.engine"]
    assert (told["within_budget"], told["basis"]) == (None, "predicted")


def test_rounds_of_fitting_are_listed(folder: RunFolder) -> None:
    entry = load_json(folder.file("result.json"))["budgets"][0]
    row = {
        "metric": "energy",
        "measured": 1.2e-3,
        "standard_error": 1e-5,
        "meter": "m",
        "budget": entry["value"],
    }
    rounds = [
        {"round": n, "budgets": [row], "accuracy": None, "removed": n, "returned": 0} for n in (0, 1)
    ]  # fmt: skip
    fit = {
        "rounds": rounds, "chosen": 1, "holds": False, "confidence": 0.95, "reason": "rounds are spent",
        "finetune_steps": 7,
    }  # fmt: skip
    changed(folder, "result.json", fit_budget=fit)
    export(folder)
    told = report(folder)
    assert [one["chosen"] for one in told["rounds"]] == [False, True]
    text = told["text"]
    assert "round 1 does NOT hold it with 0.95 confidence (rounds are spent), then 7 steps" in text
    assert "1.2 ± 0.01 mJ (s.e.)" in text
    assert "--fit-budget" in told["reproduce"]["commands"][1]
    assert "--profile" not in told["reproduce"]["commands"][0]


def test_the_latest_run_is_taken(
    home: Path, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    other = Path(shutil.copytree(folder.path, home / "runs" / "other"))
    os.utime(other / "run.json", (2e9, 2e9))
    monkeypatch.chdir(home)
    assert run("report").stdout == "runs/other/report.html\n"
    os.utime(folder.file("run.json"), (3e9, 3e9))
    assert find_folder(None, None, "virtual:tx2", Path()) == Path("runs/first")


def test_a_run_may_be_the_working_directory(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.path)
    told = report(RunFolder(find_folder(Path(), None, "virtual:tx2", Path())))
    assert told["reproduce"]["commands"][0].endswith("--run first-again")
    assert "Run first." in told["text"]


def test_a_run_with_the_profile_of_the_first_version_is_a_run(folder: RunFolder) -> None:
    pytest.importorskip("matplotlib")
    folder.file("profile-energy.json").rename(folder.file("profile.json"))
    document = load_json(folder.file("result.json"))
    document.pop("budgets")
    folder.file("result.json").write_text(json.dumps(document))
    told = report(folder)
    assert told["budgets"][0]["dense"] == document["dense"]["cost"]


def test_the_same_run_gives_the_same_page(folder: RunFolder) -> None:
    export(folder)
    drawn(folder)
    first = folder.file("report.html").read_bytes()
    drawn(folder)
    assert folder.file("report.html").read_bytes() == first


def test_a_calibration_elsewhere_is_not_shown(home: Path, folder: RunFolder) -> None:
    shutil.rmtree(home / "calibration")
    told = report(folder)
    assert told_of(read_run_files(folder), home).near[0].evidence is None
    assert "not at hand, so its samples are not shown" in told["text"]


def test_another_calibration_of_the_network_is_not_taken(home: Path, folder: RunFolder) -> None:
    path = home / "calibration" / "virtual-tx2" / "small" / "profile.json"
    document = load_json(path)
    document["seed"] = 7
    path.write_text(json.dumps(document))
    assert "not at hand" in report(folder)["text"]


def test_a_damaged_calibration_is_no_fault_of_the_run(home: Path, folder: RunFolder) -> None:
    (home / "calibration" / "virtual-tx2" / "small" / "samples.db").write_bytes(b"no database" * 99)
    told = report(folder)
    assert "The samples of the calibration are not shown" in told["text"]


def test_options_of_calibrations_are_refused(folder: RunFolder) -> None:
    assert "--seed goes with calibrations" in complaint("report", folder.path, "--seed", 1, code=2)


def test_without_matplotlib_one_line_says_so(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install 'edgeecc[report]'" in complaint("report", folder.path)
    assert not folder.has("report.html")


def hostile(folder: RunFolder) -> str:
    """Put names that would do harm into every file that tells names; return the spec's network."""
    bad = '</script><img src="http://evil/x" onerror=alert(1)>$\\frac{&"\u4f60'
    spec = chain_spec([8, 8], groups=bad)
    made_run(folder.path, spec, {f"{bad}0": 3, f"{bad}1": 5})
    changed(
        folder,
        "run.json",
        source={"network": bad, "input_shape": [3, 8, 8]},
        made_by={"torch": bad},
    )
    changed(folder, "result.json", method=bad, status=bad)
    values = {bad: 1.0, "gap": 0.5}
    steps = [{"step": n, "loss": 1.0, "cost": 1.0, "values": {**values, bad: n}} for n in (1, 2)]
    changed(folder, "history.json", prune=steps, course={})
    return bad


def test_names_are_escaped(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "hostile")
    bad = hostile(folder)
    exported(folder, folder.read_spec(), {f"{bad}0": 3, f"{bad}1": 5}, energy_j=None)
    found = Page.of(drawn(folder)["report"])
    assert "value-0" in found.charts()
    assert found.text.count("<img src=") >= 5


def test_deep_networks_with_long_names_stay_readable(tmp_path: Path) -> None:
    spec = chain_spec([16] * 160, groups="features.stage.block.conv")
    widths = {group.name: 1 + at % 16 for at, group in enumerate(spec.prunable)}
    told = drawn(made_run(tmp_path / "runs" / "deep", spec, widths))
    text = Page.of(told["report"]).text
    assert "The 150 largest of 160" in text
    assert Path(told["report"]).stat().st_size < 3e6


Damage = Callable[[RunFolder], None]


def field(name: str, **fields: object) -> Damage:
    return lambda folder: changed(folder, name, **fields)


def within(name: str, key: str, **fields: object) -> Damage:
    """Change fields of an object, or of the first one of a list, in a file."""

    def damage(folder: RunFolder) -> None:
        inner: Any = load_json(folder.file(name))[key]
        if isinstance(inner, list):
            changed(folder, name, **{key: [{**inner[0], **fields}, *inner[1:]]})
        else:
            changed(folder, name, **{key: {**inner, **fields}})

    return damage


def gone(name: str) -> Damage:
    return lambda folder: folder.file(name).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (gone("result.json"), "is not finished; give the edgeecc prune command again"),
        (gone("run.json"), "holds neither run.json nor profile.json"),
        (gone("spec.json"), "cannot read"),
        (gone("keep.json"), "cannot read"),
        (gone("profile-energy.json"), "keeps no cost model of its energy"),
        (field("spec.json", spec=3), "holds no spec"),
        (field("spec.json", spec={"network": 3}), "are damaged: "),
        (field("keep.json", keep={"c1": [0], "c2": [0, 99]}), "are damaged: kept channels of group c2"),
        (field("run.json", source=7), "source in"),
        (within("run.json", "request", steps="many"), "steps in"),
        (within("run.json", "request", training=[1]), "training in"),
        (within("run.json", "source", normalisation={"mean": 1}), "normalisation {'mean': 1}"),
        (within("result.json", "budget", value=-1.0), "a budget in"),
        (within("result.json", "budgets", cost="dear"), "cost in"),
        (field("result.json", budgets="none"), "budgets in"),
        (within("report.json", "networks", scores={"top-1": None}), "top-1 in"),
        (field("result.json", fit_budget=BAD_ROUND), "is of 'x'"),
        (field("history.json", prune=[3]), "prune in"),
        (field("history.json", prune=[{"step": 1}]), "loss in"),
        (field("history.json", prune=[{"step": 1, "loss": 1e200}]), "is 1e+200; the file is damaged"),
        (within("run.json", "request", margin=-1.0), "margin in"),
        (within("keep.json", "keep", c1=[10**30]), "no lists of units"),
        (field("history.json", finetune={"step": [1], "loss": []}), "finetune in"),
        (field("history.json", course={"groups": ["a"], "step": [1], "s": [[1, 2]], "y": [[1]]}), "s in"),
        (field("history.json", course={"groups": ["a"], "step": [1, 2], "s": [[1]], "y": [[1]]}), "course in"),
        (field("verify.json", budgets=[{"metric": "energy", "value": 1.0}]), "judges another energy budget"),
        (field("verify.json", energy_j=1.0, meter=None), "tells energy without its meter"),
        (field("report.json", networks=[{"network": "dense", "accuracy": 1.0}]), "images in"),
        (field("report.json", networks={}), "networks"),
        (field("slim-fp16.engine.json", budgets=4), "budgets in"),
        (field("slim-fp16.engine.json", onnxruntime_relative="x"), "onnxruntime_relative in"),
        (lambda f: f.file("history.json").write_text("{"), "is damaged"),
        (lambda f: f.file("verify.json").write_text("[]"), "holds no JSON object"),
        (lambda f: f.file("slim-fp16.engine.json").write_text("{}"), "has schema None"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_one_line(folder: RunFolder, damage: Damage, message: str) -> None:
    pytest.importorskip("matplotlib")
    export(folder)
    engine(folder, "fp16", "nvidia-a40:tensorrt:fp16", 1.0)
    damage(folder)
    assert message in complaint("report", folder.path)
    assert not folder.has("report.html")


def test_a_folder_that_cannot_be_written_is_one_line(folder: RunFolder) -> None:
    pytest.importorskip("matplotlib")
    folder.file("report.html").mkdir()
    assert "cannot write" in complaint("report", folder.path)


def test_a_run_that_keeps_no_request_says_so(folder: RunFolder) -> None:
    changed(folder, "run.json", request={"kind": "channels"})
    told = report(folder)
    assert told["reproduce"]["commands"] == []
    assert "cannot be made again from its files" in told["text"]


def test_files_are_checked_before_charts_are_drawn(folder: RunFolder) -> None:
    folder.file("history.json").write_text("{")
    with pytest.raises(ArtifactError, match="is damaged"):
        read_run_files(folder)
