"""The cost models behind a run's budgets, and what measurements make of them: needs no torch.

Export measures the dense and the slim network, so every export corrects the run's profiles. The corrected ones lie in
the run's folder, for `prune --profile`; a workspace's calibration is never changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from edgeecc.cost.correction import Pair, corrected_by, corrected_profile
from edgeecc.cost.exact import mac_cost, size_cost
from edgeecc.cost.product import ProductModel
from edgeecc.cost.profile import Profile
from edgeecc.errors import ArtifactError
from edgeecc.graph.spec import NetworkSpec, Widths
from edgeecc.meters.base import Measurement
from edgeecc.run_folder import RunFolder, corrected_name, profile_name
from edgeecc.units import Metric
from edgeecc.verdict import Bound

#: Metrics that a meter tells; the others are counted.
METERED = (Metric.ENERGY, Metric.LATENCY)
#: Value, standard error and meter of what was measured.
Measured = Tuple[float, float, str]


def profile_of(folder: RunFolder, metric: Metric) -> Profile:
    """Return the profile that a budget was held by.

    Raises: ArtifactError when the run keeps none, or one of another metric.
    """
    names = [name for name in (profile_name(metric), "profile.json") if folder.has(name)]
    if not names:
        raise ArtifactError(
            f"{folder.path} keeps no cost model of its {metric.value} ({profile_name(metric)}); run edgeecc prune again"
        )
    profile = Profile.load(folder.file(names[0]))
    if profile.metric is not metric:
        raise ArtifactError(
            f"{folder.file(names[0])} predicts {profile.metric.value}, the budget is of {metric.value}; run edgeecc "
            "prune again"
        )
    return profile


def model_of(folder: RunFolder, metric: Metric, spec: NetworkSpec) -> ProductModel:
    """Return the cost model that a budget was held by; MACs and bytes are counted.

    Raises: ArtifactError when the run keeps none, or one of another network or metric.
    """
    if metric is Metric.MACS:
        return mac_cost(spec)
    if metric is Metric.SIZE:
        return size_cost(spec)
    return profile_of(folder, metric).cost_for(spec)


def measured_value(metric: Metric, found: Optional[Measurement]) -> Optional[Measured]:
    """Return what a measurement tells of energy or latency; None where its meter does not."""
    if found is None:
        return None
    if metric is Metric.LATENCY:
        return found.latency_s, found.latency_se_s, found.meter
    if found.energy_j is None:
        return None
    return found.energy_j, found.energy_error_j or 0.0, found.meter


@dataclass(frozen=True)
class Seen:
    """A network of the run that was measured.

    Args:
        widths: of its groups.
        found: what was measured, by metric.
    """

    widths: Widths
    found: Mapping[Metric, Measured]


def corrections(
    folder: RunFolder, spec: NetworkSpec, bounds: Sequence[Bound], networks: Sequence[Seen]
) -> List[Dict[str, object]]:
    """Correct every profile that something was measured for, write it beside, and return what results tell of it.

    Args:
        folder: of the run.
        spec: of its network.
        bounds: its budgets.
        networks: that were measured, the present one last.
    Raises: ArtifactError as `model_of`.
    """
    told: List[Dict[str, object]] = []
    for bound in bounds:
        metric = bound.metric
        seen = [(each.widths, each.found[metric]) for each in networks if metric in each.found]
        if not seen:
            continue
        profile = profile_of(folder, metric)
        model = profile.cost_for(spec)
        pairs = [Pair(model.predict(spec.vector(at)), found[0], found[1]) for at, found in seen]
        meter = seen[-1][1][2]
        correction = corrected_by(pairs, model.constant)
        path = folder.file(corrected_name(metric))
        corrected_profile(profile, correction, pairs, meter).save(path)
        last = pairs[-1]
        told.append(
            {
                "metric": metric.value,
                "unit": metric.unit,
                "device": bound.device,
                "measured": last.measured,
                "standard_error": last.error,
                "meter": meter,
                "predicted": last.predicted,
                "predicted_by": model.meter,
                "corrected": correction.at(last.predicted),
                **correction.to_json(),
                "profile": str(path),
            }
        )
    return told
