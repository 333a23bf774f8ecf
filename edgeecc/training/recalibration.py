"""Batch norms' running statistics taken anew: those of the dense network tell nothing of a pruned one.

Source: Li et al., EagleEye (ECCV 2020), where accuracy after it ranks candidates as accuracy after training does.
"""

from __future__ import annotations

import contextlib
from typing import Iterator, Sequence, Union

import torch
from torch import nn

from edgeecc.data.splits import images_together

#: Images that run together at most, where they are small.
IMAGES = 128

_Norm = Union[nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm]
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def recalibrate_(model: nn.Module, images: torch.Tensor) -> None:
    """Replace in place running means and variances by those of the images, averaged over batches of them.

    All else runs as in evaluation, dropout too; modes and momenta are as before afterwards.

    Args:
        model: its other weights do not change; without batch norms nothing does.
        images: (N, C, H, W); from fewer than 2 nothing can be told.
    """
    norms = [one for one in model.modules() if isinstance(one, _NORMS) and one.track_running_stats]
    if not norms or len(images) < 2:
        return
    device = next(model.parameters()).device
    together = images_together(images.shape, IMAGES)
    parts = max(1, min(len(images) // 2, -(-len(images) // together)))  # no part of one image
    with _measuring(model, norms), torch.no_grad():
        for part in images.tensor_split(parts):
            model(part.to(device))


@contextlib.contextmanager
def _measuring(model: nn.Module, norms: Sequence[_Norm]) -> Iterator[None]:
    """Let batch norms average all batches alike while the context is open."""
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    try:
        model.eval()
        for norm in norms:
            norm.train()
            norm.momentum = None  # a plain mean
            norm.reset_running_stats()
        yield
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
