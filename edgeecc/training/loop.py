"""The training loop that every solver shares."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Callable, Dict, List, Mapping, Optional, Sequence

import numpy as np
import torch
from torch import nn

from edgeecc.config import TrainConfig
from edgeecc.data.splits import Batch, Batches, Split, held_apart
from edgeecc.errors import ConfigError, brief
from edgeecc.schedule import Stage, rate_and_share
from edgeecc.solvers.base import Hooks, Step
from edgeecc.training import checkpoint
from edgeecc.training.classification import CLASSIFICATION
from edgeecc.training.distill import distillation_loss
from edgeecc.training.evaluate import evaluate
from edgeecc.training.task import Task

#: A history keeps at most about this many steps, evenly.
HISTORY_STEPS = 2000
#: A sample of training images takes no more.
SAMPLE_BYTES = 2**30
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
    other keeps the learning rate. With checkpoints a killed phase goes on exactly: batches are a function of the
    step, and the random state travels with the weights.

    Args:
        model: trained in place.
        train, val: splits.
        task: what is trained for and scored.
        config: see `TrainConfig`.
        checkpointing: None saves nothing.
        held_out: training images that are never trained on, for methods that choose by a score.
        on_step: progress.
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
        on_step: OnPhaseStep = lambda phase, step: None,
    ) -> None:
        self._model = model
        self._val = val
        self._task = task
        self._held_out: Optional[Split] = None
        if held_out:
            train, self._held_out = held_apart(train, held_out, config.seed)
        self._train = train
        self._batches = Batches(train, config.images_per_batch, config.seed)
        self._config = config
        self._checkpointing = checkpointing
        self._remembered_at = perf_counter()
        self._on_step = on_step
        self._teacher = copy.deepcopy(model).eval().requires_grad_(False)

    @property
    def model(self) -> nn.Module:
        """The network under training."""
        return self._model

    def evaluate(self) -> float:
        """Return the score that decides, on the validation data."""
        return next(iter(self.scores().values()))

    def scores(self) -> Dict[str, float]:
        """Return all scores on the validation data, the deciding one first."""
        return evaluate(self._model, self._val, self._task)

    def dense_scores(self) -> Dict[str, float]:
        """Return the teacher's scores on the validation data, the deciding one first."""
        return evaluate(self._teacher, self._val, self._task)

    def held_out(self) -> float:
        """Return the deciding score on the images held out of training.

        Raises: ConfigError where none are.
        """
        if self._held_out is None:
            raise ConfigError("this method chooses by held-out images; hold some out of training")
        return next(iter(evaluate(self._model, self._held_out, self._task).values()))

    def sample(self, most: int) -> torch.Tensor:
        """Return at most so many training images; fewer where they would take more than SAMPLE_BYTES."""
        order = np.random.default_rng(self._config.seed).permutation(len(self._train))
        count = max(1, min(most, SAMPLE_BYTES // self._train.take([0])[0].nbytes))
        return self._train.take(sorted(order[:count]))[0]

    def report(self, phase: str, step: Step) -> None:
        """Tell progress; see `Trainer.report`."""
        self._on_step(phase, step)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Return the tensor: there is one process."""
        return values

    def remember(self, name: str, state: Mapping[str, torch.Tensor]) -> None:
        """Write a state when the last one is old enough; see `Trainer.remember`."""
        kept = self._checkpointing
        if kept and kept.journal and perf_counter() - self._remembered_at >= kept.every_s:
            checkpoint.write_state(kept.journal, name, state)
            self._remembered_at = perf_counter()

    def recall(self, name: str) -> Optional[Dict[str, torch.Tensor]]:
        """Return what an interrupted run remembered; see `Trainer.recall`.

        Raises: ArtifactError when its file is damaged.
        """
        kept = self._checkpointing
        return checkpoint.read_state(kept.journal, name) if kept and kept.journal else None

    def train(  # noqa: PLR0913  # keyword-only, what short phases want otherwise
        self, phase: str, steps: int, hooks: Hooks, *, first_batch: int = 0, rate: float = 1.0,
        reported: bool = True, config: Optional[TrainConfig] = None,
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
        with _RandomState(self._config.seed):
            progress = self._restored(phase, optimizer, hooks)
            saved = perf_counter()
            stages = _stages(config, phase, steps)
            for index in range(progress.done, steps):
                lr, share = rate_and_share(
                    stages, index, steps, rate * config.learning_rate, config.distill
                )
                for group in optimizer.param_groups:
                    group["lr"] = lr
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
        return progress.history

    def _step(  # noqa: PLR0913  # keyword-only, one each
        self, phase: str, index: int, steps: int, *, batch: Batch, optimizer: torch.optim.Optimizer, hooks: Hooks,
        share: float,
    ) -> Step:  # fmt: skip
        self._model.train()
        images, labels = batch
        with torch.no_grad():
            teacher = self._task.output_of(self._teacher(images))
        output = self._output(images)
        self._task.check(output, labels)
        loss = distillation_loss(self._task, output, teacher, labels, share)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ConfigError(f"the loss is {value} at step {index + 1} of {phase}; lower --lr")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        hooks.after_backward(self._model)
        optimizer.step()
        values = dict(hooks.after_step(self._model, optimizer, index + 1, steps))
        return Step(index + 1, steps, value, values.pop("cost"), values)

    def _output(self, images: torch.Tensor) -> torch.Tensor:
        """Run the network in training mode, where it may fail for reasons of its own: batch norm on one value."""
        try:
            returned: object = self._model(images)
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"the network fails in training on a batch of {len(images)}: {brief(error)}; try another --batch-size"
            ) from error
        return self._task.output_of(returned)

    def _restored(
        self, phase: str, optimizer: torch.optim.Optimizer, hooks: Hooks
    ) -> checkpoint.Progress:
        if self._checkpointing is not None:
            found = checkpoint.restore(
                self._checkpointing.path, phase, model=self._model, optimizer=optimizer, hooks=hooks
            )
            if found is not None:
                return found
        return checkpoint.Progress(0, [])

    def _save(
        self, phase: str, optimizer: torch.optim.Optimizer, hooks: Hooks, progress: checkpoint.Progress
    ) -> None:  # fmt: skip
        if self._checkpointing is not None:
            checkpoint.save(
                self._checkpointing.path,
                phase,
                model=self._model,
                optimizer=optimizer,
                hooks=hooks,
                progress=progress,
            )


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


class _RandomState:
    """Give dropout and its like a random state of their own, and put the caller's back afterwards."""

    def __init__(self, seed: int) -> None:
        self._state = torch.Generator().manual_seed(seed).get_state()

    def __enter__(self) -> None:
        self._before = torch.get_rng_state()
        torch.set_rng_state(self._state)

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self._before)
