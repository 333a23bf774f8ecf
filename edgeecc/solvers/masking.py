"""The mask phase of input masking: weights stand still, and masks are trained onto a share of all places.

Source: layer input masking (ICLR 2019) and its code. After each step masks are clamped to 0..1; every few
batches the largest share of all places of all layers together stays, by magnitude, and the rest is zeroed; at
the end masks are rounded, a half to even.

The rounding only zeroes or completes places that stayed, so the share holds after it too.
"""

from __future__ import annotations

import math
from typing import Dict, List, Mapping

import torch
from torch import nn

from edgeecc.errors import ConfigError

#: Batches between projections, as for weights.
INTERVAL = 10


class MaskHooks:
    """Hooks of the mask phase.

    Args:
        masks: trained in place.
        share: of all places that stays, (0, 1].
        cost: of the network before the phase, for the progress.
        interval: batches between projections.
    """

    def __init__(
        self,
        masks: Mapping[str, nn.Parameter],
        share: float,
        cost: float,
        interval: int = INTERVAL,
    ) -> None:
        if not masks or not 0.0 < share <= 1.0:
            raise ConfigError(f"cannot keep {share} of the places of {len(masks)} masks")
        self._masks = list(masks.values())
        self._share = share
        self._cost = cost
        self._interval = interval

    def after_backward(self, model: nn.Module) -> None:
        """Do nothing."""

    def after_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, steps: int
    ) -> Mapping[str, float]:  # fmt: skip
        """Clamp, project every few batches, and round on the last one."""
        del model, optimizer
        with torch.no_grad():
            for mask in self._masks:
                mask.clamp_(0.0, 1.0)
            if step % self._interval == 0 or step == steps:
                keep_largest_(self._masks, self._share)
            if step == steps:
                for mask in self._masks:
                    mask.round_()
        return {"cost": self._cost, "share": self.share()}

    def share(self) -> float:
        """Return the share of places that are not zero."""
        nonzero = sum(int(mask.count_nonzero()) for mask in self._masks)
        return nonzero / sum(mask.numel() for mask in self._masks)

    def state(self) -> Dict[str, torch.Tensor]:
        """Return nothing: masks are parameters of the network."""
        return {}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take nothing back."""


def keep_largest_(masks: List[nn.Parameter], share: float) -> None:
    """Zero in place all but the largest places of all masks together; of equal ones the first stay."""
    values = torch.cat([mask.detach().reshape(-1) for mask in masks])
    keep = torch.zeros(len(values), dtype=torch.bool)
    order = torch.argsort(values.cpu(), descending=True, stable=True)
    keep[order[: math.floor(share * len(values) + 1e-9)]] = True
    start = 0
    with torch.no_grad():
        for mask in masks:
            part = keep[start : start + mask.numel()].reshape(mask.shape)
            mask.mul_(part.to(mask))
            start += mask.numel()
