"""Correct a cost model by what its networks measured: a scale and an offset, in the region of the present one (ours).

    measured = scale * predicted + offset

A board is not the one that was calibrated, or not as warm. Pairs of predicted and measured costs of the networks at
hand, the dense one and the slim one of each round, tell by how much around the cost that is wanted; far from there the
same two numbers need not hold. They minimise, in units of the latest prediction p0,

    sum_i ((m_i - scale p_i - offset) / e_i)^2 + ((scale - 1) / S)^2 + (offset / (O p0))^2

with e_i the standard error of m_i, made larger with the distance of p_i from p0 (`REGION`), scale >= `LEAST_SCALE` and
constant * scale + offset >= 0. The first keeps the corrected model monotone, the second non-negative, as solvers ask.
One pair alone leaves the line open, and S and O share its residual: nine tenths go into the scale. Where meters are
noisy, S and O hold the correction near none at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Dict, Sequence

import numpy as np

from edgeecc.cost.nnls import nnls
from edgeecc.cost.product import ProductModel
from edgeecc.cost.profile import Profile
from edgeecc.errors import ConfigError

#: S: what scales are expected to be off by, as a standard deviation (ours: boards of a kind differ by less).
SCALE_SPREAD = 0.3
#: O: what offsets are expected to come to, as a share of the cost (ours: a third of that, so the scale goes first).
OFFSET_SPREAD = 0.1
#: Distance, as a share of p0, at which a pair's standard error counts double.
REGION = 0.3
#: Share of a measurement that no meter is trusted beyond; keeps weights finite.
LEAST_ERROR = 1e-6
#: Scale below which widths would hardly matter.
LEAST_SCALE = 0.1
#: What stands before the number of networks in the meter of a corrected model.
_CORRECTED = ", corrected by"


@dataclass(frozen=True)
class Pair:
    """What one network was predicted to cost, and what it measured.

    Args:
        predicted: by the model that is corrected, SI, above 0.
        measured: SI, above 0.
        error: standard error of `measured`, SI, at least 0.
    """

    predicted: float
    measured: float
    error: float

    def __post_init__(self) -> None:
        fine = all(math.isfinite(value) for value in (self.predicted, self.measured, self.error))
        if not fine or self.predicted <= 0.0 or self.measured <= 0.0 or self.error < 0.0:
            raise ConfigError(
                f"cannot correct by {self.measured} measured (standard error {self.error}) against {self.predicted} "
                "predicted; costs must be positive, look at the meter and the profile"
            )


@dataclass(frozen=True)
class Correction:
    """What a model's predictions are corrected by.

    Args:
        scale: factor, above 0.
        offset: metric unit.
    """

    scale: float = 1.0
    offset: float = 0.0

    def at(self, predicted: float) -> float:
        """Return the corrected cost of a network, SI."""
        return self.scale * predicted + self.offset

    def of(self, model: ProductModel, meter: str) -> ProductModel:
        """Return the corrected model: non-negative and monotone as the first one.

        Args:
            model: whose constant `corrected_by` was told.
            meter: of the corrected model, as printed beside its numbers.
        """
        return ProductModel(
            model.metric,
            meter,
            groups=model.groups,
            terms=model.terms,
            coefficients=self.scale * model.coefficients,
            constant=max(0.0, self.at(model.constant)),
        )

    def to_json(self) -> Dict[str, float]:
        """Return the two numbers."""
        return {"scale": self.scale, "offset": self.offset}


def corrected_by(pairs: Sequence[Pair], constant: float = 0.0) -> Correction:
    """Return the correction of a model by what was measured; see the module.

    Args:
        pairs: at least one; the last is the present network, around which the correction is to hold.
        constant: of the model, SI, at least 0: what it predicts however thin the network.
    Raises: ConfigError without a pair.
    """
    if not pairs:
        raise ConfigError("nothing was measured, so there is nothing to correct by")
    here = pairs[-1].predicted
    predicted, measured, error = (
        np.array([getattr(pair, name) for pair in pairs]) / here
        for name in ("predicted", "measured", "error")
    )
    fixed = constant / here
    error = np.maximum(error, LEAST_ERROR * measured) * (1.0 + ((predicted - 1.0) / REGION) ** 2)
    # In scale - LEAST_SCALE and the corrected constant both bounds are those of non-negative least squares.
    rows = [*zip((predicted - fixed) / error, 1.0 / error), (1.0 / SCALE_SPREAD, 0.0)]
    rows.append((-fixed / OFFSET_SPREAD, 1.0 / OFFSET_SPREAD))
    targets = [*(measured / error), 1.0 / SCALE_SPREAD, 0.0]
    matrix = np.array(rows)
    more, left = nnls(matrix, np.array(targets) - LEAST_SCALE * matrix[:, 0])
    scale = LEAST_SCALE + float(more)
    return Correction(scale, (float(left) - scale * fixed) * here)


def corrected_profile(
    profile: Profile, correction: Correction, pairs: Sequence[Pair], meter: str
) -> Profile:
    """Return a profile whose model is corrected, and says so.

    Held-out error and ratios stay: how far single variants lie from the model was seen in calibration alone.

    Args:
        profile: that is corrected.
        correction: of its model.
        pairs: that the correction is made of.
        meter: that measured them.
    """
    first, _, _ = profile.model.meter.partition(_CORRECTED)
    count = f"{len(pairs)} network{'s' if len(pairs) > 1 else ''}"
    last = pairs[-1]
    note = (
        f"corrected by {count} measured by {meter}: scale {correction.scale:.4g}, offset {correction.offset:.4g} "
        f"{profile.metric.unit}; the last measured {last.measured:.6g} {profile.metric.unit} (standard error "
        f"{last.error:.2g}) where {last.predicted:.6g} was predicted; held-out error and ratios are of the model before"
    )
    return replace(
        profile,
        model=correction.of(profile.model, f"{first}{_CORRECTED} {count}"),
        note="; ".join(
            each for each in (profile.note.partition("corrected by")[0].rstrip("; "), note) if each
        ),
    )
