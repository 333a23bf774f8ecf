"""ECC under budgets of energy, latency and size: each that binds has a price, its dual, and slack ones have none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Set

import pytest
import torch

from edgeecc.cost.base import CostModel
from edgeecc.cost.exact import size_cost
from edgeecc.cost.fit import fit, heldout_error
from edgeecc.cost.forms import Form
from edgeecc.cost.profile import Profile
from edgeecc.cost.rows import as_arrays
from edgeecc.cost.samples import SampleStore
from edgeecc.data.sources import load
from edgeecc.graph.spec import NetworkSpec
from edgeecc.graph.trace import trace
from edgeecc.report.course import course_of
from edgeecc.report.run_files import read_run_files
from edgeecc.run_folder import RunFolder
from edgeecc.units import Metric
from tests.cli_runs import own_module, run, run_json
from tests.trained import on_digits

#: Convolutions read large images and the linear layer has most weights, so that budgets want different widths.
NETWORK = """
from torch import nn

def net():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4),
        nn.Flatten(), nn.Linear(2048, 256), nn.ReLU(), nn.Linear(256, 10),
    )
"""
FACTORY = ["--network", "binding_net:net", "--input", "1x32x32"]
#: A budget that binds is used up but for what whole channels leave; a slack one is further away than that. Where two
#: bind, neither alone holds the other.
USED = 0.97


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a network, its energy profile on the virtual device, and its latency profile there."""
    folder = tmp_path_factory.mktemp("binding")
    binding_net = own_module(folder, "binding_net", NETWORK)
    model = binding_net.net()
    on_digits(model, load("digits", input_shape=(1, 32, 32)), steps=5, lr=3e-3)
    torch.save(model.state_dict(), folder / "net.pth")
    run("calibrate", *FACTORY, "--samples", "60", "--workspace", folder)
    calibrated = folder / "calibration/virtual-tx2/net"
    energy = Profile.load(calibrated / "profile.json")
    energy.save(folder / "energy.json")
    spec = trace(model, (torch.zeros(1, 1, 32, 32),), network=energy.network)
    latency_profile(energy, spec, calibrated / "samples.db").save(folder / "latency.json")
    return folder


def latency_profile(energy: Profile, spec: NetworkSpec, samples: Path) -> Profile:
    """Return what the simulated seconds of the same samples say."""
    with SampleStore(samples, {}, read_only=True) as store:
        rows = [replace(row, value=row.latency_s) for row in store.rows()]
    widths, seconds = as_arrays(rows)
    model = fit(
        spec, widths, seconds, form=Form(), method="nnls", meter=energy.meter, metric=Metric.LATENCY
    )
    error = heldout_error(model, widths, seconds)
    assert error.mean < 0.03
    return replace(energy, model=model, form=Form().text, fit="nnls", heldout=error, ratios=())


@pytest.mark.parametrize(
    ("energy", "latency", "size", "binding"),
    [
        ("95%", "100%", "100%", {"energy"}),
        ("100%", "70%", "100%", {"latency"}),
        ("91.5%", "100%", "25%", {"energy", "size"}),
        ("100%", "74%", "25%", {"latency", "size"}),
    ],
)
def test_budgets_that_bind_have_duals_and_slack_ones_none(
    energy: str, latency: str, size: str, binding: Set[str], home: Path, workspace: Path
) -> None:
    del workspace  # a folder of the test's own
    budgets = {"energy": energy, "latency": latency, "size": size}
    result: Any = run_json(
        "prune", home / "net.pth", *FACTORY, "--data", "digits", "--steps", "24", "--finetune-steps", "2",
        "--batch-size", "64", "--margin", "0", "--run", "run",
        *("--profile", home / "energy.json", "--profile", home / "latency.json"),
        *(word for metric, text in budgets.items() for word in ("--budget", f"{text}{metric}")),
    )  # fmt: skip
    assert result["method"] == "ecc"
    folder = RunFolder(Path("run"))
    spec = folder.read_spec()
    widths = {name: len(units) for name, units in folder.read_keep(spec).items()}
    costs: Dict[str, CostModel] = {
        name: Profile.load(home / f"{name}.json").cost_for(spec) for name in ("energy", "latency")
    }
    costs["size"] = size_cost(spec)
    values = {told["metric"]: told["value"] for told in result["budgets"]}
    used = {name: cost.predict(spec.vector(widths)) / values[name] for name, cost in costs.items()}
    assert max(used.values()) <= 1.0 + 1e-12
    assert {name for name, share in used.items() if share > USED} == binding
    duals = course_of(read_run_files(folder)).duals
    assert duals.keys() == used.keys()
    for name, z in duals.items():
        assert (z.y[-1] > 0.0) == (name in binding), (name, z.y)
        assert name in binding or max(z.y) == 0.0
