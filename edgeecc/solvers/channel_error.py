"""What the outputs of the layers that read a group lose without some of its channels, from second moments.

A layer with weights w reads rows X and should give y. Its error |y - Xw|^2, without the channels that a mask m
leaves out, is a quadratic in m: const - 2 linear'm + m' pair m. Blocks of X'X and X'y give it exactly, for every
mask at once, so the choice of channels needs no further look at images. Errors of several layers add up as shares
of what each gives when dense.

Everywhere g is the number of a layer's groups, o filters per group, d inputs of a filter, c units of the group.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Optional, Sequence

import numpy as np
import torch

from edgeecc.graph.spec import FloatArray
from edgeecc.solvers.local_fit import RIDGE, Moments

BoolArray = np.typing.NDArray[np.bool_]


@dataclass(frozen=True)
class Quadratic:
    """The error without the channels that a mask leaves out: const - 2 linear'm + m' pair m.

    Args:
        const: of nothing kept.
        linear: (c,).
        pair: (c, c), symmetric.
    """

    const: float
    linear: FloatArray
    pair: FloatArray

    def error(self, mask: BoolArray) -> float:
        """Return the error with the channels of a mask (c,)."""
        m = mask.astype(np.float64)
        return float(self.const - 2.0 * self.linear @ m + m @ self.pair @ m)

    def kept(self, ranked: Sequence[int]) -> FloatArray:
        """Return one less the error with the first 1, 2, ... channels of a ranking, (len(ranked),)."""
        growth, gains = self.along(np.zeros(len(self.linear), dtype=bool)), np.zeros(len(ranked))
        for place, unit in enumerate(ranked):
            gains[place] = growth[unit]
            growth += 2.0 * self.pair[:, unit]
        return np.asarray(1.0 - self.const - np.cumsum(gains), dtype=np.float64)

    def without(self, mask: BoolArray) -> FloatArray:
        """Return by how much the error grows when each channel leaves the mask, (c,)."""
        diagonal = self.pair.diagonal()
        return np.asarray(2.0 * self.linear - 2.0 * (self.pair @ mask) + diagonal, dtype=np.float64)

    def along(self, mask: BoolArray) -> FloatArray:
        """Return by how much the error grows when each channel joins the mask, (c,)."""
        diagonal = self.pair.diagonal()
        return np.asarray(2.0 * (self.pair @ mask) - 2.0 * self.linear + diagonal, dtype=np.float64)


def quadratic(
    moments: Optional[Moments], weight: torch.Tensor, units: torch.Tensor, count: int
) -> Quadratic:
    """Return the error of one layer as a share of what it should give.

    Args:
        moments: of the layer; None counts inputs as independent and alike, so that squared weights are lost.
        weight: (g, o, d), float64.
        units: (g, d) int64, the unit of the group that each input belongs to, -1 for none: such inputs stay.
        count: c.
    Returns: zero throughout for a layer that gives nothing.
    """
    slots = (units + 1).reshape(-1)
    if moments is None:
        norms = torch.zeros(count + 1, dtype=torch.float64, device=weight.device)
        norms.index_add_(0, slots, weight.square().sum(1).reshape(-1))
        pair, linear, energy = torch.diag(norms), norms, float(norms.sum())
    else:
        pair = torch.zeros(count + 1, count + 1, dtype=torch.float64, device=weight.device)
        for one, gram, unit in zip(weight, moments.gram, units + 1):
            rows = gram.new_zeros(count + 1, gram.shape[1]).index_add_(0, unit, one.mT @ one * gram)
            pair.index_add_(1, unit, rows)
        linear = torch.zeros(count + 1, dtype=torch.float64, device=weight.device)
        linear.index_add_(0, slots, (moments.cross * weight.mT).sum(2).reshape(-1))
        energy = float(moments.energy.sum())
    if energy <= 0.0:
        return Quadratic(0.0, np.zeros(count), np.zeros((count, count)))
    a, b = pair.cpu().numpy() / energy, linear.cpu().numpy() / energy
    return Quadratic(1.0 - 2.0 * float(b[0]) + float(a[0, 0]), b[1:] - a[1:, 0], a[1:, 1:])


def total(parts: Sequence[Quadratic], count: int) -> Quadratic:
    """Return the sum of quadratics in `count` channels."""
    const, linear, pair = 0.0, np.zeros(count), np.zeros((count, count))
    for part in parts:
        const, linear, pair = const + part.const, linear + part.linear, pair + part.pair
    return Quadratic(const, linear, pair)


def eliminated(error: Quadratic, alive: BoolArray, width: int) -> List[int]:
    """Return the channels that leave one after the other, each the one whose absence harms least, down to a width."""
    mask, gone = alive.copy(), []
    growth = error.without(mask)
    for _ in range(int(mask.sum()) - width):
        unit = int(np.argmin(np.where(mask, growth, np.inf)))
        mask[unit] = False
        growth += 2.0 * error.pair[:, unit]
        gone.append(unit)
    return gone


def chosen(error: Quadratic, alive: BoolArray, width: int, *, beyond: float) -> BoolArray:
    """Return which channels stay (EAP's prune and restore, CVPR 2017, on whole channels).

    Channels leave one after the other until a share `beyond` of the width is missing; then those return that
    lessen the error most. Last, a channel that left is swapped for one that stayed while that lessens the error
    (ours). The error is at most that of elimination alone.

    Args:
        error: of the layers that read the group.
        alive: (c,), those to choose from; at least `width`.
        width: how many stay, at least 1.
        beyond: share of the width, [0, 1).
    """
    order = eliminated(error, alive, max(1, math.ceil(width * (1.0 - beyond))))
    restored, plain = alive.copy(), alive.copy()
    restored[order] = False
    plain[order[: int(alive.sum()) - width]] = False
    for _ in range(width - int(restored.sum())):
        growth = np.where(alive & ~restored, error.along(restored), np.inf)
        restored[int(np.argmin(growth))] = True
    return _swapped(error, alive, min((restored, plain), key=error.error))


def _swapped(error: Quadratic, alive: BoolArray, mask: BoolArray) -> BoolArray:
    mask = mask.copy()
    least = 1e-12 * max(error.const, 0.0)
    for _ in range(len(mask)):
        inside, outside = np.flatnonzero(mask), np.flatnonzero(alive & ~mask)
        if not len(outside):
            break
        change = error.without(mask)[inside][:, None] + error.along(mask)[outside][None, :]
        change = change - 2.0 * error.pair[np.ix_(inside, outside)]
        out, into = np.unravel_index(int(np.argmin(change)), change.shape)
        if change[out, into] >= -least:
            break
        mask[inside[out]], mask[outside[into]] = False, True
    return mask


def kept_shares(
    moments: Moments, *, units: torch.Tensor, allowed: torch.Tensor, ranked: Sequence[int]
) -> FloatArray:  # fmt: skip
    """Return the share of a layer's output that its weights, fitted anew, give with the first channels of a ranking.

    One Cholesky factor, inputs in the order of the ranking, gives the least squares of all its beginnings (ours).

    Args:
        moments: of the layer.
        units: see `quadratic`.
        allowed: (g, d) bool, inputs that may be read.
        ranked: the channels that are left, the one that is kept longest first.
    Returns: (len(ranked),), with 1, 2, ... channels, rising, at most 1.
    """
    place = {unit: rank + 1 for rank, unit in enumerate(ranked)}
    gains = np.zeros(len(ranked) + 1)
    for gram, cross, unit, may in zip(moments.gram, moments.cross, units, allowed):
        ranks = np.array([place.get(int(one), 0) for one in unit])
        order = np.flatnonzero(may.cpu().numpy())
        order = order[np.argsort(ranks[order], kind="stable")]
        if not len(order):
            continue
        at = torch.from_numpy(order).to(gram.device)
        system = gram[at][:, at]
        mean = float(gram.diagonal().mean())
        system.diagonal().add_(RIDGE * mean if mean > 0.0 else 1.0)
        factor = torch.linalg.cholesky(system)
        half = torch.linalg.solve_triangular(factor, cross[at], upper=False)
        np.add.at(gains, ranks[order], half.square().sum(1).cpu().numpy())
    energy = float(moments.energy.sum())
    shares = np.cumsum(gains)[1:] / energy if energy > 0.0 else np.ones(len(ranked))
    return np.asarray(np.minimum(shares, 1.0), dtype=np.float64)
