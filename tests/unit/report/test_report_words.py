"""Why costs fell as they did, against counting by hand; the course of a run; and the commands that make it again."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.artifacts import load_json
from edgeecc.cli.main import cli
from edgeecc.cost.forms import Form
from edgeecc.cost.profile import Profile
from edgeecc.errors import ArtifactError
from edgeecc.explain import explain
from edgeecc.graph.spec import NetworkSpec
from edgeecc.report.course import course_of
from edgeecc.report.reproduce import recipe_of
from edgeecc.report.run_files import read_run_files
from edgeecc.report.why import Gap, gaps_of
from edgeecc.run_folder import RunFolder
from edgeecc.units import Metric
from tests.chains import chain_spec
from tests.report_runs import MARGIN, REQUEST, TRAINING, changed, made_run, profile_of
from tests.unit.test_calibrate import small_network

pytestmark = pytest.mark.device
TILE = 8


def gap(path: Path, spec: NetworkSpec, widths: Mapping[str, int], profile: Profile) -> Gap:
    folder = made_run(path, spec, widths, profile=profile)
    (found,) = gaps_of(explain(folder), spec, {Metric.ENERGY: profile.model.tile})
    return found


@given(
    st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=4),
    st.floats(0.0, 0.1),
)
def test_points_of_layers_and_of_causes_add_up_to_the_gap(
    tmp_path_factory: pytest.TempPathFactory, pruned: list, fixed: float
) -> None:
    spec = chain_spec([max(pair) for pair in pruned])
    widths = {group.name: min(pair) for group, pair in zip(spec.prunable, pruned)}
    profile = profile_of(spec, Form(linear=True, tile=TILE), fixed)
    found = gap(tmp_path_factory.mktemp("gap") / "run", spec, widths, profile)
    model = profile.model
    dense, slim = (model.predict(spec.vector(each)) for each in (spec.dense_widths(), widths))
    points = 100.0 * (slim / dense - found.mac_share)
    assert sum(found.causes.values()) == pytest.approx(points, abs=1e-9)
    of_fixed = 100.0 * (1.0 - found.mac_share) * fixed / dense
    assert sum(part.points for part in found.layers) + of_fixed == pytest.approx(points, abs=1e-9)
    assert all(part.why for part in found.layers)


def whys(found: Gap) -> Dict[str, str]:
    return {part.name: part.why for part in found.layers}


def test_each_layer_is_told_its_own_cause(tmp_path: Path) -> None:
    spec = chain_spec([32, 16], size=8)
    widths = {"g0": 9, "g1": 16}
    tiled = gap(tmp_path / "tiled", spec, widths, profile_of(spec, Form(tile=TILE), 0.0))
    words = r"; tile steps: 9 x 16 channels work as whole tiles of 8, \d+% of its cost$"
    assert re.search(words, whys(tiled)["layer1"])  # 9 run as 16
    plain = gap(tmp_path / "plain", spec, widths, profile_of(spec, Form(linear=True), 0.0))
    assert whys(plain)["g0"] == "memory: falls with channels, not with their product"
    assert whys(plain)["layer2"].startswith("kept 100% of its MACs, the network")
    assert whys(plain)["layer0"].startswith("fell further than the network: kept 28%")
    free = gap(tmp_path / "free", spec, widths, profile_of(spec, Form(), 0.0, [0.0, 1.0, 1.0]))
    assert whys(free)["layer0"] == "the model charges it nothing"
    same = gap(tmp_path / "same", spec, {"g0": 32, "g1": 16}, profile_of(spec, Form(), 1.0))
    assert set(whys(same).values()) == {"kept as much of its MACs as the network"}


def test_sentences_begin_with_the_largest_cause(tmp_path: Path) -> None:
    spec = chain_spec([32, 16])
    found = gap(
        tmp_path / "run", spec, {"g0": 4, "g1": 4}, profile_of(spec, Form(linear=True), 0.05)
    )
    head, first, *_ = found.words
    assert head.startswith("MACs fell to ")
    assert "points less." in head
    assert first.startswith("Fixed cost, +")
    assert "50 mJ of what is left is paid by every inference" in first


def test_macs_a_byte_are_counted_by_hand(tmp_path: Path) -> None:
    spec, _ = small_network((24, 40))
    profile = profile_of(spec, Form(), 0.0)
    found = gap(tmp_path / "run", spec, {"c1": 9, "c2": 40}, profile)
    first = next(part for part in found.layers if part.name == "c1")
    for out, density in zip((24, 9), first.macs_per_byte or ()):
        moved = 16 * 16 * (3 + out) + out * 3 * 9
        assert density == pytest.approx(256 * 9 * out * 3 / (4 * moved))


def folder_of(path: Path, spec: Optional[NetworkSpec] = None) -> RunFolder:
    spec = spec or chain_spec([32, 16])
    return made_run(path, spec, {"g0": 9, "g1": 16}, profile=profile_of(spec, Form(), 0.01))


def test_the_course_is_what_history_keeps(tmp_path: Path) -> None:
    course = course_of(read_run_files(folder_of(tmp_path / "run")))
    assert course.missing == ()
    assert course.loss is not None
    assert course.loss.y[:2] == (2.0, 1.0)
    assert course.finetuning is not None
    assert course.finetuning.x[0] == 41.0  # goes on where pruning ended
    assert course.fitting is None
    assert course.phi["energy"].y[0] == pytest.approx((2.0 - 1 / 40) / (1.0 + MARGIN))
    assert list(course.duals) == ["energy"]
    assert course.groups is not None
    assert course.groups.names == ("g0", "g1")
    assert course.groups.s[0][-1] == 16.0
    assert len(course.groups.y[1]) == 40


def test_losses_of_fitting_follow_those_before_them(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run")
    changed(folder, "history.json", fitting={"step": [1.0, 2.0], "loss": [0.7, 0.5]})
    course = course_of(read_run_files(folder))
    assert course.finetuning is not None
    assert course.fitting is not None
    last = course.finetuning.x[-1]
    assert course.fitting.x == (last + 1.0, last + 2.0)
    assert course.fitting.y == (0.7, 0.5)
    changed(folder, "history.json", finetune=None)
    course = course_of(read_run_files(folder))
    assert course.fitting is not None
    assert course.fitting.x == (41.0, 42.0)
    changed(folder, "history.json", fitting={"step": [1.0], "loss": []})
    with pytest.raises(ArtifactError, match="fitting in .* has steps without a loss"):
        course_of(read_run_files(folder))


def test_runs_of_earlier_versions_say_what_they_lack(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run")
    changed(folder, "history.json", course=None, finetune=None)
    course = course_of(read_run_files(folder))
    assert course.groups is None
    assert list(course.total) == ["s", "y"]
    assert [words.split(":")[0] for words in course.missing] == [
        "The run is of a version that kept no bounds and duals by group",
        "The run is of a version that kept no losses of fine-tuning.",
    ]
    folder.file("history.json").unlink()
    assert course_of(read_run_files(folder)).missing == ("The run keeps no history.json.",)


def test_other_methods_show_what_they_told(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run")
    steps = [
        {"step": n, "loss": 1.0, "cost": 0.5 / n, "values": {"score": 0.1 * n, "gap": 3.0}} for n in (1, 2)
    ]  # fmt: skip
    changed(folder, "history.json", prune=steps, course=None)
    changed(folder, "result.json", method="netadapt")
    course = course_of(read_run_files(folder))
    bound = load_json(folder.file("result.json"))["budget"]["value"]  # type: ignore[index]
    assert course.phi["energy"].y == pytest.approx((0.5 / bound, 0.25 / bound))
    assert list(course.values) == ["score"]  # what stands still tells nothing
    changed(folder, "history.json", prune=[])
    assert "netadapt chose what goes at once" in course_of(read_run_files(folder)).missing[0]
    changed(folder, "result.json", status="already_within")
    assert "nothing was trained" in course_of(read_run_files(folder)).missing[0]


def parsed(command: Any) -> Dict[str, Any]:
    """Return the options that a command gives, as click reads them."""
    name, *arguments = command[1:] if command[0] == "edgeecc" else command[4:]
    return dict(cli.commands[name].make_context(name, list(arguments)).params)


def test_the_command_says_everything_that_was_asked(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a run's folder")
    changed(folder, "run.json", source={
        "network": "mine.nets:make", "input_shape": [3, 8, 8], "paper_groups": True,
        "normalisation": {"mean": [0.1, 0.2, 0.3], "deviation": [1.0, 2.0, 3.0]},
    })  # fmt: skip
    request: Any = load_json(folder.file("run.json"))["request"]
    stage = {"steps": 7, "lr": 1e-4, "distill": None, "decay": "constant"}
    changed(folder, "run.json", request={
        **request, "training": {**TRAINING, "finetune": [stage], "class_weights": False},
        "data": "imagefolder:my images", "precision": "bf16",
    })  # fmt: skip
    recipe = recipe_of(read_run_files(folder))
    given = parsed(recipe.commands[0])
    assert given["model"] == folder.file("dense.safetensors")
    assert (given["network"], given["input_shape"]) == ("mine.nets:make", (3, 8, 8))
    assert given["normalise"] == "0.1,0.2,0.3/1.0,2.0,3.0"
    assert given["budget"] == (request["budget"],)
    assert (given["device"], given["margin"]) == (("somewhere",), MARGIN)
    assert given["profile"] == (folder.file("profile-energy.json"),)
    assert (given["method"], given["steps"], given["finetune_steps"]) == ("ecc", 40, None)
    assert given["finetune"] == ("7,lr=0.0001,constant",)
    assert given["data"] == "imagefolder:my images"
    for name in ("batch_size", "lr", "rise", "weight_decay", "distill", "seed", "optimizer"):
        assert given[name] == TRAINING[name]
    assert given["class_weights"] is False
    assert given["paper_groups"] is True
    assert given["precision"] == "bf16"
    assert given["settings"] == ("metric=taylor", "rho1=10.0", "stand_in=true", "tile=0")
    assert shlex.split(recipe.text().replace("\\\n", " ")) == list(recipe.commands[0])
    assert any("imagefolder:my images" in note for note in recipe.notes)


def test_several_budgets_and_processes_are_told(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run")
    request = load_json(folder.file("run.json"))["request"]
    further = {"budget": "60%", "metric": "macs", "bound": 1.0, "device": "", "margin": 0.0}
    changed(folder, "run.json", request={**request, "budget": "1 mJ", "further_budgets": [further]})
    changed(folder, "result.json", compute={"processes": 4})
    (command,) = recipe_of(read_run_files(folder)).commands
    assert command[:4] == ("torchrun", "--nproc_per_node=4", "-m", "edgeecc")
    given = parsed(command)
    assert (given["budget"], given["of"], given["margin"]) == (("1 mJ", "60%"), "macs", None)


@pytest.mark.parametrize("name", ["judged", "val_apart"])
def test_what_the_command_cannot_do_is_told(tmp_path: Path, name: str) -> None:
    folder = folder_of(tmp_path / "run")
    changed(folder, "run.json", request={**REQUEST, "budget": "50%", name: 100})
    changed(folder, "result.json", fit_budget={"confidence": 0.9})
    notes = " ".join(recipe_of(read_run_files(folder)).notes)
    assert "corrected by export --fit-budget" in notes
    assert "a cell of edgeecc compare" in notes
