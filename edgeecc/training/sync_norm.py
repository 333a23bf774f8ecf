"""Batch norm over the batch of all processes, with its gradients; on CPU and GPU alike.

`nn.SyncBatchNorm` runs on GPUs only and would be another module. Here modules stay as they are: inside a context
their forward is replaced, so parameters and buffers keep their names. What is computed is what one process would
compute on the whole batch, up to rounding.

With n values of a channel in all, mean m and biased variance v of all of them, h = (x - m) / sqrt(v + eps), and g
the gradient of the output, dx = w / sqrt(v + eps) * (g - sum(g) / n - h * sum(g h) / n), sums over all processes.
Each process keeps its own share of dw = sum(g h) and db = sum(g): they are summed with all other gradients.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any, Iterator, Optional, Tuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from edgeecc.errors import ConfigError
from edgeecc.training.parallel import World

#: Count, mean and biased variance of each channel over all processes.
Statistics = Tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@contextlib.contextmanager
def global_batch_norm(model: nn.Module, world: World) -> Iterator[None]:
    """Let the batch norms of a network that are in training mode see the batch of all processes.

    Raises: ConfigError for a batch norm whose forward is not torch's own.
    """
    norms = [] if world.size == 1 else [m for m in model.modules() if isinstance(m, _BatchNorm)]
    for norm in norms:
        if type(norm).forward is not _BatchNorm.forward:
            raise ConfigError(
                f"{type(norm).__name__} is a batch norm of its own kind, of which only one process can train; start it "
                "without torchrun"
            )
    try:
        for norm in norms:
            norm.forward = partial(_forward, norm, world)  # type: ignore[method-assign]  # until the context ends
        yield
    finally:
        for norm in norms:
            norm.__dict__.pop("forward", None)


def _forward(norm: _BatchNorm, world: World, x: torch.Tensor) -> torch.Tensor:
    if not norm.training:
        return _BatchNorm.forward(norm, x)
    norm._check_input_dim(x)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    count, mean, var = statistics(x, world)
    if float(count) <= 1.0:
        raise ValueError(f"Expected more than 1 value per channel when training, got {x.shape}")
    _remember_(norm, count, mean, var)
    found = _Normalise.apply(x, norm.weight, norm.bias, (count, mean, var), (norm.eps, world))  # type: ignore[no-untyped-call]
    assert isinstance(found, torch.Tensor)  # noqa: S101  # for the type checker
    return found


def statistics(x: torch.Tensor, world: World) -> Statistics:
    """Return count, (), mean and biased variance, (C,), of each channel of x, (N, C, ...), over all processes, float64.

    Processes exchange means and mean squares in float64, so cancellation costs nothing that float32 would have.
    """
    values = x.detach()
    values = values if values.dtype == torch.float64 else values.float()
    var, mean = torch.var_mean(values, _but_channels(x), correction=0)
    mean, var = mean.double(), var.double()
    own = torch.tensor([x.numel() / x.shape[1]], dtype=torch.float64, device=x.device)
    total = world.all_reduce(torch.cat([own, own * mean, own * (var + mean.square())]))
    count, channels = total[0], x.shape[1]
    mean = total[1 : channels + 1] / count
    return count, mean, (total[channels + 1 :] / count - mean.square()).clamp_min(0.0)


def _remember_(
    norm: _BatchNorm, count: torch.Tensor, mean: torch.Tensor, var: torch.Tensor
) -> None:
    """Move the running statistics as torch does: by the unbiased variance."""
    if norm.running_mean is None or norm.running_var is None:
        return
    share = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        share = 1.0 / float(norm.num_batches_tracked) if share is None else share
    assert share is not None  # noqa: S101  # for the type checker
    for kept, now in (
        (norm.running_mean, mean),
        (norm.running_var, var * (count / (count - 1.0))),
    ):
        kept.copy_((1.0 - share) * kept.double() + share * now)


class _Normalise(torch.autograd.Function):
    """Normalisation by given statistics, whose gradient knows that they are those of the input."""

    @staticmethod
    def forward(  # torch's signature
        ctx: Any,
        x: torch.Tensor,
        weight: Optional[torch.Tensor],
        bias: Optional[torch.Tensor],
        found: Statistics,
        how: Tuple[float, World],
    ) -> torch.Tensor:
        count, mean, var = found
        eps, ctx.world = how
        kind = torch.float64 if x.dtype == torch.float64 else torch.float32
        mean, var = mean.to(kind), var.to(kind)
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt(), count)
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Tuple[Optional[torch.Tensor], ...]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        axes = _but_channels(x)
        wide = gradient.to(mean.dtype)
        centred = x.to(mean.dtype) - _along(mean, x)
        own = wide.sum(axes)
        pulled = (wide * centred).sum(axes) * inverse
        whole, whole_pulled = (ctx.world.all_reduce(torch.stack([own, pulled])) / count).to(mean)
        scale = inverse if weight is None else inverse * weight.to(mean.dtype)
        change = wide - _along(whole, x) - centred * _along(inverse * whole_pulled, x)
        grown = (change * _along(scale, x)).to(x.dtype)
        if weight is None:
            return grown, None, None, None, None
        return grown, pulled.to(weight.dtype), own.to(weight.dtype), None, None


def _but_channels(x: torch.Tensor) -> Tuple[int, ...]:
    return tuple(axis for axis in range(x.ndim) if axis != 1)


def _along(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return one number a channel in a shape that broadcasts to x."""
    return values.reshape((1, -1) + (1,) * (x.ndim - 2))
