"""One training step: forward passes, loss, gradients; over all processes of a job, in the precision asked for.

Gradients are those of the loss of the whole batch, in float32 and unscaled, the same bits in every process.
"""

from __future__ import annotations

import contextlib
import math
from typing import Optional, Tuple

import torch
from torch import nn

from edgeecc.data.splits import Batch
from edgeecc.errors import ConfigError, brief
from edgeecc.training.compute import Compute, leaves_some_out
from edgeecc.training.distill import ALL, Parts, distillation_loss
from edgeecc.training.parallel import World, reducing
from edgeecc.training.sync_norm import global_batch_norm
from edgeecc.training.task import Task

#: Halvings of the scale that a step with float16 may take: from its start, 2^16, to 2^-8.
HALVINGS = 24
#: What DDP says in the step after one in which a parameter had no part.
_UNFINISHED = "finished reduction"


class Stepper:
    """Gradients and steps of one network; a phase begins with `start` and ends with `stop`.

    Args:
        model: under training.
        teacher: what its outputs are held to, in evaluation mode.
        task: what is trained for.
        compute: where and how.
        world: the processes that share each batch.
    """

    def __init__(
        self, model: nn.Module, teacher: nn.Module, task: Task, *, compute: Compute, world: World
    ) -> None:
        self._model, self._shared, self._teacher = model, model, teacher
        self._task, self._compute, self._world = task, compute, world
        self._unused: Optional[bool] = None
        self._scaler: Optional[torch.amp.GradScaler] = None

    def start(self, images: torch.Tensor, scale: Optional[Tuple[float, int]] = None) -> None:
        """Begin a phase.

        Args:
            images: at least one, as the network takes them.
            scale: what `scale` returned where an interrupted phase goes on.
        """
        if self._world.size > 1:
            if self._unused is None:
                placed = self._compute.images(images)
                self._unused = leaves_some_out(self._model, placed, self._task)
            self._shared = self._world.sharing(self._model, unused=self._unused)
        if self._compute.precision == "fp16":
            self._scaler = torch.amp.GradScaler(self._compute.device.type)
            if scale is not None:
                kept = {"scale": scale[0], "_growth_tracker": scale[1]}
                self._scaler.load_state_dict({**self._scaler.state_dict(), **kept})

    def stop(self) -> None:
        """End a phase."""
        self._shared, self._scaler = self._model, None

    def scale(self) -> Optional[Tuple[float, int]]:
        """Return the scale of float16's gradients and the steps since it changed; None in other precisions."""
        if self._scaler is None:
            return None
        state = self._scaler.state_dict()
        return float(state["scale"]), int(state["_growth_tracker"])

    def gradients_(
        self, optimizer: torch.optim.Optimizer, batch: Batch, share: float, where: str
    ) -> float:
        """Give every parameter its gradient of the loss of the batch; return the loss.

        Where float16 overflows, the batch is done again at half the scale, so no step is lost.

        Args:
            optimizer: of the network's parameters.
            batch: this process's part.
            share: of the distillation loss.
            where: step and phase, for messages.
        Raises: ConfigError when the loss is not finite or the network fails; DataError for labels that do not fit.
        """
        for _ in range(HALVINGS):
            optimizer.zero_grad(set_to_none=True)
            with self._compute.guarding(self._model):
                value = self._backward(batch, share, where)
            if self._scaler is None:
                return value
            self._scaler.unscale_(optimizer)
            if self._is_finite():
                return value
            self._scaler.step(optimizer)  # knows of the overflow and moves nothing
            self._scaler.update()
        raise ConfigError(f"gradients overflow float16 at {where}; give --precision bf16")

    def move_(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the optimiser make its step."""
        if self._scaler is None:
            optimizer.step()
        else:
            self._scaler.step(optimizer)
            self._scaler.update()

    def _backward(self, batch: Batch, share: float, where: str) -> float:
        self._model.train()
        images, labels = self._compute.images(batch[0]), self._compute.placed(batch[1])
        with torch.no_grad(), self._compute.autocast():
            teacher = self._task.output_of(self._teacher(images))
        output = self._output(images)
        self._task.check(output, batch[1])
        output = _full(output)
        parts = self._parts(output, labels)
        loss = distillation_loss(self._task, output, _full(teacher), labels, share, parts)
        value = float(self._world.all_reduce(loss.detach()))
        if not math.isfinite(value):
            raise ConfigError(f"the loss is {value} at {where}; lower --lr")
        whole = loss * self._world.size if self._world.size > 1 else loss  # gradients are means
        with reducing() if self._world.size > 1 else contextlib.nullcontext():
            (whole if self._scaler is None else self._scaler.scale(whole)).backward()  # type: ignore[no-untyped-call]
        return value

    def _output(self, images: torch.Tensor) -> torch.Tensor:
        """Run the network in training mode, where it may fail for reasons of its own: batch norm on one value."""
        try:
            with self._compute.autocast(), global_batch_norm(self._model, self._world):
                returned: object = self._shared(images)
        except (RuntimeError, ValueError) as error:
            if _UNFINISHED in str(error):
                raise ConfigError(
                    "a layer of the network took no part in the last step, and processes cannot share its gradient; "
                    "train this network in one process"
                ) from error
            raise ConfigError(
                f"the network fails in training on a batch of {len(images)}: {brief(error)}; try another --batch-size"
            ) from error
        return self._task.output_of(returned)

    def _parts(self, output: torch.Tensor, labels: torch.Tensor) -> Parts:
        """Return what this process's means count among those of all: of what the loss averages, and of images."""
        if self._world.size == 1:
            return ALL
        images = labels.new_tensor(len(labels)).double()
        own = torch.stack([self._task.mass(output, labels).double(), images])
        total = self._world.all_reduce(own)
        shares = (own.clamp_min(1.0) / total.clamp_min(1.0)).tolist()
        return shares[0], shares[1]

    def _is_finite(self) -> bool:
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        return all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


def _full(output: torch.Tensor) -> torch.Tensor:
    """Return an output in full precision."""
    return output.float() if output.dtype in (torch.bfloat16, torch.float16) else output
