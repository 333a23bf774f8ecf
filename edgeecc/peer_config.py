"""The settings of the methods beside ECC, with their sources, and settings from text."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Literal, Sequence, TypeVar, get_args, get_origin, get_type_hints

from edgeecc.errors import ConfigError

T = TypeVar("T")
Ranking = Literal["affine", "shift"]

Scarce = Literal["screen", "coarsen"]
Select = Literal["score", "ratio"]
HalpCourse = Literal["load", "reducible"]


@dataclass(frozen=True)
class NoSettings:
    """Of a method that has none."""


@dataclass(frozen=True)
class LcpConfig:
    """Layer-compensated global ranking: LeGR (CVPR 2020), LcP.

    Args:
        form: "affine" ranks filters by scale * squared norm + shift of their group (LeGR), "shift" by squared norm +
            shift (LcP).
        evaluations: rankings that the evolution judges, the initial population included.
        population: rankings that live at a time; as many at the start are random.
        tournament: rankings that are drawn for each step; the best of them is mutated.
        mutated: share of the groups that a mutation draws, with replacement, at least one.
        protected: share of a group's units that are removed last, rounded up.
        tau: training steps of each evaluation; -1 takes what half of all steps allow, which may be none.
        recalibrate: training images by which each evaluation renews the statistics of batch norms; 0 is as published.
    """

    form: Ranking = "affine"
    evaluations: int = 400  # LeGR's code, as the next four
    population: int = 64
    tournament: int = 16
    mutated: float = 0.1
    protected: float = 0.1
    tau: int = -1  # LeGR's code: 0 for ResNet-56 on CIFAR-10, 200 for MobileNetV2 on CIFAR-100
    recalibrate: int = 512  # ours, after EagleEye: without training scores are else near chance

    def __post_init__(self) -> None:
        if self.form not in ("affine", "shift"):
            raise ConfigError(f"unknown form {self.form!r}; known are affine, shift")
        if not 1 <= self.tournament <= self.population <= self.evaluations:
            raise ConfigError(
                f"tournament {self.tournament}, population {self.population} and evaluations {self.evaluations} must "
                "be at least 1 and not fall"
            )
        if not (0.0 < self.mutated <= 1.0 and 0.0 <= self.protected <= 1.0):
            raise ConfigError(
                f"mutated {self.mutated} must lie in (0, 1] and protected {self.protected} in 0..1"
            )
        if self.tau < -1 or self.recalibrate < 0:
            raise ConfigError(
                f"tau {self.tau} must be at least -1, which lets it follow from the steps, and recalibrate "
                f"{self.recalibrate} at least 0"
            )


@dataclass(frozen=True)
class HalpConfig:
    """Knapsack of first-order importance: HALP (NeurIPS 2022).

    Args:
        rounds: knapsacks, their loads falling geometrically to the budget; no more than there are steps for them.
        interval: steps between rounds, whatever `ramp` and `pace` say; 0 spreads them over these.
        ramp: share of the steps in which the budget is reached; fine-tuning has the rest.
        grain: widths are multiples of it, or whole; halved until the budget can be met.
        course: what falls geometrically, the whole "load", or what is "reducible" of it, so that rounds take alike
            where a part is fixed.
        pace: steps in which the budget is reached at least, where there are so many.
    """

    rounds: int = 30  # HALP's code for ResNet-50, every 40 iterations of about 112,000
    interval: int = 0
    ramp: float = (
        0.5  # ours: of 1/4, 1/2 and 3/4 the best in the mean of two seeds on Fashion-MNIST at 20 %
    )
    grain: int = 1  # HALP's code takes the step size of the device's latency
    course: HalpCourse = "load"  # as published
    pace: int = 0  # ECC's takes 300

    def __post_init__(self) -> None:
        _at_least_one(self, ("rounds", "grain"))
        if self.interval < 0 or self.pace < 0:
            raise ConfigError(f"interval {self.interval} and pace {self.pace} must be at least 0")
        if self.course not in get_args(HalpCourse):
            raise ConfigError(f"unknown course {self.course!r}; known are load, reducible")
        if not 0.0 < self.ramp <= 1.0:
            raise ConfigError(f"ramp {self.ramp} must lie in (0, 1]")


@dataclass(frozen=True)
class AmcConfig:
    """AutoML for model compression: an agent walks the network and says how much of each group stays.

    Args:
        episodes: walks in all, shared evenly by the alternations.
        warmup: of these, walks of even chance before the agent learns, shared likewise.
        alternations: times that the network is pruned and then trained, for equal parts of the training steps.
        lower_bound: share of a group's dense width that stays at least, where the budget leaves room for it.
        divisor: widths are multiples of this where the bounds allow.
        images: training images, at most, on which the layers are fitted.
        hidden: width of both hidden layers of actor and critic.
        actor_lr, critic_lr: learning rates of Adam.
        tau: share by which the slow copies follow.
        gamma: discount of later rewards.
        batch: transitions in an update.
        replay: transitions remembered, per group.
        baseline: weight of the newest batch in the moving average of rewards.
        sigma: deviation of the noise in the first walk after the warm-up.
        decay: factor on the noise from walk to walk.
    """

    episodes: int = 400  # AMC, quoted by ECC section 4.2
    warmup: int = 100  # the published code
    alternations: int = 4  # ECC section 4.2, after AMC section 4
    lower_bound: float = 0.2  # the published code
    divisor: int = 1  # ours: the cost models have no tiles; the published code takes 8
    images: int = 3000  # the published code: 60 batches of 50
    hidden: int = 300  # the published code
    actor_lr: float = 1e-4  # the published code
    critic_lr: float = 1e-3  # the published code
    tau: float = 0.01  # the published code
    gamma: float = 1.0  # the published code
    batch: int = 64  # the published code
    replay: int = 100  # the published code
    baseline: float = 0.5  # the published code
    sigma: float = 0.5  # the published code
    decay: float = 0.95  # the published code

    def __post_init__(self) -> None:
        counts = ("alternations", "divisor", "images", "hidden", "batch", "replay")
        _at_least_one(self, counts)
        if self.episodes < self.alternations:
            raise ConfigError(
                f"{self.episodes} episodes are fewer than {self.alternations} alternations; each needs one"
            )
        if not 0 <= self.warmup <= self.episodes:
            raise ConfigError(f"warmup {self.warmup} must lie in 0..{self.episodes}, the episodes")
        if not (0.0 < self.actor_lr < math.inf and 0.0 < self.critic_lr < math.inf):
            raise ConfigError("actor_lr and critic_lr must be positive")
        for name in ("lower_bound", "gamma"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} {getattr(self, name)} must lie in 0..1")
        for name in ("tau", "baseline", "sigma", "decay"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} {getattr(self, name)} must lie in (0, 1]")


def _at_least_one(settings: object, names: Sequence[str]) -> None:
    for name in names:
        if getattr(settings, name) < 1:
            raise ConfigError(f"{name} {getattr(settings, name)} must be at least 1")


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
        recalibrate: batches of training images whose statistics a candidate's batch norms have when it is scored; 0
            leaves those of its training, as published.
        carry: whether the optimiser goes on with what it knew of the weights that a candidate starts from, or starts
            afresh.
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
    recalibrate: int = 4  # ours, as LcP's: candidates train a few steps or none
    carry: bool = False  # afresh as published, where gradient descent takes it well

    def __post_init__(self) -> None:
        if not 0.0 < self.decay < 1.0:
            raise ConfigError(f"decay {self.decay} must lie in (0, 1)")
        if self.least_steps < 1:
            raise ConfigError(f"least_steps {self.least_steps} must be at least 1")
        if not 0.0 < self.rate < math.inf:
            raise ConfigError(f"rate {self.rate} must be positive")
        if self.recalibrate < 0:
            raise ConfigError(f"recalibrate {self.recalibrate} must be at least 0")
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
