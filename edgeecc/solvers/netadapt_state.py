"""What NetAdapt carries from candidate to candidate, and the same as tensors that survive a kill."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Mapping, Optional, Tuple

import torch

from edgeecc.solvers.remembered import understood
from edgeecc.solvers.units import Alive

#: A state dict, copied.
Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class State:
    """What the last round left.

    Args:
        alive: units of each group.
        weights: of the network.
        score: on the held-out images.
        loss: of the last batch trained on, 0 before the first.
        left: training steps that no candidate has spent.
        seen: batches that the weights have been trained on.
        history: (steps spent, loss, first cost, score) of each round.
        moments: that the optimiser of the weights ended with.
    """

    alive: Alive
    weights: Weights
    score: float
    loss: float
    left: int
    seen: int
    history: Tuple[Tuple[float, float, float, float], ...] = ()
    moments: Weights = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """A candidate that was judged: its place among those of its round, its score, last loss, weights and moments."""

    place: int
    score: float
    loss: float
    weights: Weights
    moments: Weights = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """How far a round is.

    Args:
        screened: scores of untrained candidates, in order.
        tried: how many of the candidates to train have been.
        best: of these.
    """

    screened: Tuple[float, ...] = ()
    tried: int = 0
    best: Optional[Trial] = None


def packed(state: State, progress: Progress) -> Dict[str, torch.Tensor]:
    """Return state and progress as tensors."""
    best = progress.best
    tensors = {
        "counts": torch.tensor(
            [state.left, state.seen, progress.tried, -1 if best is None else best.place]
        ),
        "numbers": torch.tensor([state.score, state.loss], dtype=torch.float64),
        "screened": torch.tensor(progress.screened, dtype=torch.float64),
        "history": torch.tensor(state.history, dtype=torch.float64).reshape(-1, 4),
    }
    for index, living in enumerate(state.alive):
        tensors[f"alive.{index}"] = torch.from_numpy(living).to(torch.uint8)
    tensors.update({f"weights.{name}": value for name, value in state.weights.items()})
    tensors.update({f"moments.{name}": value for name, value in state.moments.items()})
    if best is not None:
        tensors["best"] = torch.tensor([best.score, best.loss], dtype=torch.float64)
        tensors.update({f"best.{name}": value for name, value in best.weights.items()})
        tensors.update({f"best_moments.{name}": value for name, value in best.moments.items()})
    return tensors


def unpacked(tensors: Mapping[str, torch.Tensor]) -> Tuple[State, Progress]:
    """Return what `packed` packed.

    Raises: ArtifactError where it is damaged or of another version.
    """
    with understood():
        return _unpacked(tensors)


def _unpacked(tensors: Mapping[str, torch.Tensor]) -> Tuple[State, Progress]:
    left, seen, tried, place = (int(value) for value in tensors["counts"])
    score, loss = (float(value) for value in tensors["numbers"])
    groups = sum(name.startswith("alive.") for name in tensors)
    state = State(
        alive=[tensors[f"alive.{index}"].numpy().astype(bool) for index in range(groups)],
        weights=_under("weights.", tensors),
        score=score,
        loss=loss,
        left=left,
        seen=seen,
        history=tuple((row[0], row[1], row[2], row[3]) for row in tensors["history"].tolist()),
        moments=_under("moments.", tensors),
    )
    best = None
    if place >= 0:
        numbers = tensors["best"].tolist()
        best = Trial(
            place,
            numbers[0],
            numbers[1],
            _under("best.", tensors),
            _under("best_moments.", tensors),
        )
    return state, Progress(tuple(tensors["screened"].tolist()), tried, best)


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
