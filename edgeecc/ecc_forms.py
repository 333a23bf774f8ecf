"""Which settings of ECC each of its two forms reads: one that is given to the other would change nothing."""

from __future__ import annotations

from typing import Iterable

from edgeecc.config import EccConfig
from edgeecc.errors import ConfigError

#: Form, as `metric` names it -> the settings that it alone reads.
OWN = {
    "adam": ("rho1", "rho2", "epsilon", "beta"),
    "taylor": (
        "importance_decay", "warmup", "ramp", "pace", "rounds", "stand_in", "level", "least", "tile",
    ),
}  # fmt: skip


def refuse_unread(config: EccConfig, names: Iterable[str]) -> None:
    """Hold what somebody set against the form that it was set for.

    Args:
        config: the settings as they are.
        names: those that were given.
    Raises: ConfigError for one that this form does not read.
    """
    for name in names:
        for form, own in OWN.items():
            if form != config.metric and name in own:
                raise ConfigError(
                    f"{name} is a setting of ecc with metric {form}, and metric {config.metric} does not read it; "
                    f"leave it out or set metric={form}"
                )
