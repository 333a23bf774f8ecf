"""The settings of a fleet of boards, with their sources."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeecc.errors import ConfigError


@dataclass(frozen=True)
class FleetConfig:
    """How boards are driven together.

    Args:
        scheduler: address of a Dask scheduler that runs already, as tcp://HOST:PORT; empty starts one here.
        reference: board that the others are held to; empty takes the geometric mean of the fleet.
        shared: variants that every board measures beside the two anchors, so that their offsets can be told.
        canary_every: samples after which a board measures the dense network again, to be checked.
        drift: relative change of that, against the board's start, beyond which it counts as slow.
        slow_factor: the same for the wall time of a measurement.
        rest_s: seconds that a board rests after it was slow or gone, doubled each time in a row.
        rests: how often in a row a board may rest before it is given up.
        start_s, sample_s: seconds in which a board must answer at first, and with one variant.
        batch_s: seconds of work handed to a board at once.
    """

    scheduler: str = ""
    reference: str = ""
    shared: int = 3  # ours: with the anchors and the canaries an offset is known to under 1 %
    canary_every: int = 25  # ours: 4 % of the measurements
    drift: float = 0.15  # ours: beyond noise, below one step of a Jetson's clocks
    slow_factor: float = (
        2.0  # ours: the wall time of a measurement has more noise than what it measures
    )
    rest_s: float = 30.0  # ours: a board cools down or boots in a minute
    rests: int = 3  # ours: three and a half minutes in all
    start_s: float = 120.0  # ours: Python and a large graph from a slow card
    sample_s: float = 300.0  # ours: 30 windows of a second, several times over
    batch_s: float = 1.0  # ours: far above the cost of a message

    def __post_init__(self) -> None:
        for name in ("drift", "rest_s", "start_s", "sample_s", "batch_s"):
            value = getattr(self, name)
            if not 0.0 < value < math.inf:
                raise ConfigError(f"{name} {value} must be positive")
        for name, least in (("shared", 0), ("canary_every", 1), ("rests", 0)):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(f"{name} {value} must be at least {least}")
        if not 1.0 < self.slow_factor < math.inf:
            raise ConfigError(f"slow_factor {self.slow_factor} must be above 1")
