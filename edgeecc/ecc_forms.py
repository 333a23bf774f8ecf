"""Which settings of ECC each of its two forms reads: one that is given to the other would change nothing."""

from __future__ import annotations

from edgeecc.config import EccConfig
from edgeecc.errors import ConfigError

#: Form, as `metric` names it -> the settings that it alone reads.
OWN = {
    "adam": ("rho1", "rho2", "epsilon", "beta"),
    "taylor": (
        "importance_decay", "warmup", "ramp", "pace", "rounds", "stand_in", "level", "least", "tile",
    ),
}  # fmt: skip
_DEFAULTS = EccConfig()


def refuse_unread(config: EccConfig) -> None:
    """Hold the settings against the form that they were made for.

    Raises: ConfigError for one that is not its default and that this form does not read.
    """
    for form, own in OWN.items():
        for name in own if form != config.metric else ():
            if getattr(config, name) != getattr(_DEFAULTS, name):
                raise ConfigError(
                    f"{name} is a setting of ecc with metric {form}, and metric {config.metric} does not read it; "
                    f"leave it out or set metric={form}"
                )
