"""The settings of the methods beside ECC, with their sources, and settings from text."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Literal, Sequence, TypeVar, get_args, get_origin, get_type_hints

from edgeecc.errors import ConfigError

T = TypeVar("T")

Scarce = Literal["screen", "coarsen"]
Select = Literal["score", "ratio"]


@dataclass(frozen=True)
class NoSettings:
    """Of a method that has none."""


@dataclass(frozen=True)
class NetAdaptConfig:
    """NetAdapt.

    Args:
        decay: factor on the target load from round to round.
        least_steps: training steps that a candidate gets at least, for its score to tell anything.
        scarce: what gives where steps are too few for that, "screen": only the most promising candidates of a
            round are trained, or "coarsen": there are fewer rounds.
        select: the candidate of a round that stays, "score": of the highest score, or "ratio": that loses the
            least score per load saved.
        rate: factor on the learning rate in the training of candidates.
    """

    decay: float = 0.96  # ECC section 4.2 and its published code (bdecay)
    least_steps: int = (
        10  # ours: of 1, 4, 10 and 30 the steadiest on a small network from 120 to 480 steps
    )
    scarce: Scarce = (
        "screen"  # ours: not worse where steps are very few, better from four times as many
    )
    select: Select = "score"  # ECC's published code; NetAdapt's has "ratio"
    rate: float = 1.0  # ECC's published code trains candidates and the final network alike

    def __post_init__(self) -> None:
        if not 0.0 < self.decay < 1.0:
            raise ConfigError(f"decay {self.decay} must lie in (0, 1)")
        if self.least_steps < 1:
            raise ConfigError(f"least_steps {self.least_steps} must be at least 1")
        if not 0.0 < self.rate < math.inf:
            raise ConfigError(f"rate {self.rate} must be positive")
        if self.scarce not in ("screen", "coarsen"):
            raise ConfigError(f"unknown scarce {self.scarce!r}; known are screen, coarsen")
        if self.select not in ("score", "ratio"):
            raise ConfigError(f"unknown select {self.select!r}; known are score, ratio")


@dataclass(frozen=True)
class EapChannelsConfig:
    """Energy-aware pruning of channels.

    Args:
        images: training images that layers are fitted on at most.
        sweeps: over all groups, evenly over the steps.
        beyond: share of a group's width that is pruned beyond it, to be restored by what its readers need.
    """

    images: int = 1000  # as for single weights; ten places of each are 10,000 rows of a layer
    sweeps: int = 1  # as for single weights (docs/benchmarks/single_weights.md)
    beyond: float = 0.3  # as for single weights

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ConfigError(f"images {self.images} must be at least 1")
        if self.sweeps < 1:
            raise ConfigError(f"sweeps {self.sweeps} must be at least 1")
        if not 0.0 <= self.beyond < 1.0:
            raise ConfigError(f"beyond {self.beyond} must lie in [0, 1)")


def with_settings(base: T, texts: Sequence[str]) -> T:
    """Return settings with some replaced, each given as name=value; the type of the field reads the value.

    Args:
        base: a frozen dataclass whose fields are whole numbers, numbers, flags or closed sets of texts.
        texts: "name=value" each.
    Raises: ConfigError for an unknown name or a value that does not fit.
    """
    known = {field.name for field in fields(base)}  # type: ignore[arg-type]  # a dataclass, as the docstring asks
    types = get_type_hints(type(base))
    values = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise ConfigError(f"{text!r} sets nothing; write name=value, names are {names}")
        values[name] = _read(types[name], value, text)
    return replace(base, **values)  # type: ignore[type-var]  # a dataclass, as the docstring asks


def _read(kind: object, value: str, text: str) -> object:
    if kind is bool:
        if value not in ("true", "false"):
            raise ConfigError(f"{text!r} must be true or false")
        return value == "true"
    choices = get_args(kind)
    if choices and get_origin(kind) is not None and all(isinstance(one, str) for one in choices):
        if value not in choices:
            raise ConfigError(f"{text!r} is none of {', '.join(choices)}")
        return value
    if kind in (int, float):
        try:
            return int(value) if kind is int else float(value)
        except ValueError as error:
            raise ConfigError(f"{text!r} is no {'whole ' if kind is int else ''}number") from error
    raise ConfigError(f"{text!r} cannot be set from text")
