"""The score that methods choose by, of a slim copy: the same function of an image, with less to compute (ours)."""

from __future__ import annotations

from edgeecc.graph.spec import NetworkSpec
from edgeecc.graph.surgery import slim
from edgeecc.solvers.base import Trainer
from edgeecc.solvers.units import Alive, keep_of


def held_out_at(trainer: Trainer, spec: NetworkSpec, alive: Alive) -> float:
    """Return the held-out score of the trainer's network, in which nothing reads units that are not alive.

    Raises: ConfigError where no images are held out.
    """
    return trainer.held_out(slim(trainer.model, spec, keep_of(spec, alive)))
