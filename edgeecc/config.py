"""Every default of edgeecc, with its source.

The command line reads option defaults from these dataclasses, `edgeecc.toml` overrides them, and the
resolved values go into every artefact.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Dict, Literal, Optional, Tuple, get_args

from edgeecc.errors import ConfigError
from edgeecc.pattern import parse as parse_pattern
from edgeecc.schedule import Stage

FitMethod = Literal["work", "like", "nnls", "adam"]
FitChoice = Literal["auto", "work", "nnls", "adam"]
Design = Literal["i-optimal", "d-optimal", "uniform"]
Importance = Literal["taylor", "adam"]
Optimizer = Literal["adam", "sgd"]
WeightMetric = Literal["adam", "magnitude"]
MaskSchedule = Literal["joint", "rounds"]
TaskName = Literal["classification", "segmentation"]
Accelerator = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]

#: Forms of cost models, beside "auto"; `cost.forms` says what they sum.
COST_MODEL_GRAMMAR = "bilinear[+linear][+tiles:N][+spans]"
COST_MODEL = re.compile(r"bilinear(\+linear)?(?:\+tiles:([1-9]\d{0,3}))?(\+spans)?")
#: Label of pixels that belong to no class: neither trained on nor counted (Cityscapes' convention).
IGNORE_LABEL = 255


@dataclass(frozen=True)
class MeasureProtocol:
    """How one figure is measured.

    Args:
        warmup_runs: inferences before the first window.
        window_s: least length of one window, seconds.
        min_windows, max_windows: bounds on the number of windows.
        tolerance: stop when the standard error of the mean is below this share of the mean.
    """

    warmup_runs: int = 10
    window_s: float = 1.0  # ours: ten periods of the slowest counter (100 ms, NVML)
    min_windows: int = 5
    max_windows: int = 30
    tolerance: float = 0.02  # ours: below the 3 % that the fitted model is asked for

    def __post_init__(self) -> None:
        if self.warmup_runs < 0 or self.window_s <= 0.0:
            raise ConfigError("warmup_runs must be at least 0 and window_s above 0")
        if not 2 <= self.min_windows <= self.max_windows:
            raise ConfigError("min_windows must be at least 2 and at most max_windows")
        if not 0.0 < self.tolerance < 1.0:
            raise ConfigError(f"tolerance {self.tolerance} must lie in (0, 1)")


#: Energy: as it stands.
ENERGY_PROTOCOL = MeasureProtocol()
#: Latency alone: a clock has no counter period to outlast, and short windows show outliers.
LATENCY_PROTOCOL = MeasureProtocol(window_s=0.05, min_windows=10, max_windows=60)


@dataclass(frozen=True)
class CalibrateConfig:
    """How a device is calibrated.

    Args:
        samples: width variants to measure at most.
        target_error: stop as soon as the mean relative held-out error is below this with 95 % confidence; 0 measures
            them all.
        design: how the variants that are fitted are chosen, see `cost.design`.
        seed: seed of the widths, the folds and simulated noise.
        model: form of the cost model, see `COST_MODEL`; "auto" is chosen by cross-validation.
        fit: least squares alone ("nnls") or towards what the layers' work says ("work"), or the paper's "adam"; "auto"
            takes one of the first two by cross-validation, or towards another profile where one is given.
        heldout: share of the samples kept for the error; half of the first forty.
        fit: "nnls" (closed form) or "adam" (the paper's).
        heldout: share of the samples kept for the error.
        reference: board that the others are held to; empty takes the geometric mean of the fleet.
    """

    samples: int = (
        1000  # ours: 9 to 53 coefficients are settled by then (docs); the paper measured 10,000
    )
    target_error: float = 0.03  # ours: a reading's own error is 2 %
    design: Design = "i-optimal"  # ours: no more samples than by D (docs/benchmarks)
    seed: int = 0
    model: str = "auto"
    fit: FitChoice = "auto"
    heldout: float = 0.2  # ECC section 4.1: 8,000 / 2,000
    reference: str = ""

    def __post_init__(self) -> None:
        if self.samples < 10:
            raise ConfigError(
                f"{self.samples} samples cannot be split and fitted; give at least 10"
            )
        if not 0.0 < self.heldout < 1.0:
            raise ConfigError(f"heldout share {self.heldout} must lie in (0, 1)")
        if self.model != "auto" and not COST_MODEL.fullmatch(self.model):
            raise ConfigError(
                f"unknown cost model {self.model!r}; known are auto and {COST_MODEL_GRAMMAR}"
            )
        if not 0.0 <= self.target_error < 1.0:
            raise ConfigError(f"target error {self.target_error} must lie in [0, 1), such as 0.03")
        for what, found, known in (("fit", self.fit, FitChoice), ("design", self.design, Design)):
            if found not in get_args(known):
                raise ConfigError(
                    f"unknown {what} {found!r}; known are {', '.join(get_args(known))}"
                )
        _check_seed(self.seed)


#: Images per batch where none is given (ECC section 4.2: ImageNet, Cityscapes).
BATCH_SIZES: Dict[TaskName, int] = {"classification": 128, "segmentation": 4}


@dataclass(frozen=True)
class TrainConfig:
    """How a phase of training runs.

    Args:
        batch_size: images per batch; None takes 128 for classification, 4 for segmentation.
        lr: learning rate of Adam (alpha of the paper); None takes 1e-3 for images up to 64x64, else 1e-4.
        rise: share of every phase in which the learning rate rises linearly to its value, 0..1.
        weight_decay: coupled L2 on weights.
        distill: share q of the distillation loss, 0..1.
        seed: seed of the batch order, 0..2^32-1.
        optimizer: "adam", or "sgd" with momentum 0.9, as weighted sparse projection was published with.
        finetune: stages of fine-tuning; none is one stage whose rate falls by a cosine.
        class_weights: in segmentation, whether the loss weighs classes by how rare they are.
    """

    batch_size: Optional[int] = None
    lr: Optional[float] = None  # ours; the paper used 1e-5 over 300,000 steps on ImageNet
    rise: float = 0.05  # ours; without it Adam's first steps undo what was learned
    weight_decay: float = 1e-4  # ECC section 4.2
    distill: float = 0.5  # ECC section 4.2
    seed: int = 0
    optimizer: Optimizer = "adam"  # ECC section 4.2
    finetune: Tuple[Stage, ...] = ()
    class_weights: bool = True  # ERFNet, and the published code of ECC

    def __post_init__(self) -> None:
        if self.optimizer not in ("adam", "sgd"):
            raise ConfigError(f"unknown optimizer {self.optimizer!r}; known are adam, sgd")
        if (
            self.images_per_batch < 1
            or not 0.0 < self.learning_rate < math.inf
            or not 0.0 <= self.weight_decay < math.inf
        ):
            raise ConfigError(
                "batch size and learning rate must be positive, weight decay at least 0"
            )
        _check_seed(self.seed)
        if not 0.0 <= self.distill <= 1.0:
            raise ConfigError(f"distillation share {self.distill} must lie in 0..1")
        if not 0.0 <= self.rise <= 1.0:
            raise ConfigError(f"rise {self.rise} must lie in 0..1, a share of the steps")

    @property
    def learning_rate(self) -> float:
        """The learning rate; 1e-3 where none was given or scaled."""
        return 1e-3 if self.lr is None else self.lr

    @property
    def images_per_batch(self) -> int:
        """The batch size; that of classification where none was given or taken by task."""
        return BATCH_SIZES["classification"] if self.batch_size is None else self.batch_size


@dataclass(frozen=True)
class ComputeConfig:
    """What computes the training steps, and how.

    Args:
        accelerator: "cuda" is an NVIDIA GPU, "auto" one where there is one, and else the CPU.
        precision: of forward passes in training, student and teacher; "fp16" needs a GPU. Weights, losses, and all
            that is scored stay in float32.
        channels_last: whether images keep the channels of a pixel together in memory, which computes the same; None
            does where the network takes it.
    """

    accelerator: Accelerator = "auto"
    precision: Precision = "fp32"  # ours: on a CPU bf16 gains little (docs/benchmarks/README.md)
    channels_last: Optional[bool] = None  # ours: 21 to 28 % less time on a CPU, there too

    def __post_init__(self) -> None:
        for value, kinds in ((self.accelerator, Accelerator), (self.precision, Precision)):
            if value not in get_args(kinds):
                raise ConfigError(f"{value!r} is none of {', '.join(get_args(kinds))}")


@dataclass(frozen=True)
class EccConfig:
    """The ECC solver.

    Args:
        metric: "taylor" is the scale-free form (ours); "adam" is as published.
        rho1: penalty and dual step of the widths ("adam" only: where y is at its trim any keeps the same units).
        rho2: penalty and dual step of the budget ("adam" only; the scale-free form follows a schedule).
        epsilon: least slope that the budget's dual must leave on the fastest group ("adam" only).
        importance_decay: decay of the running importance ("taylor" only).
        beta: step of the widths ("adam" only), channels.
        warmup: steps in which importance settles ("taylor"): before the first removal, at most a tenth of all; a budget
            takes at least as many.
        ramp: share of the steps in which the budget is reached at most ("taylor"), where that is more than `pace`.
        pace: steps in which it may be reached in any case, where there are so many ("taylor"), see `ecc.needed`.
        rounds: of widths and masks in these steps, whole steps apart: so many, up to twice as many ("taylor").
        stand_in: whether channels that stay take over what they can of those that go ("taylor").
        level: power of what a layer's units were worth to it on average before pruning, by which what a unit is worth
            to the layer is divided ("taylor"), in [0, 1]: 0 is in units of loss, 1 makes layers alike.
        least: units that every group keeps ("taylor"), where the budget allows, see `widths.floors`.
        tile: channels that the last widths are multiples of where the budget allows ("taylor"); 0: as the cost model's
            tiles make it worth.
    """

    metric: Importance = "taylor"
    rho1: float = 10.0  # ECC section 4.2, ImageNet
    rho2: float = 10.0  # ECC section 4.2, ImageNet
    epsilon: float = 1e-3  # ECC Algorithm 1
    importance_decay: float = 0.8  # ours: older gradients are of another network (docs/adr/0016)
    beta: float = 3.0  # the published command line for MobileNet
    warmup: int = 50  # ours
    ramp: float = 0.5  # ours: the sooner the budget is reached, the longer what is kept can learn
    pace: int = 300  # ours: training keeps up with that, and not with half of it (docs/adr/0016)
    rounds: int = 100  # ours: one a step for short runs
    stand_in: bool = True  # ours
    level: float = 0.5  # ours: ahead on CIFAR-10, level on Fashion-MNIST (docs/adr/0013)
    least: int = 2  # ours: first-order terms count the last units of a group too low
    tile: int = 0

    def __post_init__(self) -> None:
        if self.metric not in ("taylor", "adam"):
            raise ConfigError(f"unknown importance metric {self.metric!r}; known are taylor, adam")
        steps = (self.rho1, self.rho2, self.epsilon, self.beta)
        if not all(0.0 < value < math.inf for value in steps):
            raise ConfigError("rho1, rho2, epsilon and beta must be positive")
        if self.warmup < 0 or self.pace < 0 or not 0.0 < self.ramp <= 1.0:
            raise ConfigError(
                f"warmup {self.warmup} and pace {self.pace} must be at least 0, and ramp {self.ramp} lie in (0, 1]"
            )
        if self.rounds < 1 or self.least < 1 or self.tile < 0:
            raise ConfigError(
                f"rounds {self.rounds} and least {self.least} must be at least 1, tile {self.tile} at least 0"
            )
        if not 0.0 <= self.level <= 1.0:
            raise ConfigError(f"level {self.level} must lie in [0, 1]")
        if not 0.0 <= self.importance_decay < 1.0:
            raise ConfigError(f"importance_decay {self.importance_decay} must lie in [0, 1)")


@dataclass(frozen=True)
class WspConfig:
    """Weighted sparse projection and its relatives that remove single weights.

    Args:
        metric: what a weight is worth, "adam": its square times the root mean square of its gradient (ours, after
            ECC's proximal step), or "magnitude": its square, as published.
        interval: batches between projections.
        ramp: share of the projections in which the budget is reached; the rest recovers.
        mask_schedule: "joint" chooses inputs with the weights in one phase (ours), "rounds" alternates as published.
        rounds: most rounds of the published schedule; each takes a tenth of all places away.
        sweeps: of energy-aware pruning, evenly over its steps.
    """

    metric: WeightMetric = "adam"
    interval: int = 10  # proj_int of the published code
    ramp: float = 0.75  # ours; the published schedule ends with the last batch
    mask_schedule: MaskSchedule = "joint"
    rounds: int = 9  # the published code goes on until nothing would be left
    sweeps: int = 1  # ours; more are no better (docs/benchmarks/single_weights.md)

    def __post_init__(self) -> None:
        if self.metric not in ("adam", "magnitude"):
            raise ConfigError(f"unknown metric {self.metric!r}; known are adam, magnitude")
        if self.mask_schedule not in ("joint", "rounds"):
            raise ConfigError(
                f"unknown mask schedule {self.mask_schedule!r}; known are joint, rounds"
            )
        if self.interval < 1:
            raise ConfigError(f"projection interval {self.interval} must be at least 1 batch")
        if not 0.0 < self.ramp <= 1.0:
            raise ConfigError(f"ramp {self.ramp} must lie in (0, 1]")
        if not 1 <= self.rounds <= 9:
            raise ConfigError(f"rounds {self.rounds} must lie in 1..9")
        if self.sweeps < 1:
            raise ConfigError(f"sweeps {self.sweeps} must be at least 1")


@dataclass(frozen=True)
class PruneConfig:
    """How a network is pruned to its budget.

    Args:
        method: solver, by its name in the table.
        steps: training steps while pruning; None scales with the data set.
        finetune_steps: training steps with the zero pattern fixed; None scales with the data set.
        margin: share by which the cost model's error is held off the budget; None takes what `confidence` asks.
        confidence: with which a measurement is to hold the budget, in (0, 1), by the profile's held-out samples;
            None takes 0.95, or what so few samples can tell.
        checkpoint_s: seconds between checkpoints.
        input_mask: whether "wsp" also masks the inputs of convolutions.
        held_out: training images that are never trained on, for a method that chooses by a score; None holds out
            as many as the method needs.
        judged: training images that are neither trained on nor chosen by, only scored at the end.
        val_apart: validation images that are scored at the end apart from the others, in place of such training images.
        pattern: N:M that "wsp" keeps along the input channels of every layer that can have it; None leaves them free.
    """

    method: str = "ecc"
    steps: Optional[int] = None
    finetune_steps: Optional[int] = None
    margin: Optional[float] = None
    confidence: Optional[float] = None
    checkpoint_s: float = 20.0  # ours: loses little, costs under 1 % of the time
    input_mask: bool = False
    pattern: Optional[str] = None
    held_out: Optional[int] = None
    judged: int = 0
    val_apart: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "finetune_steps", "held_out", "judged", "val_apart"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name} {value} must be at least 0")
        self._check_weights()
        if self.margin is not None and not 0.0 <= self.margin < 1.0:
            raise ConfigError(f"margin {self.margin} must lie in [0, 1)")
        if self.confidence is not None and not 0.0 < self.confidence < 1.0:
            raise ConfigError(f"confidence {self.confidence} must lie in (0, 1), such as 0.95")
        if self.confidence is not None and self.margin is not None:
            raise ConfigError("--confidence and --margin say the same in two ways; leave one out")
        if self.checkpoint_s <= 0.0:
            raise ConfigError(f"checkpoint_s {self.checkpoint_s} must be positive")

    def _check_weights(self) -> None:
        """Check what goes with methods that remove single weights only."""
        if self.input_mask and self.method != "wsp":
            raise ConfigError(f"input masks go with --method wsp, not with {self.method}")
        if self.input_mask and self.steps == 0:
            raise ConfigError("input masks are trained; give --steps of at least 1")
        if self.pattern is not None:
            parse_pattern(self.pattern)
            if self.method not in ("wsp", "magnitude"):
                raise ConfigError(
                    f"a pattern goes with --method wsp or magnitude, not with {self.method}"
                )


@dataclass(frozen=True)
class VerifyConfig:
    """What a verification tolerates and measures.

    Args:
        max_abs_error: largest difference between ONNX Runtime and the masked torch network, in float32.
        check_bytes: most bytes of validation images that are kept with a run for verification.
        calibration_images: training images kept with a run, on which int8 engines find their ranges.
    """

    max_abs_error: float = 1e-4  # ours: float32 rounding of a few hundred summands
    check_bytes: int = 64 * 2**20
    calibration_images: int = 64  # ours: ranges by entropy settle with tens of images


@dataclass(frozen=True)
class ReportConfig:
    """What a report of a calibration works out.

    Args:
        resamples: fits to resampled samples, for intervals of coefficients.
        confidence: of intervals and of upper bounds.
        seed: of the draws.
    """

    resamples: int = (
        200  # ours: an end of a normal interval has an error of a twentieth of its length
    )
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if not 40 <= self.resamples <= 100_000:
            raise ConfigError(
                f"{self.resamples} resamples must be 40, which tell a twentieth, to 100000"
            )
        if not 0.5 < self.confidence < 1.0:
            raise ConfigError(f"confidence {self.confidence} must lie in (0.5, 1), such as 0.95")
        _check_seed(self.seed)


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed {seed} must lie in 0..{2**32 - 1}")
