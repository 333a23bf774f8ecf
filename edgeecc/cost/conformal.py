"""How far a measurement may lie above its prediction, with a stated confidence (split conformal prediction).

Source: Vovk, Gammerman and Shafer 2005; Lei et al. 2018, section 2.2. No fit saw any of n held-out samples, so the
ratio of the next measurement to its prediction has each rank among theirs with equal chance, whatever the model and the
noise. The k-th smallest ratio, k = ceil((n + 1) confidence), is therefore exceeded with probability 1 - confidence at
most. That holds for variants drawn as the held-out ones were; a pruned network is one variant that a solver chose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Sequence

from edgeecc.errors import ConfigError

#: Confidence where none is asked for (ours).
USUAL = 0.95
#: 20 * 0.95 is a little more than 19 in floating point; no sample is asked for by that.
ROUNDING = 1e-9


def upper_ratio(ratios: Sequence[float], confidence: float) -> float:
    """Return the ratio of measured to predicted that the next sample stays under with this confidence.

    Args:
        ratios: of held-out samples, any order.
        confidence: in (0, 1).
    Raises: ConfigError when there are too few samples to say so, or for a confidence out of range.
    """
    if not 0.0 < confidence < 1.0:
        raise ConfigError(f"confidence {confidence} must lie in (0, 1), such as 0.95")
    rank = math.ceil((len(ratios) + 1) * confidence - ROUNDING)
    if rank > len(ratios):
        raise ConfigError(
            f"{len(ratios)} held-out samples cannot tell {confidence:.4g} confidence, which takes "
            f"{least_samples(confidence)}; calibrate with more --samples or ask for less"
        )
    return float(sorted(ratios)[rank - 1])


@dataclass(frozen=True)
class Margin:
    """What is held off a budget so that a measurement holds it.

    Args:
        share: of the prediction, at least 0.
        confidence: with which that is enough; None: nobody can say.
    """

    share: float
    confidence: Optional[float] = None


def margin_of(ratios: Sequence[float], confidence: Optional[float] = None) -> Margin:
    """Return the margin by held-out samples, at least one.

    Args:
        ratios: of measured to predicted.
        confidence: that is asked for; None takes USUAL, or what so few samples can tell at most.
    Raises: ConfigError as `upper_ratio`.
    """
    wanted = min(USUAL, len(ratios) / (len(ratios) + 1)) if confidence is None else confidence
    return Margin(max(0.0, upper_ratio(ratios, wanted) - 1.0), wanted)


def least_samples(confidence: float) -> int:
    """Return how many held-out samples a confidence takes."""
    return math.ceil(confidence / (1.0 - confidence) - ROUNDING)
