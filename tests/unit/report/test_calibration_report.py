"""The report of a calibration: its numbers, its page, and what it refuses."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeecc.artifacts import load_json, write_json
from edgeecc.calibrate import Job, calibrate
from edgeecc.config import CalibrateConfig, MeasureProtocol, ReportConfig
from edgeecc.cost.profile import SCHEMA, Profile
from edgeecc.cost.receipt import receipt
from edgeecc.cost.samples import SampleStore
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.report.calibration_charts import calibration_charts, costliest_parts
from edgeecc.report.calibration_page import page
from edgeecc.report.evidence import read_evidence
from edgeecc.report.figures import FIXED, Owned, work_out
from edgeecc.run_folder import SPEC_SCHEMA
from tests.cli_runs import complaint, run, run_json
from tests.report_runs import Page, check_page
from tests.unit.test_calibrate import small_network

pytestmark = pytest.mark.device
CHARTS = ["predicted", "samples", "coefficients"]
QUICK = ReportConfig(resamples=40)


@pytest.fixture(scope="module")
def network() -> tuple:
    return small_network()


def calibrated(network: tuple, folder: Path, like: Any = None, **config: object) -> Path:
    spec, model = network
    write_json(folder / "spec.json", SPEC_SCHEMA, {"spec": spec.to_json()})
    wanted = CalibrateConfig(**{"samples": 80, "target_error": 0.0, **config})
    calibrate(Job(spec, model, "virtual:tx2", folder), wanted, MeasureProtocol(), like=like)
    return folder


@pytest.fixture(scope="module")
def finished(network: tuple, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "calibration" / "virtual-tx2" / "small"
    return calibrated(network, folder, model="bilinear+linear+tiles:8")


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "small"))


def change(folder: Path, **fields: object) -> None:
    document = load_json(folder / "profile.json")
    write_json(folder / "profile.json", SCHEMA, {**document, **fields})


def test_the_curve_ends_in_the_error_of_the_profile(finished: Path) -> None:
    figures = work_out(read_evidence(finished), QUICK)
    heldout = Profile.load(finished / "profile.json").heldout
    assert heldout is not None
    assert figures.curve[-1].error == pytest.approx(heldout.mean)
    assert figures.curve[-1].samples == 52  # of the first forty half, then one of five


def test_parts_add_up_to_what_the_dense_network_costs(finished: Path) -> None:
    evidence = read_evidence(finished)
    parts = work_out(evidence, QUICK).parts
    dense = receipt(evidence.profile.model, evidence.spec, evidence.spec.dense_widths())
    assert sum(part.value for part in parts) == pytest.approx(dense.dense)
    assert [part.name for part in parts] == [*(part.name for part in dense.parts), FIXED]
    assert [part.name for part in parts][:3] == [layer.name for layer in evidence.spec.layers]
    for part in parts:
        assert part.value == pytest.approx(sum(one.value for one in part.terms))
        assert 0.0 <= part.interval.low <= part.interval.high


def test_only_samples_that_the_profile_used_count(folder: Path, network: tuple) -> None:
    before = read_evidence(folder)
    kept = (folder / "profile.json").read_bytes()
    calibrated(network, folder, model="bilinear+linear+tiles:8", samples=100)
    (folder / "profile.json").write_bytes(kept)
    after = read_evidence(folder)
    assert np.array_equal(before.known, after.known)
    assert np.array_equal(before.truth, after.truth)


def test_offsets_of_boards_are_divided_out(folder: Path) -> None:
    before = read_evidence(folder)
    with sqlite3.connect(folder / "samples.db") as db:
        db.execute("UPDATE samples SET board = 'a', value = value * 1.25 WHERE number % 2 = 0")
        db.execute("UPDATE samples SET board = 'b', value = value * 0.8 WHERE number % 2 != 0")
    offset = {"samples": 40, "standard_error": 0.01}
    change(folder, boards={"a": {**offset, "offset": 1.25}, "b": {**offset, "offset": 0.8}})
    after = read_evidence(folder)
    assert after.told == pytest.approx(before.told)
    pytest.importorskip("matplotlib")
    run_json("report", folder, "--resamples", 40)
    assert "1.2500 ± 0.0100" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_page_stands_by_itself(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    change(folder, target_error=0.05)
    told = run_json("report", folder, "--resamples", 40)
    assert told["meter"] == "virtual:tx2 (simulated)"
    assert told["charts"] == CHARTS
    found = Page.of(told["report"])
    check_page(found)
    assert found.charts() == CHARTS
    for words in ("virtual:tx2 (simulated)", "bilinear+linear+tiles:8", "52 fitted, 28 held out", "i-optimal",
                  "for 0.95 confidence", "dense network", "predicted"):  # fmt: skip
        assert words in found.text
    assert len(told["predicted"]["fitted"]) == 52
    assert len(told["predicted"]["heldout"]) == 28
    assert told["error_by_samples"][-1]["error"] == pytest.approx(told["heldout_error"]["mean"])
    assert told["target_error"] == 0.05
    assert [one["name"] for one in told["coefficients"]][-1] == FIXED


def test_the_same_samples_give_the_same_files(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    written = []
    for _ in range(2):
        assert run("report", folder, "--resamples", 40).stdout == f"{folder}/report.html\n"
        written.append((folder / "report.html").read_bytes())
    assert written[0] == written[1]


def test_a_calibration_is_found_by_its_network(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    workspace = Path(shutil.copytree(finished.parents[2], tmp_path / "workspace"))
    folder = workspace / "calibration" / "virtual-tx2" / "small"
    told = run_json("report", "--network", "small", "--workspace", workspace, "--resamples", 40)
    assert told["report"] == str(folder / "report.html")


def test_names_are_escaped(finished: Path) -> None:
    pytest.importorskip("matplotlib")
    bad = '<img src="http://evil/x" onerror=alert(1)>$\\frac{&"\u0000\u4f60'
    figures = work_out(read_evidence(finished), QUICK)
    first = figures.parts[0]
    parts = [
        Owned(bad, bad, first.value, first.interval, tuple(replace(one, term=bad) for one in first.terms)),
        *figures.parts[1:],
    ]  # fmt: skip
    profile = replace(
        figures.evidence.profile, network=bad, device=bad, meter=bad, design=bad,
        boards={bad: {"samples": 1, "offset": 1.0, "standard_error": 0.0}},
    )  # fmt: skip
    hostile = replace(figures, parts=parts, evidence=replace(figures.evidence, profile=profile))
    found = Page(page(hostile, calibration_charts(hostile)))
    check_page(found)
    assert found.charts() == CHARTS
    assert found.text.count("<img src=") >= 5


def test_deep_networks_stay_readable(finished: Path) -> None:
    pytest.importorskip("matplotlib")
    figures = work_out(read_evidence(finished), QUICK)
    parts = [replace(figures.parts[0], name=f"layer{n}", value=float(n)) for n in range(400)]
    few = costliest_parts(parts)
    assert [part.name for part in few] == [f"layer{n}" for n in range(250, 400)]
    chart = calibration_charts(replace(figures, parts=parts))[-1]
    assert "The 150 that cost most" in chart.words
    assert float(chart.svg.partition('viewBox="')[2].partition('"')[0].split()[3]) > 18.0 * len(few)
    found = Page(page(replace(figures, parts=parts), [chart]))
    assert ("div", "scrolls") in [
        (tag, (told.get("aria-label") or "").split(", ")[-1]) for tag, told in found.tags
    ]


def test_a_profile_towards_another_needs_it(network: tuple, tmp_path: Path) -> None:
    other = calibrated(network, tmp_path / "other", samples=400)
    like = Profile.load(other / "profile.json")
    for seed in range(1, 6):
        folder = calibrated(network, tmp_path / f"own{seed}", like=like, samples=12, seed=seed)
        if Profile.load(folder / "profile.json").fit == "like":
            break
    else:
        pytest.fail("no profile was fitted towards the other")
    evidence = read_evidence(folder)
    with pytest.raises(ConfigError, match="give --like PROFILE"):
        work_out(evidence, QUICK)
    figures = work_out(evidence, QUICK, like=like)
    assert figures.curve[-1].error == pytest.approx(evidence.profile.heldout.mean)
    with pytest.raises(ConfigError, match="not towards another; leave out --like"):
        work_out(read_evidence(other), QUICK, like=like)


@pytest.mark.parametrize("name", ["profile.json", "samples.db", "spec.json"])
def test_missing_files_are_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=f"holds no {name}; name the folder of a calibration"):
        read_evidence(folder)


def test_a_store_is_only_read(folder: Path, tmp_path: Path) -> None:
    before = (folder / "samples.db").read_bytes()
    read_evidence(folder)
    assert (folder / "samples.db").read_bytes() == before
    with pytest.raises(ArtifactError, match=r"cannot read .*none\.db"):
        SampleStore(tmp_path / "none.db", {}, read_only=True)
    assert not os.path.exists(tmp_path / "none.db")
    with SampleStore(folder / "samples.db", {}, read_only=True) as store:
        rows = store.rows()
        with pytest.raises(ArtifactError, match="readonly"):
            store.add([replace(rows[0], number=5000)])


@pytest.mark.parametrize(("statement", "message"), [
    ("DELETE FROM samples WHERE number = 2", "51 train samples of 52 that the profile tells"),
    ("DELETE FROM samples", "0 train samples of 52"),
    ("UPDATE samples SET value = 2 * value WHERE number = 1", "holds other held-out samples"),
    ("UPDATE samples SET value = 9 * value WHERE number % 4 = 0 AND number < 40", "a fit of its samples errs by"),
    ("UPDATE samples SET widths = '[1]' WHERE number = 2", "sample 2 is no measured variant of small"),
    ("UPDATE samples SET widths = '[1, 99]' WHERE number = 2", "sample 2 is no measured variant of small"),
    ("UPDATE samples SET value = -1.0 WHERE number = 2", "sample 2 is no measured variant of small"),
    ("UPDATE samples SET widths = 'x' WHERE number = 2", "damaged"),
    ("UPDATE identity SET value = '7' WHERE key = 'seed'", "holds samples with seed 7, not 0"),
    ("DROP TABLE samples", "damaged"),
])  # fmt: skip
def test_samples_of_something_else_are_refused(folder: Path, statement: str, message: str) -> None:
    with sqlite3.connect(folder / "samples.db") as db:
        db.execute(statement)  # below forty, odd numbers are held out
    with pytest.raises(ArtifactError, match=message):
        work_out(read_evidence(folder), QUICK)


def test_a_damaged_store_is_one_line(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    (folder / "samples.db").write_bytes(b"this is no database" * 200)
    assert "damaged" in complaint("report", folder)


def test_a_fit_of_nobody_here_is_refused(folder: Path) -> None:
    change(folder, fit="published")
    with pytest.raises(ConfigError, match="fitted by 'published', which cannot be done again"):
        work_out(read_evidence(folder), QUICK)


def test_another_network_is_refused(folder: Path) -> None:
    spec, _ = small_network((8, 9))
    write_json(folder / "spec.json", SPEC_SCHEMA, {"spec": spec.to_json()})
    with pytest.raises(ArtifactError, match="profile is of another network"):
        read_evidence(folder)


def test_profiles_without_ratios_have_a_report(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    change(folder, ratios=[], design="", heldout_error=None)
    told = run_json("report", folder, "--resamples", 40)
    assert told["margin"] == {"share": 0.0, "confidence": None}


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "no run in runs; make one with edgeecc prune"),
    (["here", "--network", "small"], "both a folder and --network are given"),
    (["--network", "small", "--device", "toaster"], "unknown device 'toaster'"),
    (["--network", "small"], "holds no profile.json"),
    (["here"], "here holds neither run.json nor profile.json"),
    (["--network", "small", "--resamples", "3"], "3 resamples must be 40"),
    (["--network", "small", "--seed", "-1"], "seed -1 must lie in"),
])  # fmt: skip
def test_wrong_requests_are_one_line(workspace: Path, arguments: list, message: str) -> None:
    pytest.importorskip("matplotlib")
    assert message in complaint("report", *arguments)


def test_confidence_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="confidence 1.0 must lie in"):
        ReportConfig(confidence=1.0)


def test_without_matplotlib_one_line_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install 'edgeecc[report]'" in complaint("report", folder)
    assert not (folder / "report.html").exists()
