"""The training loop that every solver shares."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Callable, Dict, List, Mapping, Optional, Sequence

import numpy as np
import torch
from torch import nn

from edgeecc.config import TrainConfig
from edgeecc.data.splits import Batch, Batches, Split, held_apart
from edgeecc.errors import ConfigError
from edgeecc.graph.spec import Keep
from edgeecc.schedule import Stage, rate_and_share, risen
from edgeecc.solvers.base import Hooks, Moments, Step
from edgeecc.training import checkpoint
from edgeecc.training.classification import CLASSIFICATION
from edgeecc.training.compute import PLAIN, Compute
from edgeecc.training.evaluate import evaluate
from edgeecc.training.moments import moments_of, take_back_
from edgeecc.training.parallel import ALONE, World
from edgeecc.training.randomness import own_random_state, seed_
from edgeecc.training.recalibration import recalibrate_
from edgeecc.training.step import Stepper
from edgeecc.training.task import Task

#: From a network and the units that stay to a smaller copy that computes the same where nothing reads the others.
Slimmed = Callable[[nn.Module, Keep], nn.Module]
#: A history keeps at most about this many steps, evenly.
HISTORY_STEPS = 2000
#: A sample of training images takes no more.
SAMPLE_BYTES = 2**30
#: Steps after which processes make sure that they have removed the same.
ALIKE_STEPS = 50
#: Of the draw of validation images that are held apart.
APART_SEED = 0
#: Of plain gradient descent (ICLR 2019 code).
MOMENTUM = 0.9
#: Called with the phase and each step.
OnPhaseStep = Callable[[str, Step], None]


@dataclass(frozen=True)
class Checkpointing:
    """Where and how often a phase is saved.

    Args:
        path: file of the phase.
        every_s: seconds between saves.
        journal: file of what a search remembers; None keeps nothing.
    """

    path: Path
    every_s: float
    journal: Optional[Path] = None


class TorchTrainer:
    """Distilled training of one network on one data set; a `Trainer`.

    The teacher is the network as it is handed in. Phase "finetune" goes through the stages of its config, any
    other keeps the learning rate. With checkpoints a killed phase goes on exactly, in any number of processes: batches
    are a function of the step, the random state one of step and process. The first process writes, all read.

    Args:
        model: trained in place.
        train, val: splits.
        task: what is trained for and scored.
        config: see `TrainConfig`.
        checkpointing: None saves nothing.
        held_out: training images that are never trained on, for methods that choose by a score.
        judged: further ones, that no method sees.
        val_apart: validation images that are no part of the scores: they judge, in place of training images. The same
            ones whatever the seed, so that what was chosen by them in one run is scored without them in another.
        on_step: progress.
        compute: where and how; the network moves to its device.
        world: the processes that share each batch; all of them must do the same with their trainers.
        slimmed: makes the slim copies that are scored; None scores the masked network.
    Raises: ConfigError for a batch with fewer images than processes, images in a layout that the network does not
        take, or both kinds of images that judge.
    """

    def __init__(  # noqa: PLR0913  # keyword-only, one each
        self,
        model: nn.Module,
        train: Split,
        val: Split,
        *,
        config: TrainConfig,
        task: Task = CLASSIFICATION,
        checkpointing: Optional[Checkpointing] = None,
        held_out: int = 0,
        judged: int = 0,
        val_apart: int = 0,
        on_step: OnPhaseStep = lambda phase, step: None,
        compute: Compute = PLAIN,
        world: World = ALONE,
        slimmed: Optional[Slimmed] = None,
    ) -> None:
        self._model = model.to(compute.device)
        self._world = world
        self._task = task
        self._slimmed = slimmed
        self._held_out: Optional[Split] = None
        self._judged: Optional[Split] = None
        if judged and val_apart:
            raise ConfigError(
                f"{judged} training and {val_apart} validation images cannot both judge; leave one out"
            )
        if val_apart:
            val, self._judged = held_apart(val, val_apart, APART_SEED, what="validation")
        self._val = val
        if judged:
            train, self._judged = held_apart(train, judged, config.seed)
        if held_out:
            train, self._held_out = held_apart(train, held_out, config.seed)
        self._train = train
        self._compute = compute.settled(self._model, train.take([0])[0], task)
        self._batches = Batches(
            train, config.images_per_batch, config.seed, own=_own_images(train, config, world)
        )
        self._config = config
        self._checkpointing = checkpointing
        self._remembered_at = perf_counter()
        self._on_step = on_step
        self._teacher = copy.deepcopy(self._model).eval().requires_grad_(False)
        self._stepper = Stepper(
            self._model, self._teacher, task, compute=self._compute, world=world
        )

    @property
    def model(self) -> nn.Module:
        """The network under training."""
        return self._model

    def on(self, model: nn.Module) -> TorchTrainer:
        """Return a trainer of another network with the same data, teacher, settings and files."""
        other = copy.copy(self)
        other._model = model.to(self._compute.device)
        other._stepper = Stepper(
            other._model, self._teacher, self._task, compute=self._compute, world=self._world
        )
        return other

    @property
    def batch(self) -> int:
        """Images of a training batch, over all processes."""
        return min(self._config.images_per_batch, len(self._train))

    @property
    def world(self) -> World:
        """The processes that train."""
        return self._world

    def computed(self) -> Dict[str, object]:
        """Return what trains and how, as results say it."""
        return {**self._compute.told(), "processes": self._world.size}

    def evaluate(self) -> float:
        """Return the score that decides, on the validation data."""
        return next(iter(self.scores().values()))

    def scores(self) -> Dict[str, float]:
        """Return all scores on the validation data, the deciding one first."""
        return self._scores_of(self._model, self._val)

    def dense_scores(self) -> Dict[str, float]:
        """Return the teacher's scores on the validation data, the deciding one first."""
        return self._scores_of(self._teacher, self._val)

    def held_out(self, keep: Optional[Keep] = None, renew: Optional[torch.Tensor] = None) -> float:
        """Return the deciding score on the images held out of training; see `Trainer.held_out`.

        Raises: ConfigError where none are.
        """
        if self._held_out is None:
            raise ConfigError("this method chooses by held-out images; hold some out of training")
        scored = self._model
        if keep is not None and self._slimmed is not None:
            scored = self._slimmed(self._model, keep)
        if renew is not None:
            if scored is self._model:
                scored = copy.deepcopy(scored)
            recalibrate_(scored, renew)
        return next(iter(self._scores_of(scored, self._held_out).values()))

    def judged(self) -> Optional[float]:
        """Return the deciding score on the images that no method sees; None without any."""
        if self._judged is None:
            return None
        return next(iter(self._scores_of(self._model, self._judged).values()))

    def sample(self, most: int) -> torch.Tensor:
        """Return at most so many training images; fewer where they would take more than SAMPLE_BYTES."""
        order = np.random.default_rng(self._config.seed).permutation(len(self._train))
        count = max(1, min(most, SAMPLE_BYTES // self._train.take([0])[0].nbytes))
        return self._train.take(sorted(order[:count]))[0]

    def report(self, phase: str, step: Step) -> None:
        """Tell progress; see `Trainer.report`."""
        self._on_step(phase, step)

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over the processes; see `Trainer.total`."""
        return values if self._world.size == 1 else self._world.all_reduce(values)

    def remember(self, name: str, state: Mapping[str, torch.Tensor]) -> None:
        """Write a state when the last one is old enough; see `Trainer.remember`."""
        kept = self._checkpointing if self._world.is_main else None
        if kept and kept.journal and perf_counter() - self._remembered_at >= kept.every_s:
            checkpoint.write_state(kept.journal, name, state)
            self._remembered_at = perf_counter()

    def recall(self, name: str) -> Optional[Dict[str, torch.Tensor]]:
        """Return what an interrupted run remembered; see `Trainer.recall`.

        Raises: ArtifactError when its file is damaged.
        """
        kept = self._checkpointing
        found = checkpoint.read_state(kept.journal, name) if kept and kept.journal else None
        self._world.barrier()  # before the first process writes another
        return found

    def train(  # noqa: PLR0913  # keyword-only, what short phases want otherwise
        self, phase: str, steps: int, hooks: Hooks, *, first_batch: int = 0, rate: float = 1.0,
        reported: bool = True, moments: Optional[Moments] = None, config: Optional[TrainConfig] = None,
    ) -> List[Step]:  # fmt: skip
        """Run a phase; see `Trainer.train`. `config` replaces the trainer's rate and weight decay for this phase.

        Raises: ConfigError when the loss stops being finite, no weight can be trained, or the network fails on a
            batch; DataError for a label that the network cannot tell.
        """
        if steps and not any(p.requires_grad for p in self._model.parameters()):
            raise ConfigError(
                "every weight of the network is frozen; set requires_grad in its factory"
            )
        config = config or self._config
        optimizer = _optimizer(self._model, config)
        with own_random_state(self._compute.device):
            take_back_(self._model, optimizer, moments or {})
            progress = self._restored(phase, steps, optimizer, hooks)
            self._stepper.start(self._train.take([0])[0], progress.scale)
            saved = perf_counter()
            stages = _stages(config, phase, steps)
            for index in range(progress.done, steps):
                lr, share = rate_and_share(
                    stages, index, steps, rate * config.learning_rate, config.distill
                )
                for group in optimizer.param_groups:
                    group["lr"] = risen(lr, index, round(config.rise * steps))
                seed_(self._compute.device, config.seed, first_batch + index, self._world.rank)
                batch = self._batches.batch(first_batch + index)
                step = self._step(
                    phase, index, steps, batch=batch, optimizer=optimizer, hooks=hooks, share=share
                )  # fmt: skip
                progress.done = index + 1
                if index % max(1, steps // HISTORY_STEPS) == 0 or index + 1 == steps:
                    progress.history.append(step)
                if reported:
                    self._on_step(phase, step)
                if self._checkpointing and perf_counter() - saved >= self._checkpointing.every_s:
                    self._save(phase, optimizer, hooks, progress)
                    saved = perf_counter()
            self._stepper.stop()
            self._check_alike()
        if moments is not None:
            moments.clear()
            moments.update(moments_of(self._model, optimizer))
        return progress.history

    def _step(  # noqa: PLR0913  # keyword-only, one each
        self, phase: str, index: int, steps: int, *, batch: Batch, optimizer: torch.optim.Optimizer, hooks: Hooks,
        share: float,
    ) -> Step:  # fmt: skip
        value = self._stepper.gradients_(optimizer, batch, share, f"step {index + 1} of {phase}")
        hooks.after_backward(self._model)
        self._stepper.move_(optimizer)
        values = dict(hooks.after_step(self._model, optimizer, index + 1, steps))
        if (index + 1) % ALIKE_STEPS == 0:
            self._check_alike()
        return Step(index + 1, steps, value, values.pop("cost"), values)

    def _check_alike(self) -> None:
        """Check that all processes have removed the same.

        Raises: ParallelError.
        """
        if self._world.size > 1:
            self._world.check_alike(zeros_digest(self._model), "weights that are zero")

    def _scores_of(self, model: nn.Module, split: Split) -> Dict[str, float]:
        return evaluate(model, split, self._task, compute=self._compute, world=self._world)

    def _restored(
        self, phase: str, steps: int, optimizer: torch.optim.Optimizer, hooks: Hooks
    ) -> checkpoint.Progress:
        found: Optional[checkpoint.Progress] = None
        if self._checkpointing is not None:
            found = checkpoint.restore(
                self._checkpointing.path,
                phase,
                steps,
                model=self._model,
                optimizer=optimizer,
                hooks=hooks,
            )
            self._world.barrier()  # before the first process writes another
        return found or checkpoint.Progress(0, [])

    def _save(
        self, phase: str, optimizer: torch.optim.Optimizer, hooks: Hooks, progress: checkpoint.Progress
    ) -> None:  # fmt: skip
        if self._checkpointing is not None and self._world.is_main:
            progress.scale = self._stepper.scale()
            checkpoint.save(
                self._checkpointing.path,
                phase,
                model=self._model,
                optimizer=optimizer,
                hooks=hooks,
                progress=progress,
            )


def zeros_digest(model: nn.Module) -> int:
    """Return a number, 0..2^56-1, that tells which parameters of a network are zero."""
    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(np.packbits((parameter.detach() == 0).cpu().numpy()).tobytes())
    return int.from_bytes(digest.digest()[:7], "big")


def _own_images(train: Split, config: TrainConfig, world: World) -> slice:
    """Return which images of each batch are this process's."""
    size = min(config.images_per_batch, len(train))
    if size < world.size:
        raise ConfigError(
            f"a batch of {size} cannot be shared by {world.size} processes; start fewer or give a larger --batch-size"
        )
    return world.slice_of(size)


def _optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), lr=rate, momentum=MOMENTUM, weight_decay=decay)
    return torch.optim.Adam(model.parameters(), lr=rate, weight_decay=decay)


def _stages(config: TrainConfig, phase: str, steps: int) -> Sequence[Stage]:
    """Return the stages of a phase: a constant rate while pruning, then a cosine to nearly zero (ECC section 4.2)."""
    if phase != "finetune":
        return (Stage(max(1, steps), decay="constant"),)
    return config.finetune or (Stage(max(1, steps)),)
