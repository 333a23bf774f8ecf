"""The solvers by name."""

from __future__ import annotations

from edgeecc.config import EccConfig
from edgeecc.errors import ConfigError
from edgeecc.solvers.base import Solver
from edgeecc.solvers.ecc import EccSolver
from edgeecc.solvers.uniform import UniformSolver

SOLVERS = ("ecc", "uniform")


def make_solver(name: str, ecc: EccConfig) -> Solver:
    """Return a solver by name.

    Raises: ConfigError for an unknown name.
    """
    if name == "ecc":
        return EccSolver(ecc)
    if name == "uniform":
        return UniformSolver()
    raise ConfigError(f"unknown method {name!r}; known are {', '.join(SOLVERS)}")
