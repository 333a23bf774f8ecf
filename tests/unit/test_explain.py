"""Explaining a run: its own files priced again, every file that may be wrong, and what the command prints."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np
import pytest

from edgeecc.artifacts import load_json
from edgeecc.cost.exact import mac_cost
from edgeecc.cost.forms import Form
from edgeecc.cost.product import ProductModel
from edgeecc.cost.profile import Profile
from edgeecc.cost.terms import spec_groups
from edgeecc.errors import ArtifactError, EdgeeccError
from edgeecc.explain import explain
from edgeecc.run_folder import (
    REPORT_SCHEMA,
    RESULT_SCHEMA,
    RUN_SCHEMA,
    VERIFY_SCHEMA,
    RunFolder,
    profile_name,
)
from edgeecc.units import Metric
from tests.chains import chain_spec
from tests.cli_runs import complaint, run, run_json

pytestmark = pytest.mark.device
SPEC = chain_spec([32, 16])
WIDTHS = {"g0": 9, "g1": 16}
LEFT = SPEC.vector(WIDTHS)
FORM = Form(linear=True, tile=8)


def model_of(metric: Metric, fixed: float = 1e-3) -> ProductModel:
    terms = FORM.terms(SPEC)
    return ProductModel(
        metric, f"model of {metric.value}", groups=spec_groups(SPEC), terms=terms,
        coefficients=1e-3 * np.arange(1, len(terms) + 1), constant=fixed,
    )  # fmt: skip


def profile_of(metric: Metric) -> Profile:
    return Profile(
        "chain", "somewhere", SPEC.fingerprint(), model_of(metric), FORM.text, "nnls", "a meter", None, {}
    )  # fmt: skip


def told(metric: Metric, cost: float) -> Dict[str, object]:
    device = "somewhere" if metric in (Metric.ENERGY, Metric.LATENCY) else ""
    return {
        "metric": metric.value, "unit": metric.unit, "text": "60%", "value": 1.5 * cost, "cost": cost, "device": device,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Return a run of budgets in joules and MACs that was not exported."""
    made = RunFolder(tmp_path / "runs" / "chain")
    made.path.mkdir(parents=True)
    made.write_json("run.json", RUN_SCHEMA, {"request": {"kind": "channels"}})
    made.write_spec(SPEC)
    made.write_keep(SPEC.keep_first(WIDTHS))
    profile_of(Metric.ENERGY).save(made.file(profile_name(Metric.ENERGY)))
    energy = told(Metric.ENERGY, model_of(Metric.ENERGY).predict(LEFT))
    macs = told(Metric.MACS, mac_cost(SPEC).predict(LEFT))
    result = {**energy, "budget": energy, "budgets": [energy, macs]}
    made.write_json("result.json", RESULT_SCHEMA, result)
    return made


def changed(folder: RunFolder, name: str, **fields: object) -> None:
    """Write fields of a file anew."""
    document = load_json(folder.file(name))
    document.update(fields)
    folder.file(name).write_text(json.dumps(document))


def exported(folder: RunFolder, energy_j: Optional[float] = 0.01) -> None:
    """Write what export and verify leave."""
    figures = {"energy_j": energy_j, "meter": "a meter", "latency_s": 2e-3, "latency_meter": "a clock"}  # fmt: skip
    dense = {**figures, "network": "dense", "latency_s": 5e-3}
    if energy_j is not None:
        dense["energy_j"] = 3.0 * energy_j
    rows = [dense, {**figures, "network": "masked"}, {**figures, "network": "slim"}]
    folder.write_json("report.json", REPORT_SCHEMA, {"networks": rows})
    folder.write_json("verify.json", VERIFY_SCHEMA, {**figures, "latency_s": 3e-3})


def test_after_prune_alone_every_budget_is_told_by_its_model(folder: RunFolder) -> None:
    found = explain(folder)
    energy, macs = found["budgets"]
    model = model_of(Metric.ENERGY)
    assert (energy["slim"], energy["meter"]) == (model.predict(LEFT), "model of energy")
    assert energy["dense"] == model.predict(SPEC.vector(SPEC.dense_widths()))
    assert energy["fixed"] == 1e-3
    assert energy["padding_slim"] > energy["padding_dense"] == 0.0
    assert (energy["measured"], energy["device"], energy["text"]) == ([], "somewhere", "60%")
    assert sum(cause["excess"] for cause in energy["causes"]) == pytest.approx(energy["gap"])
    assert sum(part["saving_share"] for part in energy["parts"]) == pytest.approx(1.0)
    assert (macs["meter"], macs["causes"], macs["gap"]) == ("exact count", [], 0.0)
    assert found["macs"] == {key: macs[key] for key in ("dense", "slim", "share", "meter")}
    assert found["widths"] == {"g0": [9, 32], "g1": [16, 16]}
    first, second, last = found["layers"]
    assert (first["channels_dense"], first["channels_slim"]) == ([3, 32], [3, 9])
    assert (second["channels_dense"], second["channels_slim"]) == ([32, 16], [9, 16])
    assert (last["macs_dense"], last["macs_slim"]) == (9 * 64 * 160, 9 * 64 * 160)
    assert first["macs_slim"] == pytest.approx(9 * 64 * 3 * 9)
    json.dumps(found, allow_nan=False)


def test_a_network_that_keeps_all_saves_nothing(folder: RunFolder) -> None:
    folder.write_keep(SPEC.keep_all())
    dense = SPEC.vector(SPEC.dense_widths())
    changed(folder, "result.json", budgets=[], cost=model_of(Metric.ENERGY).predict(dense))
    (energy,) = explain(folder)["budgets"]
    assert {part["saving_share"] for part in energy["parts"]} == {None}
    assert (energy["share"], energy["gap"]) == (1.0, 0.0)
    assert "energy to 100.0%" in run("explain", folder.path).stdout


def test_measured_figures_stand_beside_with_their_meters(folder: RunFolder) -> None:
    exported(folder)
    assert explain(folder)["budgets"][0]["measured"] == [
        {"by": "export", "dense": 0.03, "slim": 0.01, "meter": "a meter"},
        {"by": "verify", "dense": None, "slim": 0.01, "meter": "a meter"},
    ]
    assert explain(folder)["budgets"][1]["measured"] == []


def test_figures_of_two_meters_are_not_put_together(folder: RunFolder) -> None:
    exported(folder)
    rows: Any = load_json(folder.file("report.json"))["networks"]
    rows[0]["meter"] = "another meter"
    changed(folder, "report.json", networks=rows)
    by_export, _ = explain(folder)["budgets"][0]["measured"]
    assert (by_export["dense"], by_export["slim"]) == (None, 0.01)


def test_where_nothing_measured_energy_only_the_model_tells(folder: RunFolder) -> None:
    exported(folder, energy_j=None)
    assert explain(folder)["budgets"][0]["measured"] == []


def test_latency_has_its_own_model_and_meter(folder: RunFolder) -> None:
    exported(folder)
    profile_of(Metric.LATENCY).save(folder.file(profile_name(Metric.LATENCY)))
    latency = told(Metric.LATENCY, model_of(Metric.LATENCY).predict(LEFT))
    energy = told(Metric.ENERGY, model_of(Metric.ENERGY).predict(LEFT))
    changed(folder, "result.json", budgets=[latency, energy])
    found = explain(folder)["budgets"]
    assert [each["meter"] for each in found] == ["model of latency", "model of energy"]
    assert [(each["slim"], each["meter"]) for each in found[0]["measured"]] == [
        (2e-3, "a clock"),
        (3e-3, "a clock"),
    ]


def test_a_run_of_the_first_version_keeps_one_profile(folder: RunFolder) -> None:
    folder.file(profile_name(Metric.ENERGY)).rename(folder.file("profile.json"))
    document = load_json(folder.file("result.json"))
    del document["budgets"]
    folder.file("result.json").write_text(json.dumps(document))
    (energy,) = explain(folder)["budgets"]
    assert energy["slim"] == model_of(Metric.ENERGY).predict(LEFT)


def another_model(folder: RunFolder) -> None:
    profile = profile_of(Metric.ENERGY)
    model = model_of(Metric.ENERGY, fixed=2e-3)
    Profile(**{**vars(profile), "model": model}).save(folder.file(profile_name(Metric.ENERGY)))


def no_prices(folder: RunFolder) -> None:
    path = folder.file(profile_name(Metric.ENERGY))
    document: Any = load_json(path)
    document["model"]["constant"] = 0.0
    for term in document["model"]["terms"]:
        term["coefficient"] = 0.0
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: f.drop(["run.json"]), "is no run folder"),
        (lambda f: f.drop(["result.json"]), "is not finished; give the edgeecc prune command"),
        (lambda f: f.drop(["keep.json"]), "cannot read"),
        (lambda f: f.drop(["spec.json"]), "cannot read"),
        (lambda f: f.drop(["profile-energy.json"]), "keeps no cost model of its energy"),
        (lambda f: changed(f, "run.json", request={"kind": "weights"}), "removed single weights"),
        (lambda f: changed(f, "keep.json", keep={"g0": [0, 99], "g1": [0]}), "must lie in 0..31"),
        (lambda f: changed(f, "result.json", budgets=[], budget=3), "names no budget"),
        (lambda f: changed(f, "result.json", budgets=[], cost=None), "cost in"),
        (lambda f: changed(f, "result.json", budgets=[], cost=1.0), "are of different runs"),
        (another_model, "are of different runs; run edgeecc prune again"),
        (no_prices, "costs 0.0 J by model of energy"),
        (
            lambda f: profile_of(Metric.LATENCY).save(f.file("profile-energy.json")),
            "predicts latency, the budget is of energy",
        ),
        (
            lambda f: changed(f, "profile-energy.json", fingerprint="0"),
            "this profile is of another network",
        ),
        (lambda f: changed(f, "report.json", networks=3), "lists no networks"),
        (lambda f: changed(f, "report.json", networks=["slim"]), "lists no networks"),
        (lambda f: changed(f, "verify.json", meter=None), "tells energy without its meter"),
        (lambda f: changed(f, "verify.json", energy_j="much"), "energy in"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(folder: RunFolder, damage: Any, said: str) -> None:
    exported(folder)
    damage(folder)
    assert said in complaint("explain", folder.path)
    with pytest.raises(EdgeeccError, match=said.replace("(", r"\(").replace(".", r"\.")):
        explain(folder)


def test_the_command_prints_tables_and_words(folder: RunFolder) -> None:
    exported(folder)
    printed = run("explain", folder.path).stdout
    lines = printed.splitlines()
    assert "energy of chain, model of energy" in printed
    assert "macs of chain, exact count" in printed
    assert "why energy did not fall as MACs did" in printed
    assert "why macs did not" not in printed
    rows = {line.split("│")[1].strip(): line for line in lines if line.startswith("│")}
    assert "32x16 -> 9x16" in rows["layer1"]
    assert "32 -> 9" in rows["g0"]
    for name in ("fixed cost", "tiles that are not full", "what passes over channels"):
        assert name in rows
    words = next(line for line in lines if line.startswith("fell "))
    assert "(exact count)" in words
    assert "(model of energy)" in words
    assert any("30 mJ -> 10 mJ (a meter)" in line for line in lines)
    assert any("places in tiles that no channel fills" in line for line in lines)


def test_layers_that_stay_whole_are_said_to(folder: RunFolder) -> None:
    whole = SPEC.with_whole({"g0": "a view counts it"})
    folder.write_spec(whole)
    folder.write_keep(whole.keep_first({"g1": 4}))
    cost = mac_cost(whole).predict(np.array([4.0]))
    folder.write_json("result.json", RESULT_SCHEMA, {"budget": told(Metric.MACS, cost), "cost": cost})  # fmt: skip
    printed = run("explain", folder.path).stdout
    (row,) = [line for line in printed.splitlines() if "layer0" in line]
    assert "conv, whole" in row
    assert "padding" not in printed


def test_without_a_name_it_is_the_latest_run(folder: RunFolder) -> None:
    other = folder.path.parent / "other"
    other.mkdir()
    (other / "run.json").write_text("{}")
    os.utime(other / "run.json", (1.0, 1.0))
    workspace = folder.path.parents[1]
    assert run_json("explain", "--workspace", workspace) == run_json("explain", folder.path)
    said = complaint("explain", "--workspace", workspace / "none")
    assert "no run in" in said


def test_a_metric_that_no_run_of_channels_has(folder: RunFolder) -> None:
    changed(folder, "result.json", budgets=[], budget=told(Metric.ACCESSES, 1.0))
    with pytest.raises(ArtifactError, match="keeps no cost model of its accesses"):
        explain(folder)
