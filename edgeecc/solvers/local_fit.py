"""Choose and fit the weights of a layer by least squares, from second moments alone.

For a filter with weights w, what it reads X (rows) and what it should give y, the error |y - Xw|^2 is
y'y - 2 w'X'y + w'X'Xw: rows are never needed again once their moments are summed. Neither step below lets the
error of any filter grow.

Everywhere g is the number of groups, o filters per group, d inputs of a filter; all is float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Iterator, Tuple

import torch

#: Ridge as a share of the mean second moment of an input.
RIDGE = 1e-4
#: Restored weights of a filter are chosen in at most so many rounds.
ROUNDS = 16
#: Up to so many weights in a filter the normal equations are factorised, beyond that they are iterated.
EXACT = 1024
#: Conjugate gradient steps at most.
ITERATIONS = 32
#: Numbers in a temporary tensor at most, where one filter does not need more: 64 MiB.
CHUNK = 2**23


@dataclass(frozen=True)
class Moments:
    """Sums over sampled positions.

    Args:
        gram: X'X, (g, d, d).
        cross: X'Y, (g, d, o).
        energy: y'y of each filter, (g, o).
    """

    gram: torch.Tensor
    cross: torch.Tensor
    energy: torch.Tensor

    def errors(self, weight: torch.Tensor) -> torch.Tensor:
        """Return |y - Xw|^2 of every filter, (g, o), for weights (g, o, d)."""
        given = (weight * (weight @ self.gram)).sum(2)
        return self.energy - 2.0 * (weight * self.cross.mT).sum(2) + given


def restore(
    moments: Moments, weight: torch.Tensor, *, support: torch.Tensor, target: torch.Tensor
) -> Tuple[torch.Tensor, torch.Tensor]:
    """Add the inputs to each filter that lessen its error most, until it has its target (EAP, CVPR 2017).

    Matching pursuit: of the inputs outside the support, the one whose column c correlates best with the residual
    r, greatest (c'r)^2 / (c'c + ridge), enters with the weight c'r / (c'c + ridge); then the residual is that of
    the new weights. The ridge, as in `fit` (ours), keeps inputs out that hardly ever differ from zero: they would
    enter with huge weights. A filter that lacks more than ROUNDS inputs takes several a round (ours), scaled
    together by the one factor that lessens error and ridge most: hundreds of inputs cost ROUNDS looks at all
    candidates instead of hundreds, and the error still cannot grow. Of two alike inputs both may be taken where
    one would do.

    Args:
        moments: of the layer.
        weight: (g, o, d), zero outside the support.
        support: (g, o, d) bool; not modified.
        target: (g, o) int64, inputs that each filter shall have.
    Returns: weights and support; a filter gets less than its target when no input can lessen its error.
    """
    weight, support = weight.clone(), support.clone()
    lacking = (target - support.sum(2)).clamp(min=0)
    widest = math.ceil(int(lacking.max()) / ROUNDS) if lacking.numel() else 0
    groups, _, inputs = weight.shape
    for part in _parts(weight.shape[1], groups * inputs * max(1, widest)):
        residual = moments.cross[:, :, part].mT - weight[:, part] @ moments.gram
        _pursue_(moments.gram, residual, weight[:, part], support[:, part], lacking[:, part])
    return weight, support


def _pursue_(
    gram: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    support: torch.Tensor,
    lacking: torch.Tensor,
) -> None:
    """Restore in place; `residual` is X'r, (g, o, d)."""
    groups, _, inputs = weight.shape
    ridge = _ridge(gram)
    power = (gram.diagonal(dim1=1, dim2=2).unsqueeze(1) + ridge).expand_as(weight)
    rows = gram.reshape(groups * inputs, inputs)
    first = (torch.arange(groups, device=gram.device) * inputs).reshape(-1, 1, 1)
    rounds = min(ROUNDS, int(lacking.max()))
    for left in range(rounds, 0, -1):
        now = (lacking + left - 1).div(left, rounding_mode="floor")
        gain = (residual.square() / power).masked_fill_(support, 0.0)
        best = gain.topk(int(now.max()), dim=2)
        chosen = torch.arange(best.indices.shape[2], device=gram.device) < now.unsqueeze(2)
        chosen &= best.values > 0.0
        pull = residual.gather(2, best.indices)
        step = torch.where(chosen, pull / power.gather(2, best.indices), 0.0)
        image = (step.unsqueeze(2) @ rows[best.indices + first]).squeeze(2)
        bent = (step * (image.gather(2, best.indices) + ridge * step)).sum(2, keepdim=True)
        scale = torch.where(bent > 0.0, (step * pull).sum(2, keepdim=True) / bent, 0.0)
        residual -= scale * image
        weight.scatter_add_(2, best.indices, scale * step)
        support.scatter_(2, best.indices, support.gather(2, best.indices) | chosen)
        lacking = lacking - now


def fit(moments: Moments, weight: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """Return the weights on the support that give each filter the least error (EAP, CVPR 2017).

    Solves argmin_v |y - Xv|^2 + ridge |v - w|^2, v zero outside the support, ridge = RIDGE * trace(X'X) / d of the
    group. The ridge pulls towards the weights at hand and not to zero (ours): so the error cannot grow, and
    weights of which the sample tells nothing stay as they are.

    Filters of like size are factorised together, at most CHUNK numbers at a time. With more than EXACT weights in
    a filter, the time of which grows with the cube, the layer takes up to ITERATIONS conjugate gradient steps from
    the weights at hand (ours); each lessens what is minimised, so the error cannot grow then either.

    Args:
        moments: of the layer.
        weight: (g, o, d), zero outside the support.
        support: (g, o, d) bool.
    """
    gram, ridge = moments.gram, _ridge(moments.gram)
    if int(support.sum(2).max()) <= EXACT:
        return _factorised(moments, weight, support, ridge.reshape(-1))
    fitted = torch.empty_like(weight)
    for part in _parts(weight.shape[1], weight.shape[0] * weight.shape[2]):
        residual = moments.cross[:, :, part].mT - weight[:, part] @ gram
        fitted[:, part] = weight[:, part] + _iterated(gram, residual, support[:, part], ridge)
    return fitted


def _ridge(gram: torch.Tensor) -> torch.Tensor:
    """Return the ridge of each group, (g, 1, 1); any will do where no input is ever other than zero."""
    mean = gram.diagonal(dim1=1, dim2=2).mean(1).reshape(-1, 1, 1)
    return torch.where(mean > 0.0, RIDGE * mean, 1.0)


def _iterated(
    gram: torch.Tensor, residual: torch.Tensor, support: torch.Tensor, ridge: torch.Tensor
) -> torch.Tensor:
    """Return the change of the weights, (g, o, d), by conjugate gradients with the diagonal as preconditioner."""
    diagonal = gram.diagonal(dim1=1, dim2=2).unsqueeze(1) + ridge
    residual = residual * support
    change = torch.zeros_like(residual)
    scaled = residual / diagonal
    direction = scaled
    size = start = (residual * scaled).sum(2, keepdim=True)
    for _ in range(ITERATIONS):
        image = (direction @ gram + ridge * direction) * support
        bent = (direction * image).sum(2, keepdim=True)
        step = torch.where(bent > 0.0, size / bent, 0.0)
        change = change + step * direction
        residual = residual - step * image
        scaled = residual / diagonal
        before, size = size, (residual * scaled).sum(2, keepdim=True)
        if bool((size <= 1e-16 * start).all()):
            break
        direction = scaled + torch.where(before > 0.0, size / before, 0.0) * direction
    return change


def _factorised(
    moments: Moments, weight: torch.Tensor, support: torch.Tensor, ridge: torch.Tensor
) -> torch.Tensor:
    """Solve the normal equations of filters of like size together."""
    outs, inputs = weight.shape[1:]
    flat, stays = weight.reshape(-1, inputs), support.reshape(-1, inputs)
    fitted = torch.zeros_like(flat)
    sizes = stays.sum(1)
    order = sizes.argsort()
    start = 0
    while start < len(order):
        part = order[start : _end(sizes[order], start)]
        start += len(part)
        places, valid = _places(stays[part], int(sizes[part[-1]]))
        group, out = part.div(outs, rounding_mode="floor"), part % outs
        pull = ridge[group].unsqueeze(1)
        wanted = moments.cross[group.unsqueeze(1), places, out.unsqueeze(1)]
        wanted = (wanted + pull * flat[part].gather(1, places)) * valid
        system = moments.gram[group.reshape(-1, 1, 1), places.unsqueeze(2), places.unsqueeze(1)]
        system = system * (valid.unsqueeze(2) & valid.unsqueeze(1))
        system.diagonal(dim1=1, dim2=2).add_(torch.where(valid, pull, 1.0))
        factor = torch.linalg.cholesky(system)
        solved = torch.cholesky_solve(wanted.unsqueeze(2), factor).squeeze(2)
        at, which = valid.nonzero(as_tuple=True)
        fitted[part[at], places[at, which]] = solved[at, which]
    return fitted.reshape(weight.shape)


def _end(sizes: torch.Tensor, start: int) -> int:
    """Return where filters, by ascending size, stop fitting a chunk; at least one fits."""
    taken = torch.arange(1, len(sizes) - start + 1, device=sizes.device)
    fits = int((taken * sizes[start:].square() <= CHUNK).sum())
    return start + max(1, fits)


def _places(support: torch.Tensor, size: int) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return the inputs in the support of each filter, (n, size), padded, and which entries are none."""
    filters, inputs = support.nonzero(as_tuple=True)
    counts = support.sum(1)
    first = counts.cumsum(0) - counts
    at = torch.arange(len(filters), device=support.device) - first[filters]
    places = torch.zeros(len(support), size, dtype=torch.int64, device=support.device)
    places[filters, at] = inputs
    return places, torch.arange(size, device=support.device) < counts.unsqueeze(1)


def _parts(outs: int, each: int) -> Iterator[slice]:
    """Return slices of filters that take at most CHUNK numbers, `each` of them."""
    size = max(1, CHUNK // max(1, each))
    return (slice(start, start + size) for start in range(0, outs, size))
