"""What NetAdapt's rounds aim at, and how many steps each candidate trains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Tuple

from edgeecc.graph.spec import FloatArray
from edgeecc.peer_config import NetAdaptConfig
from edgeecc.solvers.base import Problem


@dataclass(frozen=True)
class Plan:
    """Targets that fall geometrically from the dense load to 1, as in ECC's comparison, counted from the dense load.

    Args:
        load: dense, above 1.
        rounds: how many targets, at least 1.
        decay: factor from one target to the next, (0, 1).
    """

    load: float
    rounds: int
    decay: float

    def target(self, turn: int) -> float:
        """Return the load that round `turn`, counted from 1, must not exceed; exactly 1 in the last."""
        return 1.0 if turn >= self.rounds else max(1.0, self.load * self.decay**turn)

    def due(self, turn: int, steps: int, spent: int) -> int:
        """Return how many training steps a round may take: equal shares, and what earlier rounds did not take.

        Args:
            turn: the round, counted from 1.
            steps: of the whole solve.
            spent: of these, before the round.
        """
        return steps * turn // self.rounds - spent

    def turn(self, problem: Problem, widths: FloatArray) -> int:
        """Return the first round whose target the widths (G,) do not hold, the last when they hold all."""
        for turn in range(1, self.rounds):
            if not problem.eased(max(1.0, self.target(turn))).fits(widths):
                return turn
        return self.rounds


def planned(load: float, steps: int, groups: int, config: NetAdaptConfig) -> Plan:
    """Return the plan for so many training steps.

    Where they are few and `config.scarce` is "coarsen", fewer rounds aim lower each, so that every candidate gets
    `config.least_steps` (ours).

    Args:
        load: dense, above 1.
        steps: of the whole solve.
        groups: prunable ones, each a candidate in every round.
        config: decay, least steps and what gives.
    """
    wanted = max(1, math.ceil(math.log(load) / -math.log(config.decay) - 1e-9))
    if config.scarce == "coarsen":
        afforded = max(1, steps // (groups * config.least_steps))
        if afforded < wanted:
            return Plan(load, afforded, load ** (-1.0 / afforded))
    return Plan(load, wanted, config.decay)


def shared_out(due: int, candidates: int, config: NetAdaptConfig) -> Tuple[int, int]:
    """Return how many candidates of a round are trained, and for how many steps each.

    All are, as published, when each can get `config.least_steps` or `config.scarce` is "coarsen". Otherwise only
    the most promising are trained (ours), as many as can get that many steps, none when one cannot.

    Args:
        due: training steps, see `Plan.due`.
        candidates: of this round, at least 1.
        config: least steps and what gives.
    """
    each = due // candidates
    if each >= config.least_steps or config.scarce == "coarsen":
        return candidates, each
    trained = due // config.least_steps
    return trained, due // trained if trained else 0
