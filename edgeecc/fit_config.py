"""The settings of export --fit-budget, with their sources."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

from edgeecc.config import MeasureProtocol
from edgeecc.errors import ConfigError


@dataclass(frozen=True)
class FitBudgetConfig:
    """How `export --fit-budget` brings what is measured under a budget and close to it.

    Args:
        rounds: of corrected widths at most, after the network as pruning left it.
        confidence: with which a measured budget is to hold, in (0.5, 1): the measurement, plus that quantile of its
            standard error, is to be within it.
        band: how far below the tightest budget what is measured may stay, as a share of it.
        error: share of the band that the standard error's quantile may take; meters read until it does.
        max_windows: of one measurement.
        batches: on which units are weighed.
        finetune: share of the run's steps of fine-tuning that the new widths get, once.
        checkpoint_s: seconds between checkpoints.
    """

    rounds: int = 4
    confidence: float = 0.95
    band: float = 0.02  # ours: half of what samples of one device differ by
    error: float = 0.25  # ours: a reading that is 2.5 standard errors off is still inside
    max_windows: int = 600  # ours: enough where windows spread by 7 %
    batches: int = 50  # ours: as ECC's warm-up
    finetune: float = 1.0  # ours: half of a short fine-tuning cost a point of accuracy
    checkpoint_s: float = 20.0  # as of pruning

    def __post_init__(self) -> None:
        if not 0 <= self.rounds <= 100:
            raise ConfigError(f"rounds {self.rounds} must lie in 0..100")
        if not 0.5 < self.confidence < 1.0:
            raise ConfigError(f"confidence {self.confidence} must lie in (0.5, 1), such as 0.95")
        if not (0.0 < self.band < 1.0 and 0.0 < self.error < 1.0):
            raise ConfigError(f"band {self.band} and error {self.error} must lie in (0, 1)")
        if self.max_windows < MeasureProtocol.min_windows:
            raise ConfigError(
                f"max_windows {self.max_windows} must be at least {MeasureProtocol.min_windows}"
            )
        if self.batches < 1 or self.checkpoint_s <= 0.0:
            raise ConfigError("batches and checkpoint_s must be positive")
        if not 0.0 <= self.finetune <= 10.0:
            raise ConfigError(f"finetune {self.finetune} must lie in 0..10, a share of the run's")

    @property
    def quantile(self) -> float:
        """Standard errors that are added to a measurement, by a normal distribution."""
        return NormalDist().inv_cdf(self.confidence)

    @property
    def tolerance(self) -> float:
        """Relative standard error at which a measurement ends."""
        return min(MeasureProtocol.tolerance, self.band * self.error / self.quantile)
