"""The profiles that ship: what they predict, how they are labelled, and that they still fit our networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeecc.calibration_folder import find_profile
from edgeecc.cost.profile import Profile

SHIPPED = [("jetson-tx2", "alexnet"), ("virtual:tx2", "alexnet"), ("virtual:tx2", "mobilenet_v1")]
DENSE = np.array([64, 192, 384, 256, 256, 4096, 4096], dtype=np.float64)


def shipped(device: str, network: str, workspace: Path) -> Profile:
    path = find_profile(device, network, workspace)
    assert path is not None
    assert workspace not in path.parents
    return Profile.load(path)


@pytest.mark.device
@pytest.mark.parametrize(
    ("widths", "energy_j"),
    [
        (DENSE, 0.04982351),
        (np.ones(7), 0.00251823),
        (DENSE / 2, 0.01536440),
        (np.array([64, 192, 384, 256, 128, 4096, 4096], dtype=np.float64), 0.04004870),
    ],
)
def test_the_published_profile_gives_the_published_energies(
    tmp_path: Path, widths: np.ndarray, energy_j: float
) -> None:
    model = shipped("jetson-tx2", "alexnet", tmp_path).model
    assert model.predict(widths) == pytest.approx(energy_j, abs=6e-9)


@pytest.mark.device
def test_labels_tell_simulated_from_published(tmp_path: Path) -> None:
    for device, network in SHIPPED:
        profile = shipped(device, network, tmp_path)
        assert profile.device == device
        assert ("simulated" in profile.meter) == device.startswith("virtual:")
        assert profile.meter in profile.model.meter


@pytest.mark.device
def test_an_unknown_error_is_null_and_said_why(tmp_path: Path) -> None:
    published = shipped("jetson-tx2", "alexnet", tmp_path)
    assert published.heldout is None
    assert "not published" in published.note
    for _, network in SHIPPED[1:]:
        virtual = shipped("virtual:tx2", network, tmp_path)
        assert virtual.heldout is not None
        assert virtual.heldout.mean < 0.03


@pytest.mark.device
def test_the_workspaces_own_profile_comes_first(tmp_path: Path) -> None:
    own = tmp_path / "calibration" / "jetson-tx2" / "alexnet" / "profile.json"
    shipped("jetson-tx2", "alexnet", tmp_path).save(own)
    assert find_profile("jetson-tx2", "alexnet", tmp_path) == own


@pytest.mark.slow
@pytest.mark.parametrize("network", ["alexnet", "mobilenet_v1"])
def test_shipped_profiles_still_fit_our_networks(tmp_path: Path, network: str) -> None:
    """Fails when a change to a network or to tracing makes them stale: run calibration/make_shipped.py again."""
    pytest.importorskip("torch")
    from edgeecc.pricing import PriceQuery, price
    from edgeecc.sources import open_network, trace_source
    from edgeecc.units import Metric

    model, source = open_network(network, None, None, paper_groups=True)
    traced = trace_source(model, source)
    for device, name in SHIPPED:
        if name == network:
            profile = shipped(device, name, tmp_path)
            assert profile.fits(traced.spec)
            profile.cost_for(traced.spec)
            # The paper's groups are all that these networks have: no calibration of their own is asked for.
            priced = price(traced, source, PriceQuery(Metric.ENERGY, device, None, tmp_path))
            assert priced.profile.model.to_json() == profile.model.to_json()
