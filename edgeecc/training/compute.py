"""Where and how training computes: device, precision of the forward passes, layout of images in memory."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass, replace
from typing import ContextManager, Dict, Optional

import torch
from torch import nn

from edgeecc.config import ComputeConfig, Precision
from edgeecc.errors import ConfigError, RuntimeUnavailableError, brief
from edgeecc.launch import local_rank
from edgeecc.training.layout import left_unsafe, plain_where_unsafe, trouble
from edgeecc.training.task import Task

_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """What a `ComputeConfig` comes to on this machine.

    Args:
        device: that trains.
        precision: see `ComputeConfig`.
        channels_last: whether images keep the channels of a pixel together; None until a network is known.
    """

    device: torch.device = torch.device("cpu")  # noqa: RUF009  # immutable
    precision: Precision = "fp32"
    channels_last: Optional[bool] = False

    def placed(self, values: torch.Tensor) -> torch.Tensor:
        """Return a tensor on the device; the copy to a GPU does not wait for what that computes."""
        if self.device.type == "cuda" and values.device.type == "cpu":
            return values.pin_memory().to(self.device, non_blocking=True)
        return values.to(self.device)

    def images(self, images: torch.Tensor) -> torch.Tensor:
        """Return images on the device in the layout that the network is fed with."""
        placed = self.placed(images)
        if self.channels_last and placed.ndim == 4:
            return placed.to(memory_format=torch.channels_last)
        return placed

    def autocast(self) -> ContextManager[None]:
        """Return the context of a forward pass in training."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_HALVES[self.precision])

    def guarding(self, model: nn.Module) -> ContextManager[None]:
        """Return the context of forward and backward passes in training; see `layout.plain_where_unsafe`."""
        if self.device.type == "cpu" and self.channels_last:
            return plain_where_unsafe(model, self.precision)
        return contextlib.nullcontext()

    def told(self) -> Dict[str, object]:
        """Return what a result says of it."""
        layout = {"channels_last": bool(self.channels_last)}
        return {"accelerator": self.device.type, "precision": self.precision, **layout}

    def settled(self, model: nn.Module, images: torch.Tensor, task: Task) -> Compute:
        """Return this with the layout settled: channels last where the network and its gradients take it.

        Raises: ConfigError where a layout was asked for that the network does not take.
        """
        if self.channels_last is False:
            return self
        try:
            why = trouble(model, self.placed(images), task)
            if not why and self.device.type == "cpu":
                why = left_unsafe(model, self.placed(images), self.precision)
        except RuntimeError as error:
            why = brief(error)
        if why and self.channels_last:
            raise ConfigError(
                f"the network does not take its images channels last: {why}; leave out --channels-last"
            )
        return replace(self, channels_last=not why)


#: One CPU, as torch has it.
PLAIN = Compute()


def compute_of(config: ComputeConfig) -> Compute:
    """Return what a config comes to on this machine, in this process of a job.

    Raises: RuntimeUnavailableError without the GPU that is asked for; ConfigError for a precision that the device
        does not have.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = config.accelerator
    if wanted == "cpu" or (wanted == "auto" and not count):
        device = torch.device("cpu")
    elif local_rank() < count:
        device = torch.device("cuda", local_rank())
    else:
        raise RuntimeUnavailableError(
            f"process {local_rank()} of this machine finds {count} GPUs; start as many processes as there are GPUs, or "
            "give --accelerator cpu"
        )
    if config.precision == "fp16" and device.type == "cpu":
        raise ConfigError("fp16 needs a GPU; give --precision bf16 or fp32")
    return Compute(device, config.precision, config.channels_last)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a network's weights, the CPU without weights."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def leaves_some_out(model: nn.Module, images: torch.Tensor, task: Task) -> bool:
    """Return whether a parameter has no part in the result, as those of an auxiliary head."""
    model = copy.deepcopy(model).eval().requires_grad_(True)
    output = task.output_of(model(images))
    gradients = torch.autograd.grad(output.sum(), list(model.parameters()), allow_unused=True)
    return any(gradient is None for gradient in gradients)
