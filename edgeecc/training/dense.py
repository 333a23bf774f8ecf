"""Train a dense network from scratch: for the demo and the benchmarks, whose starting points are made here."""

from __future__ import annotations

import math
from typing import Callable

import torch
from torch import nn

from edgeecc.data.splits import Batches, Split
from edgeecc.errors import ConfigError
from edgeecc.schedule import risen
from edgeecc.training.allocator import freed_memory_kept
from edgeecc.training.classification import CLASSIFICATION
from edgeecc.training.compute import PLAIN, Compute
from edgeecc.training.task import Task


def initialise_(model: nn.Module, seed: int) -> None:
    """Give a network fresh weights from a seed: He-normal kernels, unit batch norms, zero biases."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0.0, math.sqrt(2.0 / fan_in), generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()


def train_dense_(  # noqa: PLR0913  # keyword-only, one sample or state each
    model: nn.Module, train: Split, *, steps: int, batch_size: int, lr: float, seed: int,
    task: Task = CLASSIFICATION, compute: Compute = PLAIN,
    on_step: Callable[[int, int], None] = lambda step, steps: None,
) -> None:  # fmt: skip
    """Train with Adam, the task's loss and a one-cycle rate: linear warm-up, then a cosine to zero.

    Args:
        compute: where and how; the network moves to its device and stays there.
    Raises: ConfigError for fp16, whose gradients are not scaled here.
    """
    if compute.precision == "fp16":
        raise ConfigError(
            "dense training does not scale gradients, as fp16 needs; take bf16 or fp32"
        )
    compute = compute.settled(model.to(compute.device), train.take([0])[0], task)
    batches = Batches(train, batch_size, seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=1e-4)
    model.train()
    with freed_memory_kept(compute.device):
        for step in range(steps):
            rate = risen(lr, step, steps // 20)
            for group in optimizer.param_groups:
                group["lr"] = rate * 0.5 * (1.0 + math.cos(math.pi * step / steps))
            images, labels = batches.batch(step)
            with compute.guarding(model):
                with compute.autocast():
                    output = task.output_of(model(compute.images(images)))
                loss = task.loss(output.float(), compute.placed(labels))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            on_step(step + 1, steps)
