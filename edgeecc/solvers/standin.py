"""What a channel is worth when the others stand in for it, and the weights with which they do (ours).

A removed channel is rarely lost: much of it can be had from the channels that stay. For a layer that reads x, let C
be the covariance of its channels over images and positions, K those that stay and R those that go. The best linear
stand-in for x_R is A'x_K with A = C_KK^-1 C_KR, so the layer keeps what can be kept of its output when its weights
take W_K + W_R A' and its bias what the means leave. That is a primal step in closed form, and it tells importance
too. The first-order loss of dropping channel i is sum(w_i g_i), g the gradient; of dropping only what the others
cannot tell of it, sum(w_i (P g)_i / P_ii) with P the inverse of C: the same term along the residual of x_i on the
others, as regression has it. The variance of that residual is 1 / P_ii. Two channels that tell the same are then
worth little each, until one is gone; so when channels go, the importance of the rest grows with its residual.

All of it follows from P: with S the block of P of those that go, A' = -S^-1 P_RK, and P_KK - P_KR S^-1 P_RK is the
inverse for those that stay.

Convolutions of one group, transposed ones and linear layers can take stand-ins; the other readers keep their plain
term. Where a reader has no bias, its means are left to the batch norm behind it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Sequence, Tuple

import numpy as np
import torch
from torch import nn

from edgeecc.graph.spec import FloatArray, NetworkSpec, Slice
from edgeecc.solvers.unfold import is_known

#: Added to the diagonal of a covariance, as a share of its mean: channels that hardly vary stay out of stand-ins.
RIDGE = 1e-2
#: Rows that a batch adds at most, where it has no more images; they are spread over its images and positions.
ROWS = 4096
#: Pivots of an inverse are known to so much of their size.
ROUNDING = 1e-9
#: Columns whose products with the others are made together.
PANEL = 128
#: Units of a reading at most: the covariance of more takes over 64 MiB.
UNITS = 4096


@dataclass(frozen=True)
class Reading:
    """Where a layer reads units of a prunable group.

    Args:
        group: index of the group among the prunable ones.
        piece: of the group, in the layer's weight.
        columns: (n, b), the inputs of the layer that each unit owns.
    """

    group: int
    piece: Slice
    columns: torch.Tensor

    @property
    def module(self) -> str:
        """Name of the layer."""
        return self.piece.parameter.rpartition(".")[0]

    @property
    def units(self) -> slice:
        """The units of the group that are read."""
        return slice(self.piece.first, self.piece.first + self.piece.count)

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the weight's shape by units, (n, b * rest)."""
        moved = weight.movedim(self.piece.axis, 0)
        if self._is_whole(len(moved)):
            return moved.reshape(len(moved), -1)
        return moved[self.columns.to(weight.device)].reshape(len(self.columns), -1)

    def _is_whole(self, inputs: int) -> bool:
        """Whether the units are the inputs of the layer, all and in order: then nothing needs to be gathered."""
        piece = self.piece
        return self.columns.shape == (inputs, 1) and (piece.start, piece.step) == (0, 1)

    def add_(self, weight: torch.Tensor, units: torch.Tensor, change: torch.Tensor) -> None:
        """Add to the weights of some units, (m,), what `of` would give of the change, (m, b * rest)."""
        moved = weight.movedim(self.piece.axis, 0)
        at = self.columns.to(weight.device)[units].reshape(-1)
        moved.index_add_(0, at, change.reshape(len(at), *moved.shape[1:]).to(weight.dtype))

    def rows(self, x: torch.Tensor, axis: int, each: int) -> torch.Tensor:
        """Return what a layer read as rows of units, (r, n), at least float32; about `each` of every image at most.

        Args:
            x: input of the layer.
            axis: of its channels.
            each: rows of an image; at least one is taken, and one for each of a unit's columns.
        """
        x = _thinned(x.detach().movedim(axis, -1), each)
        if self._is_whole(x.shape[-1]):
            rows = x.reshape(-1, x.shape[-1])
        else:
            columns = self.columns.to(x.device)
            rows = x[..., columns].movedim(-2, -1).reshape(-1, len(columns))
        return rows.to(torch.promote_types(rows.dtype, torch.float32))


def readings(spec: NetworkSpec) -> List[Reading]:
    """Return every place where a layer reads units of a prunable group."""
    return [
        Reading(index, piece, torch.from_numpy(piece.indices(np.arange(group.width))))
        for index, group in enumerate(spec.prunable)
        for piece in group.slices
        if piece.role == "in"
    ]


def may_stand_in(reading: Reading, model: nn.Module) -> bool:
    """Return whether units of a reading can stand in for one another."""
    if not 2 <= reading.piece.count <= UNITS:
        return False
    layer = model.get_submodule(reading.module)
    return is_known(layer) and getattr(layer, "groups", 1) == 1


def second_moments(rows: torch.Tensor) -> torch.Tensor:
    """Return the sum of (x, 1)(x, 1)' over rows x, (n + 1, n + 1), of rows (r, n).

    It is symmetric: of wide rows little more than half of the products are made.
    """
    size = rows.shape[1]
    total = rows.new_empty(size + 1, size + 1)
    total[size, :size] = total[:size, size] = rows.sum(0)
    total[size, size] = len(rows)
    for first in range(0, size, PANEL):
        last = min(first + PANEL, size)
        panel = rows[:, first:last].mT @ rows[:, first:]
        total[first:last, first:size] = panel
        total[last:size, first:last] = panel[:, last - first :].mT
    return total


def inverse(covariance: torch.Tensor) -> torch.Tensor:
    """Return the inverse of a covariance with the ridge on its diagonal, (n, n), float64.

    Where nothing varies any ridge will do.
    """
    whole = covariance.double()
    mean = float(whole.diagonal().mean())
    ridge = RIDGE * mean if mean > 0.0 else 1.0
    inverted: torch.Tensor = torch.linalg.inv(
        whole + ridge * torch.eye(len(whole), dtype=whole.dtype, device=whole.device)
    )
    return inverted


def without(
    inverse: torch.Tensor, stay: torch.Tensor, gone: torch.Tensor
) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return A, (n stay, n gone), with which those that stay stand in, and the inverse for them alone.

    Args:
        inverse: P of all, (n, n).
        stay, gone: int64, which of them.
    """
    across = inverse[stay][:, gone]
    solved = torch.linalg.solve(inverse[gone][:, gone], across.mT).mT
    return -solved, inverse[stay][:, stay] - solved @ across.mT


def eliminated(
    importance: FloatArray, shares: Sequence[FloatArray], inverses: Sequence[FloatArray], most: int
) -> FloatArray:
    """Return the importance of units as they go one after another, the least first (ours).

    After each the others are worth more: by the mean, over the layers that read them, of the factor by which their
    residual grew. The variance of residuals after each is a step of a Cholesky factorisation of P with this pivot.

    Args:
        importance: (n,), at least 0, of the units now.
        shares: per layer the share that it has in the importance of each unit, (n,); they sum to at most 1.
        inverses: per layer P, (n, n).
        most: units that are followed at most; of the rest it is known that they are worth no less.
    Returns: (n,); what the k-th unit to go is worth when k-1 have gone, never falling in that order.
    """
    count = len(importance)
    now = importance.copy()
    left = np.ones(count, dtype=bool)
    result = np.zeros(count)
    diagonals = [matrix.diagonal().copy() for matrix in inverses]
    start = [diagonal.copy() for diagonal in diagonals]
    factors = [np.zeros((count, most)) for _ in inverses]
    floor = 0.0
    for step in range(min(most, count)):
        unit = int(np.argmin(np.where(left, now, np.inf)))
        floor = max(floor, float(now[unit]))
        result[unit], left[unit] = floor, False
        growth = np.ones(count)
        for share, matrix, factor, diagonal, first in zip(
            shares, inverses, factors, diagonals, start
        ):
            column = matrix[:, unit] - factor[:, :step] @ factor[unit, :step]
            # What rounding leaves of a pivot that others tell whole, never less than nothing.
            pivot = max(column[unit], ROUNDING * matrix[unit, unit])
            factor[:, step] = column / np.sqrt(pivot)
            diagonal -= factor[:, step] ** 2
            growth += share * (first / np.maximum(diagonal, ROUNDING * first) - 1.0)
        now = np.where(left, importance * growth, now)
    result[left] = np.maximum(now[left], floor)
    return result


def stand_in_(  # keyword-only, one each
    model: nn.Module, reading: Reading, *, stay: torch.Tensor, gone: torch.Tensor, weights: torch.Tensor,
    mean: torch.Tensor,
) -> None:  # fmt: skip
    """Give what a layer reads of units that go to those that stay, in place.

    Args:
        model: its layer of the reading is changed.
        stay, gone: units of the reading.
        weights: A, (n stay, n gone).
        mean: of all units of the reading, (n,).
    """
    layer = model.get_submodule(reading.module)
    weight = layer.get_parameter("weight")
    with torch.no_grad():
        lost = reading.of(weight)[gone].double()
        bias = getattr(layer, "bias", None)
        if bias is not None:
            left = mean[gone].double() - weights.mT @ mean[stay].double()
            bias.add_((left @ _outputs(reading, weight, lost)).to(bias.dtype))
        reading.add_(weight, stay, weights @ lost)


def _outputs(reading: Reading, weight: torch.Tensor, lost: torch.Tensor) -> torch.Tensor:
    """Return the weights of units summed over all but the layer's outputs, (m, outputs)."""
    rest = [size for axis, size in enumerate(weight.shape) if axis != reading.piece.axis]
    return lost.reshape(len(lost), -1, *rest).sum([1, *range(3, 2 + len(rest))])


def _thinned(x: torch.Tensor, each: int) -> torch.Tensor:
    """Return a layer's input, (N, *positions, channels), with about `each` positions of every image at most.

    What is taken of an image does not depend on the others, so that processes which share a batch take what one would.
    """
    axes = range(1, x.ndim - 1)
    count = math.prod(x.shape[axis] for axis in axes)
    stride = math.ceil((count / each) ** (1.0 / len(axes))) if count > each else 1
    index = [slice(None, None, stride if axis in axes else 1) for axis in range(x.ndim)]
    return x[tuple(index)]
