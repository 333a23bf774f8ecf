"""Comparisons through the command line, on scikit-learn's digits: equal conditions, resumption, failures, rates."""

from __future__ import annotations

import csv
import importlib.util
import json
import signal
import time
from pathlib import Path
from typing import Any, Callable, Dict, Set

import pytest
import torch
from click.testing import CliRunner

from edgeecc.artifacts import exclusive, load_json
from edgeecc.cli.main import cli
from edgeecc.comparison.cells import LATER
from edgeecc.comparison.rates import next_rate
from edgeecc.cost.exact import mac_cost
from edgeecc.cost.product import ProductModel
from edgeecc.cost.profile import Profile
from edgeecc.data.sources import load
from edgeecc.errors import ArtifactError
from edgeecc.run_folder import leaves
from edgeecc.sources import open_network, trace_source
from edgeecc.training.dense import initialise_, train_dense_
from edgeecc.units import Metric
from tests.cells_inside import run_inside
from tests.cli_runs import complaint, own_module, run, run_json
from tests.commands import Command

OWN = """
import torch
from torch import nn
from edgeecc.data.sources import load
from edgeecc.data.splits import TensorSplit

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.c2, self.c3 = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 12, 3), nn.Conv2d(12, 16, 3)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = torch.relu(self.c2(torch.relu(self.c1(x))))
        return self.fc(torch.relu(self.c3(x)).mean((2, 3)))

def small():
    return Small()

def _pairs(split):
    images, labels = split.take(range(len(split)))
    return [(image, int(label)) for image, label in zip(images, labels)]

def right():
    data = load("digits", input_shape=(1, 8, 8))
    return _pairs(data.train), _pairs(data.val)

def wrong():
    train, val = right()
    return train, [(image, (label + 1) % 10) for image, label in val]
"""
NETWORK = ["--network", "compared_nets:small", "--input", "1x8x8"]
QUICK = ["--steps", "12", "--finetune-steps", "6", "--batch-size", "64", "--of", "macs"]
HAS_MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None
KEPT = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
COMMON = ["compare", "dense-{seed}.pth", *NETWORK, *QUICK]
DIGITS = [*COMMON, "--data", "digits"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a network of the user's own and trained weights of it for three seeds."""
    folder = tmp_path_factory.mktemp("compared")
    compared_nets = own_module(folder, "compared_nets", OWN)
    data = load("digits", input_shape=(1, 8, 8))
    for seed in range(3):
        model = compared_nets.small()
        initialise_(model, seed)
        train_dense_(model, data.train, steps=30, batch_size=64, lr=1e-2, seed=seed)
        torch.save(model.state_dict(), folder / f"dense-{seed}.pth")
    return folder


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run cells in this process."""
    run_inside(monkeypatch)


def times(folder: Path) -> Dict[str, int]:
    return {
        str(path): path.stat().st_mtime_ns
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.usefixtures("inside")
def test_methods_budgets_and_seeds_are_compared_and_never_run_twice(home: Path) -> None:
    asked = [*DIGITS, "--budget", "60%", "--budget", "30%", "--out", "all"]
    asked += ["--lr", "uniform=3e-3", "--lr", "uniform@30%=2e-3", "--set", "ecc.ramp=0.6"]
    result = run_json(*asked, "--seeds", "0,1")
    assert result["status"] == {"finished": 8, "failed": 0, "missing": 0}
    cells = result["cells"]
    assert len({(cell["method"], cell["budget"], cell["seed"]) for cell in cells}) == 8
    assert {cell["steps"] + cell["finetune_steps"] for cell in cells} == {18}
    assert result["equal"]["steps"] == 18
    assert result["equal"]["held_out_images"] == 143
    assert {(cell["method"], cell["budget"], cell["lr"]) for cell in cells} == {
        ("ecc", "60%", 1e-3),
        ("ecc", "30%", 1e-3),
        ("uniform", "60%", 3e-3),
        ("uniform", "30%", 2e-3),
    }
    for cell in cells:
        assert cell["cost"] <= cell["bound"]
        assert cell["meter"] == "exact count"
        assert cell["seconds"] > 0.0
        assert cell["peak_memory_bytes"] > 2**20
        assert 0.0 <= cell["pruned_accuracy"] <= 1.0
        assert cell["judged_score"] is None
        folder = (
            home / f"all/cells/{cell['method']}-{cell['budget'].replace('%', 'pct')}-{cell['seed']}"
        )
        assert load_json(folder / "run.json")["request"]["held_out"] == 143  # type: ignore[index]
        history = load_json(folder / "history.json")
        assert history["pruned_accuracy"] == cell["pruned_accuracy"]
    dense = {(cell["seed"], cell["dense_accuracy"]) for cell in cells}
    assert len(dense) == 2
    assert load_json(home / "all/results.json")["cells"] == cells
    with (home / "all/results.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert [float(line["accuracy"]) for line in lines] == [cell["accuracy"] for cell in cells]
    table = (home / "all/table.md").read_text()
    assert "exact count" in table
    assert table.index("| dense |") < table.index("| ecc |")
    for one in result["leads"]:
        top, own = (
            {cell["seed"]: cell["accuracy"] for cell in cells if (cell["method"], cell["budget"]) == place}
            for place in ((one["best"], one["budget"]), (one["method"], one["budget"]))
        )  # fmt: skip
        assert one["lead"]["mean"] == pytest.approx(sum(top[seed] - own[seed] for seed in own) / 2)
        assert one["lead"]["mean"] > 0.0
    assert ("| behind the best, points |" in table) is bool(result["leads"])
    assert ("accuracy_vs_cost.svg" in result["files"]) is HAS_MATPLOTLIB
    if HAS_MATPLOTLIB:
        assert "macs, kMAC (exact count)" in (home / "all/accuracy_vs_cost.svg").read_text()
    before = times(home / "all/cells")
    again = run_json(*asked, "--seeds", "0,1")
    assert times(home / "all/cells") == before
    assert again["cells"] == cells
    fewer = [*DIGITS, "--budget", "60%", "--out", "all", "--lr", "3e-3", "--methods", "uniform"]
    more = run_json(*fewer, "--seeds", "1,2")
    assert more["status"]["finished"] == 2
    assert more["cells"][0] in cells
    assert {
        name: when for name, when in times(home / "all/cells").items() if name in before
    } == before
    said = complaint(*asked, "--seeds", "0,1", "--steps", "13")
    assert "was made with pruning.steps 12 (now 13)" in said
    assert "was made with training.distill 0.5 (now 0.1)" in complaint(
        *fewer, "--seeds", "1", "--distill", "0.1"
    )
    shown = run(*asked, "--seeds", "0,1").stdout
    assert "±" in shown
    assert "what it took" in shown
    assert ("behind the best, points" in shown) is bool(result["leads"])


@pytest.mark.usefixtures("inside")
def test_every_cell_trains_as_asked(home: Path) -> None:
    asked = [*DIGITS, "--budget", "60%", "--seeds", "0,1", "--methods", "uniform"]
    asked += ["--accelerator", "cpu", "--out", "halves"]
    result = run_json(*asked, "--precision", "bf16", "--no-channels-last")
    assert result["status"]["finished"] == 2
    for seed in (0, 1):
        folder = home / f"halves/cells/uniform-60pct-{seed}"
        assert load_json(folder / "result.json")["compute"] == {
            "accelerator": "cpu", "precision": "bf16", "channels_last": False, "processes": 1,
        }  # fmt: skip
        assert load_json(folder / "cell.json")["spent"]["accelerator"] == "cpu"  # type: ignore[index]
    assert {cell["accelerator"] for cell in result["cells"]} == {"cpu"}
    assert "was made with precision bf16 (now fp32)" in complaint(*asked)
    again = run_json(*asked, "--precision", "bf16", "--channels-last")
    assert again["cells"] == result["cells"]
    refused = complaint(*asked, "--out", "refused", "--precision", "fp16")
    assert "fp16 needs a GPU" in refused
    assert not list(home.glob("refused/cells/*"))


@pytest.mark.usefixtures("inside")
def test_what_cells_are_compared_by_is_what_kept_ones_tell(home: Path) -> None:
    """One more name, and every finished cell would be refused, but for those that are believed where they lack."""
    one = (*DIGITS, "--budget", "60%", "--seeds", "0", "--methods", "uniform")
    run(*one, "--out", "names")
    run(*one, "--validation-apart", "100", "--out", "apart")
    asked: Dict[str, Any] = {
        name: load_json(home / name / "cells/uniform-60pct-0/cell.json")["asked"]
        for name in ("names", "apart")
    }

    def names_of(told: Dict[str, object]) -> Set[str]:
        return set(leaves({**told, "settings": None, "source": None}))

    kept = [
        json.loads(path.read_text().splitlines()[0])["asked"] for path in KEPT.glob("*/cells.jsonl")
    ]
    assert {"val_apart" in each["pruning"] for each in kept} == {False, True}
    for each in kept:
        now = asked["apart" if "val_apart" in each["pruning"] else "names"]
        later = {name for name in LATER if not name.startswith("settings.")}
        assert names_of(each) | later == names_of(now)


@pytest.mark.usefixtures("inside")
def test_a_cell_that_fails_lets_the_others_go_on(home: Path) -> None:
    asked = [*DIGITS, "--budget", "60%", "--budget", "0.1%", "--seeds", "0", "--out", "failing"]
    result = run_json(*asked, "--methods", "uniform", code=1)
    assert result["status"] == {"finished": 1, "failed": 1, "missing": 0}
    failed = result["cells"][1]
    assert (failed["status"], failed["accuracy"]) == ("failed", None)
    assert "the lowest that can be met is" in failed["error"]
    assert "uniform 0.1% seed 0 failed: macs budget" in (home / "failing/table.md").read_text()
    before = times(home / "failing/cells/uniform-60pct-0")
    shown = run(*asked, "--methods", "uniform", code=1).stdout
    assert "uniform 0.1% seed 0 failed: macs budget" in shown
    assert times(home / "failing/cells/uniform-60pct-0") == before
    parts = load_json(home / "failing/cells/uniform-0.1pct-0/cell.json")["spent"]["parts"]  # type: ignore[index]
    assert parts == 2


@pytest.mark.usefixtures("inside")
def test_rates_are_searched_with_equal_trials_and_without_validation_data(home: Path) -> None:
    asked = [
        *COMMON,
        "--budget",
        "40%",
        "--seeds",
        "0",
        "--search-lr",
        "1e-9,3e-3",
        "--set",
        "ecc.warmup=2",
    ]
    found = {
        name: run_json(*asked, "--data", f"compared_nets:{name}", "--out", f"search-{name}")
        for name in ("right", "wrong")
    }
    right, wrong = (found[name]["search"] for name in ("right", "wrong"))
    assert [(trial["method"], trial["lr"]) for trial in right["trials"]] == [
        ("ecc", 1e-9), ("uniform", 1e-9), ("ecc", 3e-3), ("uniform", 3e-3),
    ]  # fmt: skip
    scores = [[trial["judged_score"] for trial in one["trials"]] for one in (right, wrong)]
    assert scores[0] == scores[1]
    best = {
        name: max(
            (trial["judged_score"], -trial["lr"], trial["lr"])
            for trial in right["trials"]
            if trial["method"] == name
        )[2]
        for name in ("ecc", "uniform")
    }
    rates = {name: {"40%": rate} for name, rate in best.items()}
    assert right["chosen"] == wrong["chosen"] == found["right"]["rates"] == rates
    assert right["seed"] == 1
    assert right["judged_images"] == 238
    trial = load_json(home / "search-right/search/ecc-40pct-0.003/run.json")["request"]
    assert (trial["held_out"], trial["judged"]) == (143, 238)  # type: ignore[index]
    assert (home / "search-right/search/ecc-40pct-0.003/result.json").is_file()
    assert {cell["method"]: cell["lr"] for cell in found["right"]["cells"]} == best
    assert found["right"]["cells"][0]["accuracy"] != found["wrong"]["cells"][0]["accuracy"]


@pytest.mark.usefixtures("inside")
def test_a_searched_comparison_takes_more_seeds_and_budgets(home: Path) -> None:
    asked = [*DIGITS, "--methods", "uniform", "--search-lr", "1e-3,3e-3", "--out", "grown"]
    first = run_json(*asked, "--budget", "60%", "--seeds", "0")
    assert (first["search"]["seed"], first["search"]["budgets"]) == (1, ["60%"])
    before = times(home / "grown/search")
    more = ["--budget", "60%", "--budget", "50%", "--budget", "40%", "--seeds"]
    grown = run_json(*asked, *more, "0,2")
    assert grown["status"] == {"finished": 6, "failed": 0, "missing": 0}
    assert times(home / "grown/search") == before
    assert grown["search"] == first["search"]
    assert grown["cells"][0] == first["cells"][0]
    assert "seed 1 chose the rates of this comparison" in complaint(*asked, *more, "0,1,2")
    (rate,) = {cell["lr"] for cell in grown["cells"]}
    other = complaint(
        *(each.replace("1e-3,3e-3", f"{rate / 1e6},{rate / 1e5}") for each in asked), *more, "0,2"
    )
    assert f"training.lr {rate} (now " in other
    assert "remove the folder to run it again" in other


def law(constant: float) -> Profile:
    """Return energy of which a part is fixed, and the rest goes by MACs."""
    spec = trace_source(*open_network("compared_nets:small", (1, 8, 8), None)).spec
    macs = mac_cost(spec)
    model = ProductModel(
        Metric.ENERGY, "a law", groups=macs.groups, terms=macs.terms, constant=constant,
        coefficients=macs.coefficients / macs.coefficients.sum(),
    )  # fmt: skip
    return Profile(
        network=spec.network, device="law", fingerprint=spec.fingerprint(), model=model, form="bilinear", fit="given",
        meter="a law", heldout=None, samples={},
    )  # fmt: skip


@pytest.mark.usefixtures("inside")
def test_a_calibration_meanwhile_does_not_reprice_a_comparison(home: Path) -> None:
    law(0.1).save(home / "law.json")
    priced = [name for name in COMMON if name not in ("--of", "macs")]
    asked = [
        *priced,
        "--data",
        "digits",
        "--methods",
        "uniform",
        "--budget",
        "60%",
        "--out",
        "priced",
    ]
    first = run_json(*asked, "--profile", "law.json", "--seeds", "0")
    kept = home / "priced/profile.json"
    before = kept.read_bytes()
    law(0.2).save(home / "law.json")
    grown = run_json(*asked, "--seeds", "0,2")
    assert grown["cells"][0] == first["cells"][0]
    assert grown["dense_cost"] == first["dense_cost"] == pytest.approx(1.1)
    said = complaint(*asked, "--profile", "law.json", "--seeds", "0,2")
    assert "predicts otherwise" in said
    assert kept.read_bytes() == before


@pytest.mark.usefixtures("inside")
def test_a_comparison_never_mixes_two_data_sets_of_one_name(home: Path) -> None:
    module = OWN.replace(
        "def wrong",
        "LABELS = 0\n\ndef changing():\n    return [right, wrong][LABELS]()\n\ndef wrong",
    )
    changing = own_module(home, "changing_nets", module)
    asked = [*COMMON, "--methods", "uniform", "--budget", "60%", "--data", "changing_nets:changing"]
    run(*asked, "--seeds", "0", "--out", "changed")
    changing.LABELS = 1
    said = complaint(*asked, "--seeds", "0,1", "--out", "changed")
    assert "data_sha256" in said


@pytest.mark.usefixtures("inside")
def test_validation_images_apart_judge_trials_and_score_no_cell(home: Path) -> None:
    asked = [*DIGITS, "--budget", "40%", "--seeds", "0", "--methods", "uniform"]
    searched = [*asked, "--search-lr", "1e-9,3e-3"]
    whole = run_json(*asked, "--lr", "3e-3", "--out", "whole")
    parted = run_json(*searched, "--validation-apart", "100", "--out", "parted")
    search = parted["search"]
    assert (search["judged_images"], search["judged_on"]) == (100, "validation")
    assert parted["equal"]["validation_images_apart"] == 100
    trial = load_json(home / "parted/search/uniform-40pct-0.003/run.json")["request"]
    assert (trial["judged"], trial["val_apart"]) == (0, 100)  # type: ignore[index]
    assert search["chosen"] == {"uniform": {"40%": 3e-3}}
    # The same training: what is scored is one part of the validation images, what judges the other.
    images = len(load("digits", input_shape=(1, 8, 8)).val)
    cell = load_json(home / "parted/cells/uniform-40pct-0/result.json")
    scored = cell["accuracy"] * (images - 100) + cell["judged_score"] * 100  # type: ignore[operator]
    assert scored == pytest.approx(whole["cells"][0]["accuracy"] * images)
    assert "100 validation images judged trials" in (home / "parted/table.md").read_text()
    assert "judged_on" not in (home / "whole/table.md").read_text()
    said = complaint(
        *searched, "--validation-apart", "100", "--search-images", "50", "--out", "both"
    )
    assert "leave one out" in said
    said = complaint(*searched, "--validation-apart", str(images), "--out", "all")
    assert "validation images cannot be held out" in said
    said = complaint(*searched, "--out", "parted")
    assert "val_apart" in said


@pytest.mark.usefixtures("inside")
def test_a_budget_takes_the_rate_of_the_nearest_search() -> None:
    asked = [*DIGITS, "--seeds", "0", "--methods", "uniform", "--search-lr", "1e-9,3e-3"]
    for option, texts in (("--budget", ("70%", "30%", "20%")), ("--search-budget", ("80%", "25%"))):
        asked += [word for text in texts for word in (option, text)]
    asked += ["--out", "two-searches"]
    result = run_json(*asked)
    search = result["search"]
    assert [(one["budget"], one["lr"]) for one in search["trials"]] == [
        ("80%", 1e-9), ("80%", 3e-3), ("25%", 1e-9), ("25%", 3e-3),
    ]  # fmt: skip
    mild, harsh = (search["chosen"]["uniform"][text] for text in ("80%", "25%"))
    assert result["rates"] == {"uniform": {"70%": mild, "30%": harsh, "20%": harsh}}
    assert [cell["lr"] for cell in result["cells"]] == [mild, harsh, harsh]
    shown = run(*asked).stdout
    assert f"learning rates at 80%, of 2 each: uniform {mild:g}" in shown
    assert f"learning rates at 25%, of 2 each: uniform {harsh:g}" in shown
    assert "compare one metric at a time" in complaint(*asked, "--search-budget", "5MB")


@pytest.mark.usefixtures("inside")
def test_further_trials_go_near_the_best_and_a_repeated_comparison_makes_none_again() -> None:
    asked = [*DIGITS, "--budget", "30%", "--seeds", "0", "--methods", "uniform"]
    asked += ["--search-lr", "1e-5,1e-3", "--out", "refined"]
    coarse = run_json(*asked)["search"]["trials"]
    made = times(Path("refined/search/uniform-30pct-0.001"))
    result = run_json(*asked, "--search-refine", "2")
    trials = result["search"]["trials"]
    assert [one["lr"] for one in trials[:2]] == [1e-5, 1e-3]
    assert [one["judged_score"] for one in trials[:2]] == [one["judged_score"] for one in coarse]
    scores = {one["lr"]: one["judged_score"] for one in trials}
    assert len(scores) == 4
    assert trials[2]["lr"] == next_rate({1e-5: scores[1e-5], 1e-3: scores[1e-3]})
    assert trials[3]["lr"] == next_rate({one["lr"]: one["judged_score"] for one in trials[:3]})
    best = max(scores, key=lambda rate: scores[rate])
    assert result["search"]["chosen"]["uniform"] == {"30%": best}
    assert result["search"]["refine"] == 2
    assert times(Path("refined/search/uniform-30pct-0.001")) == made
    places = [Path(f"refined/search/uniform-30pct-{one['lr']!r}") for one in trials]
    before = [times(place) for place in places]
    shown = run(*asked, "--search-refine", "2").stdout
    assert f"learning rates at 30%, of 4 each: uniform {best:g}" in shown
    assert [times(place) for place in places] == before
    assert "give --search-refine of at least 0" in complaint(*asked, "--search-refine", "-1")


@pytest.mark.usefixtures("inside")
def test_a_method_without_a_rate_that_works_is_told() -> None:
    asked = [
        *DIGITS,
        "--budget",
        "0.1%",
        "--seeds",
        "0",
        "--search-lr",
        "1e-3,3e-3",
        "--methods",
        "uniform",
    ]
    result = run_json(*asked, "--out", "hopeless", code=1)
    assert result["cells"][0]["error"] == "no rate of --search-lr could be trained with"
    assert result["search"]["chosen"] == {}
    said = complaint(*asked, "--out", "blind", "--search-images", "0")
    assert "give --search-images of at least 1" in said


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--data", "digits", "--budget", "50%", "--seeds", "0,x"], 2, "no list such as 0,1,2"),
        (["--budget", "50%"], 2, "no data to train on"),
        (["--data", "digits", "--budget", "50"], 2, "bare number"),
        (["--data", "digits", "--budget", "50%", "--methods", "ecc,magic"], 1, "unknown method 'magic'"),
        (["--data", "digits", "--budget", "50%", "--search-seed", "9"], 1, "go with --search-lr"),
        (["--data", "digits", "--budget", "50%", "--search-refine", "1"], 1, "go with --search-lr"),
        (["--data", "digits", "--budget", "50%", "--seeds", "9"], 1, "cannot read dense-9.pth"),
        (["--data", "digits", "--budget", "50%", "--seeds", "0,9"], 1, "cannot read dense-9.pth"),
        (["--data", "digits", "--budget", "50%", "--set", "ecc.ramp"], 1, "write METHOD.NAME=VALUE"),
        (["--data", "digits", "--budget", "50%", "--set", "ecc.beta=2"], 1, "metric taylor does not read it"),
        (["--data", "digits", "--budget", "50%", "--seeds", "0", "--set", "uniform.a=1"], 1, "names are none"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(more: list, code: int, said: str) -> None:
    assert said in complaint(*COMMON, *more, "--out", "refused", code=code)
    assert not list(Path("refused").glob("cells/*"))


def test_prune_takes_settings_of_its_method() -> None:
    asked = [
        "prune",
        "dense-0.pth",
        *NETWORK,
        *QUICK,
        "--data",
        "digits",
        "--budget",
        "50%",
        "--run",
        "set",
    ]
    run(*asked, "--set", "ramp=0.5", "--set", "metric=taylor")
    assert load_json(Path("set/run.json"))["request"]["settings"]["ramp"] == 0.5  # type: ignore[index]
    assert "'slope=1' sets nothing" in complaint(*asked, "--set", "slope=1")
    assert "names are none" in complaint(*asked, "--method", "uniform", "--set", "slope=1")
    assert "names are input" not in complaint(*asked, "--method", "wsp", "--set", "slope=1")
    assert "unknown method 'magic'" in complaint(*asked, "--method", "magic", "--set", "slope=1")


def until(true: Callable[[], Any], seconds: float = 120.0) -> None:
    for _ in range(int(seconds / 0.02)):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def is_free(folder: Path) -> bool:
    try:
        with exclusive(folder, ""):
            return True
    except ArtifactError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)  # two processes load torch one after another
def test_a_comparison_that_is_stopped_and_killed_goes_on_exactly(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes: one that is interrupted and one whose parent is killed; then the work is ended here."""
    asked = [*DIGITS, "--budget", "40%", "--seeds", "0", "--methods", "ecc", "--steps", "300"]
    asked += ["--checkpoint-s", "0.1", "--out", "stopped", "--json"]
    cell = home / "stopped/cells/ecc-40pct-0"
    checkpoint = cell / "checkpoint.safetensors"
    command = Command(asked, home)
    command.until(checkpoint.exists)
    command.send(signal.SIGINT)
    code, _, errors = command.ended()
    assert code == 130, errors
    assert "interrupted; what was saved is kept" in errors
    assert "Traceback" not in errors
    assert is_free(cell)
    assert load_json(home / "stopped/results.json")["status"]["missing"] == 1  # type: ignore[index]
    spent = load_json(cell / "cell.json")["spent"]
    command = Command(asked, home)
    saved = checkpoint.stat().st_mtime_ns
    command.until(lambda: checkpoint.stat().st_mtime_ns > saved)
    command.send(signal.SIGKILL)
    assert command.ended()[0] == -signal.SIGKILL
    until(lambda: is_free(cell))  # the cell's process leaves with its parent
    assert not (cell / "result.json").exists()
    run_inside(monkeypatch)
    done = CliRunner().invoke(cli, asked)
    assert done.exit_code == 0, done.stderr
    assert "comparing 1/1 cells" in done.stderr
    row = json.loads(done.stdout)["cells"][0]
    assert row["parts"] == 3
    assert row["seconds"] > spent["seconds"] > 0.0  # type: ignore[index]
    straight = CliRunner().invoke(cli, [*asked, "--out", "straight"])
    expected = json.loads(straight.stdout)["cells"][0]
    for name in ("widths", "accuracy", "pruned_accuracy", "cost"):
        assert row[name] == expected[name], name
