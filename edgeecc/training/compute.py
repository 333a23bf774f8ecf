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
from edgeecc.training.task import Task

_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
#: Outputs of the two layouts may differ by so much, as a share of the largest: rounding of a deep network.
LAYOUT_TOLERANCE = 1e-3


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

    def told(self) -> Dict[str, object]:
        """Return what a result says of it."""
        layout = {"channels_last": bool(self.channels_last)}
        return {"accelerator": self.device.type, "precision": self.precision, **layout}

    def settled(self, model: nn.Module, images: torch.Tensor, task: Task) -> Compute:
        """Return this with the layout settled; see `takes_channels_last`.

        Raises: ConfigError where a layout was asked for that the network does not take.
        """
        if self.channels_last is False:
            return self
        try:
            why = layout_trouble(model, self.placed(images), task)
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


def layout_trouble(model: nn.Module, images: torch.Tensor, task: Task) -> str:
    """Return why a network cannot be fed channels last, empty where it can: the same outputs, up to rounding.

    Raises: RuntimeError where the network fails in that layout, as where it takes a view of what is not contiguous.
    """
    if images.ndim != 4:
        return f"images have {images.ndim - 1} axes"
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        plain = task.output_of(model(images))
        other = task.output_of(model(images.to(memory_format=torch.channels_last)))
    error = (plain - other).abs().max() / plain.abs().max().clamp_min(1e-30)
    fine = bool(error <= LAYOUT_TOLERANCE) or torch.equal(plain, other)
    return "" if fine else f"its outputs change by {float(error):.1e}"


def leaves_some_out(model: nn.Module, images: torch.Tensor, task: Task) -> bool:
    """Return whether a parameter has no part in the result, as those of an auxiliary head."""
    model = copy.deepcopy(model).eval().requires_grad_(True)
    output = task.output_of(model(images))
    gradients = torch.autograd.grad(output.sum(), list(model.parameters()), allow_unused=True)
    return any(gradient is None for gradient in gradients)
