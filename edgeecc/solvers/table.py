"""The solvers by name, with what a use case must know of each before it loads torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Dict, Optional, cast

from edgeecc.config import EccConfig
from edgeecc.errors import ConfigError
from edgeecc.peer_config import (
    AmcConfig,
    EapChannelsConfig,
    HalpConfig,
    LcpConfig,
    NetAdaptConfig,
    NoSettings,
)
from edgeecc.plugins import lookup

if TYPE_CHECKING:  # the solvers themselves are loaded on use
    from edgeecc.solvers.base import Solver


@dataclass(frozen=True)
class Method:
    """A pruning method.

    Args:
        solver: `package.module:Class`, made with the settings.
        settings: makes its default settings.
        chooses: whether it chooses by training images that must be held out of training.
    """

    solver: str
    settings: Callable[[], object] = NoSettings
    chooses: bool = False


METHODS: Dict[str, Method] = {
    "amc": Method("edgeecc.solvers.amc:AmcSolver", AmcConfig, chooses=True),
    "eap-channels": Method("edgeecc.solvers.eap_channels:EapChannelsSolver", EapChannelsConfig),
    "ecc": Method("edgeecc.solvers.ecc:EccSolver", EccConfig),
    "halp": Method("edgeecc.solvers.halp:HalpSolver", HalpConfig),
    "lcp": Method("edgeecc.solvers.lcp:LcpSolver", LcpConfig, chooses=True),
    "netadapt": Method("edgeecc.solvers.netadapt:NetAdaptSolver", NetAdaptConfig, chooses=True),
    "uniform": Method("edgeecc.solvers.uniform:UniformSolver"),
}

#: Methods that remove single weights. wsp: weighted sparse projection. magnitude: the same schedule, whatever a weight
#: costs. eap: energy-aware pruning.
WEIGHT_METHODS = ("wsp", "eap", "magnitude")


def method(name: str) -> Method:
    """Return what is known of a method.

    Raises: ConfigError for an unknown name.
    """
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}; known are {', '.join(sorted(METHODS))}")
    return METHODS[name]


def make_solver(name: str, settings: Optional[object] = None) -> Solver:
    """Return a solver by name.

    Args:
        name: in the table.
        settings: of the method's own type; None takes its defaults.
    Raises: ConfigError for an unknown name.
    """
    row = method(name)
    made = row.settings() if settings is None else settings
    table = {known: entry.solver for known, entry in METHODS.items()}
    make = cast("Callable[[object], Solver]", lookup(table, name, kind="method"))
    return make(made)
