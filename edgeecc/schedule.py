"""Stages of fine-tuning: how long, at what rate, and with how much distillation."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, Optional, Sequence, Tuple

from edgeecc.errors import ConfigError

Decay = Literal["cosine", "constant"]
_FORM = "STEPS[,lr=RATE][,distill=SHARE][,constant]"


@dataclass(frozen=True)
class Stage:
    """A stretch of training.

    Args:
        steps: how long, at least 1.
        lr: learning rate at its beginning; None takes the run's.
        distill: share of the distillation loss; None takes the run's.
        decay: "cosine" lets the rate fall to nearly zero within the stage, "constant" keeps it.
    """

    steps: int
    lr: Optional[float] = None
    distill: Optional[float] = None
    decay: Decay = "cosine"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"a stage of {self.steps} steps trains nothing; give at least 1")
        if self.lr is not None and not 0.0 < self.lr < math.inf:
            raise ConfigError(f"learning rate {self.lr} of a stage must be positive")
        if self.distill is not None and not 0.0 <= self.distill <= 1.0:
            raise ConfigError(f"distillation share {self.distill} of a stage must lie in 0..1")


def parse_stage(text: str) -> Stage:
    """Read a stage as `--finetune` takes it: `100000,constant` or `300000,lr=3e-5,distill=0`.

    Raises: ConfigError naming the part that is wrong.
    """
    head, *parts = [part.strip() for part in text.split(",")]
    rate: Optional[float] = None
    share: Optional[float] = None
    decay: Decay = "cosine"
    for part in parts:
        key, _, value = part.partition("=")
        if part == "constant":
            decay = "constant"
        elif key == "lr":
            rate = _number(value, text)
        elif key == "distill":
            share = _number(value, text)
        else:
            raise ConfigError(f"{part!r} in stage {text!r} is not known; write {_FORM}")
    if not head.isdecimal():
        raise ConfigError(f"stage {text!r} does not begin with its steps; write {_FORM}")
    return Stage(int(head), rate, share, decay)


def rate_and_share(
    stages: Sequence[Stage], index: int, steps: int, rate: float, share: float
) -> Tuple[float, float]:
    """Return learning rate and distillation share of step `index` of `steps`, counted from 0.

    Args:
        stages: in order; where they are shorter than `steps`, the first is the longer for it.
        rate, share: of the run, for stages that leave them open.
    """
    lengths = [stage.steps for stage in stages]
    lengths[0] += steps - sum(lengths)
    ends = list(accumulate(lengths))
    place = bisect_right(ends, index)
    stage, length = stages[place], lengths[place]
    index -= ends[place] - length
    start = rate if stage.lr is None else stage.lr
    falling = 0.5 * (1.0 + math.cos(math.pi * index / length))
    return (
        start * (falling if stage.decay == "cosine" else 1.0),
        share if stage.distill is None else stage.distill,
    )


def risen(rate: float, index: int, rising: int) -> float:
    """Return the learning rate of step `index`, counted from 0, where it is to rise to `rate` in `rising` steps.

    Adam's first steps, before it knows the gradients, move every weight by the whole rate: where it is high they undo
    what the weights have learned. So it rises linearly at first (ours).
    """
    return rate * min(1.0, (index + 1) / max(1, rising))


def _number(text: str, stage: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} in stage {stage!r} is no number; write {_FORM}") from error
