"""From a device, a network and a budget to the cost model that the solver works against."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from edgeecc.calibrate import Job, calibrate
from edgeecc.calibration_folder import find_profile, network_folder
from edgeecc.config import CalibrateConfig, MeasureProtocol
from edgeecc.cost.base import CostModel
from edgeecc.cost.conformal import Margin
from edgeecc.cost.exact import mac_cost, size_cost
from edgeecc.cost.profile import Profile
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.sources import NetworkSource, Traced
from edgeecc.units import Metric, format_quantity

logger = logging.getLogger(__name__)

#: Which device prices a metric when the user names none.
DEFAULT_DEVICE = {Metric.ENERGY: "virtual:tx2", Metric.LATENCY: "onnxruntime:cpu"}


@dataclass(frozen=True)
class Price:
    """A cost model and how far to trust it.

    Args:
        cost: the model.
        device: device that it was calibrated on; empty for exact counts.
        margin: share by which the model's error is held off a budget.
        profile: the profile behind it; None for exact counts.
        confidence: with which that margin is enough for a measurement; None: nobody can say.
    """

    cost: CostModel
    device: str
    margin: float
    profile: Optional[Profile]
    confidence: Optional[float] = None


@dataclass(frozen=True)
class PriceQuery:
    """Which cost model is wanted.

    Args:
        metric: what the budget bounds.
        device: device name; None takes the metric's default.
        profile: a profile file; None looks in the workspace, then among the shipped ones.
        workspace: folder that holds calibration/.
        margin: share to hold off; None takes what the profile's held-out samples say for `confidence`.
        confidence: with which a measurement is to hold the budget; see `cost.conformal.margin_of`.
    """

    metric: Metric
    device: Optional[str]
    profile: Optional[Path]
    workspace: Path
    margin: Optional[float] = None
    confidence: Optional[float] = None


def price(traced: Traced, source: NetworkSource, query: PriceQuery) -> Price:
    """Return the cost model for a network.

    MACs and bytes are counted exactly. Energy and latency need a profile of this network; on a virtual
    device a missing one is made on the spot, which takes seconds, on a real device it is the user's to make.

    Raises: ArtifactError when no profile fits.
    """
    spec = traced.spec
    if query.metric is Metric.MACS:
        return Price(mac_cost(spec), "", query.margin or 0.0, None)
    if query.metric is Metric.SIZE:
        return Price(size_cost(spec), "", query.margin or 0.0, None)
    device = query.device or DEFAULT_DEVICE[query.metric]
    profile = _profile(traced, source, query, device)
    if profile.metric is not query.metric:
        unit, found = query.metric.unit, profile.metric.value
        raise ConfigError(
            f"the budget is in {unit} but the profile of {profile.device} predicts {found}; choose another"
        )
    cost = profile.cost_for(spec)
    margin = profile.margin(query.confidence) if query.margin is None else Margin(query.margin)
    dense = format_quantity(cost.predict(spec.vector(spec.dense_widths())), query.metric)
    logger.info("dense %s costs %s (%s)", source.reference, dense, cost.meter)
    return Price(cost, profile.device, margin.share, profile, margin.confidence)


def _profile(traced: Traced, source: NetworkSource, query: PriceQuery, device: str) -> Profile:
    if query.profile is not None:
        return Profile.load(query.profile)
    paths = [find_profile(device, folder, query.workspace) for folder in source.folders]
    profiles = [Profile.load(path) for path in paths if path is not None]
    fitting = [profile for profile in profiles if profile.fits(traced.spec)]
    if fitting:
        return fitting[0]
    if profiles and not device.startswith("virtual:"):
        return profiles[0]  # of another network: its own check says so
    if not device.startswith("virtual:"):
        asked = f"{source.argument} --device {device}"
        raise ArtifactError(
            f"no profile of {source.reference} on {device}; make one with: edgeecc calibrate {asked}"
        )
    logger.warning("no profile of this %s on %s; calibrating on it now", source.reference, device)
    folder = network_folder(query.workspace, device, f"{source.folder}-{traced.spec.fingerprint()}")
    config = CalibrateConfig(target_error=0.0)  # simulated samples take no time
    calibrate(Job(traced.spec, traced.graph, device, folder), config, MeasureProtocol())
    return Profile.load(folder / "profile.json")
