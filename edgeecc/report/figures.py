"""The numbers behind the charts of a report: errors by samples, and coefficients with their intervals."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial
from typing import Callable, Dict, List, Optional, Sequence, Tuple, cast, get_args

import numpy as np

from edgeecc.config import FitMethod, ReportConfig
from edgeecc.cost.error_curve import CurvePoint, curve_sizes, error_curve
from edgeecc.cost.fit import Fitter, fit, heldout_error
from edgeecc.cost.forms import Form
from edgeecc.cost.intervals import Interval, bootstrap, percentile_interval
from edgeecc.cost.profile import Profile
from edgeecc.cost.terms import Owner, owners
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.graph.spec import FloatArray
from edgeecc.report.evidence import Evidence

#: Share of the profile's error by which that of a fit made again may differ: other machines round otherwise.
_SAME = 0.01
#: Name and kind of what the model's constant is of.
FIXED = "fixed cost"


@dataclass(frozen=True)
class Coefficient:
    """What a term costs when dense, metric unit, with its interval."""

    term: str
    value: float
    interval: Interval


@dataclass(frozen=True)
class Owned:
    """What a layer, the channels of a group or the model's constant cost when dense.

    Args:
        name, kind: of the layer, see `receipt.Part`; FIXED for the constant.
        value: sum of the terms, metric unit.
        interval: of the sum, which is narrower than those of terms that go together.
        terms: one by one.
    """

    name: str
    kind: str
    value: float
    interval: Interval
    terms: Tuple[Coefficient, ...]


@dataclass(frozen=True)
class Figures:
    """What is drawn and told.

    Args:
        evidence: the samples.
        config: see `ReportConfig`.
        curve: held-out error by number of fitted samples.
        parts: layers in forward order, then groups and other modules, then the constant.
    """

    evidence: Evidence
    config: ReportConfig
    curve: Sequence[CurvePoint]
    parts: Sequence[Owned]

    @property
    def predicted(self) -> FloatArray:
        """What the profile predicts for the samples that were fitted, (N,), metric unit."""
        return self.evidence.profile.model.predict_many(self.evidence.known)

    @property
    def predicted_held(self) -> FloatArray:
        """What the profile predicts for those that were held out, (M,), metric unit."""
        return self.evidence.profile.model.predict_many(self.evidence.held)

    @property
    def predicted_anchors(self) -> Dict[str, float]:
        """What the profile predicts for the dense and the thinnest network, metric unit."""
        spec, model = self.evidence.spec, self.evidence.profile.model
        anchors = {"dense": spec.dense_widths(), "thinnest": spec.least_widths()}
        return {name: model.predict(spec.vector(widths)) for name, widths in anchors.items()}


def work_out(
    evidence: Evidence,
    config: ReportConfig,
    *,
    like: Optional[Profile] = None,
    on_fit: Callable[[int, int], None] = lambda done, total: None,
) -> Figures:
    """Fit again as the profile was, on parts of its samples and on resampled ones.

    Args:
        evidence: the samples.
        config: how many fits, and their confidence.
        like: the other profile that this one was fitted towards; only then.
        on_fit: told of (fits done, fits to do).
    Raises: ConfigError when the fit is none of ours, or `like` is missing or of no use; ArtifactError when the samples
        do not give the profile.
    """
    fitter = _fitter(evidence, like)
    known, told = evidence.known, evidence.told
    total, done = len(curve_sizes(len(told))) + config.resamples, 0

    def count() -> None:
        nonlocal done
        done += 1
        on_fit(done, total)

    _check_same(evidence, fitter)
    curve = error_curve(
        fitter, known, told, evidence.held, evidence.truth, confidence=config.confidence, on_fit=count
    )  # fmt: skip
    draws = bootstrap(
        fitter, known, told, times=config.resamples, seed=config.seed, on_fit=count
    )  # fmt: skip
    return Figures(evidence, config, curve, _parts(evidence, draws, config))


def as_json(figures: Figures) -> Dict[str, object]:
    """Return the numbers as JSON; SI."""
    evidence, profile = figures.evidence, figures.evidence.profile
    return {
        "network": profile.network,
        "device": profile.device,
        "meter": profile.meter,
        "metric": profile.metric.value,
        "unit": profile.metric.unit,
        "model": profile.form,
        "fit": profile.fit,
        "design": profile.design,
        "samples": dict(profile.samples),
        "heldout_error": None if profile.heldout is None else asdict(profile.heldout),
        "margin": asdict(profile.margin()),
        "anchors": {
            name: {"measured": profile.anchors.get(name), "predicted": value}
            for name, value in figures.predicted_anchors.items()
        },
        "boards": {name: dict(one) for name, one in profile.boards.items()},
        "predicted": {
            "fitted": _pairs(evidence.told, figures.predicted),
            "heldout": _pairs(evidence.truth, figures.predicted_held),
        },
        "error_by_samples": [
            {**asdict(point), "upper": point.upper if math.isfinite(point.upper) else None}
            for point in figures.curve
        ],
        "target_error": figures.evidence.profile.target_error,
        "coefficients": [asdict(part) for part in figures.parts],
        "resamples": figures.config.resamples,
        "confidence": figures.config.confidence,
    }


def _pairs(measured: FloatArray, predicted: FloatArray) -> List[Dict[str, float]]:
    return [
        {"measured": float(one), "predicted": float(other)}
        for one, other in zip(measured, predicted)
    ]


def _fitter(evidence: Evidence, like: Optional[Profile]) -> Fitter:
    """Return the fit that made the profile."""
    profile = evidence.profile
    if profile.fit not in get_args(FitMethod):
        raise ConfigError(
            f"the profile was fitted by {profile.fit!r}, which cannot be done again; run edgeecc calibrate"
        )
    if like is not None and profile.fit != "like":
        raise ConfigError(
            f"the profile was fitted by {profile.fit}, not towards another; leave out --like"
        )
    return partial(
        fit, evidence.spec, form=Form.parse(profile.form), method=cast("FitMethod", profile.fit),
        meter=profile.meter, metric=profile.metric, like=None if like is None else like.cost_for(evidence.spec),
    )  # fmt: skip


def _check_same(evidence: Evidence, fitter: Fitter) -> None:
    """Check that all samples give the profile.

    Raises: ArtifactError when they do not.
    """
    profile, model = evidence.profile, fitter(evidence.known, evidence.told)
    error = heldout_error(model, evidence.held, evidence.truth).mean
    said = heldout_error(profile.model, evidence.held, evidence.truth).mean
    if model.terms != profile.model.terms or not math.isclose(
        error, said, rel_tol=_SAME, abs_tol=1e-9
    ):
        hint = "name in --like the profile that it was fitted towards, or " * (
            profile.fit == "like"
        )
        raise ArtifactError(
            f"a fit of its samples errs by {error:.3%} on held-out ones, the profile by {said:.3%}; {hint}run edgeecc "
            "calibrate again"
        )


def _parts(evidence: Evidence, draws: FloatArray, config: ReportConfig) -> List[Owned]:
    """Return what terms cost, by what they are of, from draws (B, T + 1)."""
    model, spec = evidence.profile.model, evidence.spec
    values = np.append(model.constant, model.coefficients)
    places: Dict[Owner, List[int]] = {(layer.kind, layer.name): [] for layer in spec.layers}
    for at, owner in enumerate(owners(model.terms, spec), 1):
        places.setdefault(owner, []).append(at)
    names = [FIXED, *(term.name for term in model.terms)]
    places[FIXED, FIXED] = [0]
    return [
        Owned(
            name,
            kind,
            float(values[own].sum()),
            percentile_interval(draws[:, own].sum(axis=1), config.confidence),
            tuple(
                Coefficient(
                    names[at],
                    float(values[at]),
                    percentile_interval(draws[:, at], config.confidence),
                )
                for at in own
            ),
        )
        for (kind, name), own in places.items()
    ]
