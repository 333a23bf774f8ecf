"""Regularised (aging) evolution of a scale and a shift per group (Real et al. 2019; settings of LeGR, CVPR 2020).

The state is the whole past: what was tried, and its score. Each individual is drawn from a generator of its own
number, so a search that is taken up again goes on as if it had never stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Mapping, Tuple

import numpy as np
import torch

from edgeecc.errors import ArtifactError
from edgeecc.graph.spec import FloatArray
from edgeecc.peer_config import LcpConfig

#: The step of a mutation falls to 1 - 1/1.25 of its first over the search (LeGR's code).
SHRINK = 1.25


@dataclass(frozen=True)
class Tried:
    """What was tried so far, in order.

    Args:
        scales, shifts: (n, G).
        scores: (n,), more is better.
    """

    scales: FloatArray
    shifts: FloatArray
    scores: FloatArray

    @staticmethod
    def none(groups: int) -> Tried:
        """Return the start of a search."""
        return Tried(np.zeros((0, groups)), np.zeros((0, groups)), np.zeros(0))

    def plus(self, scale: FloatArray, shift: FloatArray, score: float) -> Tried:
        """Return this with one more."""
        return Tried(
            np.vstack([self.scales, scale]),
            np.vstack([self.shifts, shift]),
            np.append(self.scores, score),
        )

    def best(self) -> int:
        """Return the place of the best score, the first among equals."""
        return int(np.argmax(self.scores))

    def state(self) -> Dict[str, torch.Tensor]:
        """Return this as tensors."""
        return {
            "scales": torch.from_numpy(self.scales),
            "shifts": torch.from_numpy(self.shifts),
            "scores": torch.from_numpy(self.scores),
        }

    @staticmethod
    def taken_back(state: Mapping[str, torch.Tensor], groups: int) -> Tried:
        """Return what `state` gave.

        Raises: ArtifactError where it is of another network or damaged.
        """
        arrays = [state[name].numpy() for name in ("scales", "shifts", "scores") if name in state]
        count = len(arrays[-1]) if arrays else 0
        if [array.shape for array in arrays] != [(count, groups), (count, groups), (count,)]:
            raise ArtifactError(
                "what the run folder remembers of the search does not fit the network; remove its search.safetensors "
                "to search again"
            )
        return Tried(*arrays)


def proposed(
    tried: Tried, spread: FloatArray, config: LcpConfig, seed: int
) -> Tuple[FloatArray, FloatArray]:
    """Return the scale and the shift, (G,), to try next.

    The first `population` are random, the last of them the identity. Later ones mutate the best of a tournament
    among the `population` youngest: whoever is older has died, whatever its score.

    Args:
        tried: so far.
        spread: standard deviation of the norms of each group, (G,): that of its shift.
        config: see `LcpConfig`.
        seed: of the search.
    """
    turn, groups = len(tried.scores), len(spread)
    generator = np.random.default_rng([seed, turn])
    if turn == config.population - 1:
        scale, shift = np.ones(groups), np.zeros(groups)
    elif turn < config.population:
        scale = np.exp(generator.normal(0.0, 1.0, groups))
        shift = generator.normal(0.0, 1.0, groups) * spread
    else:
        scale, shift = _mutated(tried, spread, config, generator)
    return (scale if config.form == "affine" else np.ones(groups)), shift


def _mutated(
    tried: Tried, spread: FloatArray, config: LcpConfig, generator: np.random.Generator
) -> Tuple[FloatArray, FloatArray]:
    turn, groups = len(tried.scores), len(spread)
    living = np.arange(turn - config.population, turn)
    drawn = np.sort(generator.choice(living, config.tournament, replace=False))
    parent = drawn[np.argmax(tried.scores[drawn])]
    scale, shift = tried.scales[parent].copy(), tried.shifts[parent].copy()
    step = 1.0 - turn / (SHRINK * config.evaluations)
    for group in generator.integers(0, groups, max(1, int(config.mutated * groups))):
        scale[group] *= np.exp(generator.normal(0.0, step))
        shift[group] += generator.normal(0.0, 1.0) * spread[group]
    return scale, shift
