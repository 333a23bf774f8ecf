"""Offsets of boards: by which factor each measures more or less than its fleet.

Boards of one kind differ by a factor (their silicon, their sensor, their cooling). What a board measured of variants
that others measured too tells it: log y = log cost of the variant + log factor of the board + noise, ours. The cost
of a variant is a free number here, so no cost model is assumed and its misfit cannot pass for an offset, as it could
if residuals of the fit were compared; samples that one board alone measured say nothing and are left out.

The costs are eliminated in closed form, which leaves one equation a board (a weighted graph Laplacian whose edges
are shared variants). Weights are inverse variances, and those of outlying measurements are cut down (Huber 1964, by
iteration). Standard errors are those of least squares, enlarged where measurements scatter by more than they say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Dict, List, Mapping, Sequence, Tuple

import numpy as np

from edgeecc.config import MeasureProtocol
from edgeecc.cost.samples import Row
from edgeecc.errors import ConfigError
from edgeecc.graph.spec import FloatArray, IntArray

#: Residuals beyond so many standard errors lose weight (Huber: 95 % efficient on normal noise).
_HUBER = 1.345
_ROUNDS = 50
#: Relative error of a measurement at least: no meter repeats better. Ours.
_LEAST_ERROR = 1e-3
#: Interquartile range over standard deviation, and error of a median over that of a mean, of normal noise.
_IQR_PER_SIGMA, _MEDIAN_PENALTY = 1.349, 1.2533


@dataclass(frozen=True)
class Offset:
    """By which factor a board measures more than its fleet, and the relative standard error of that."""

    factor: float
    standard_error: float


def offsets(rows: Sequence[Row], reference: str = "") -> Dict[str, Offset]:
    """Return the offset of every board, by name.

    Args:
        rows: samples and repeats; only variants that several boards measured count.
        reference: board whose offset is 1; empty makes 1 the geometric mean of the boards.
    Returns: nothing where no row names a board; a board "" stands for rows that name none.
    Raises: ConfigError when the reference measured nothing, or boards share no variant.
    """
    names = sorted({row.board for row in rows})
    if names in ([], [""]):
        return {}
    if reference and reference not in names:
        raise ConfigError(
            f"reference board {reference} has measured nothing; name one of {', '.join(filter(None, names))}"
        )
    if len(names) == 1:
        return {names[0]: Offset(1.0, 0.0)}
    place = {name: index for index, name in enumerate(names)}
    shared = _shared(rows)
    logs, errors = _logs(shared)
    boards = np.array([place[row.board] for row in shared], dtype=np.int64)
    variants = _variants(shared)
    _check_linked(names, boards, variants)
    found, covariance = estimate(logs, errors, boards, variants, len(names))
    if reference:
        shift = np.eye(len(names))
        shift[:, place[reference]] -= 1.0
        found, covariance = shift @ found, shift @ covariance @ shift.T
    return {
        name: Offset(math.exp(found[index]), math.sqrt(max(0.0, covariance[index, index])))
        for name, index in place.items()
    }


def corrected(rows: Sequence[Row], boards: Mapping[str, Offset]) -> List[Row]:
    """Return rows as the fleet's mean, or the reference, would have measured them; latencies beside energy stay."""
    return [_divided(row, boards[row.board].factor) if row.board in boards else row for row in rows]


def per_board(rows: Sequence[Row], boards: Mapping[str, Offset]) -> Dict[str, Dict[str, float]]:
    """Return what a profile tells of the boards that measured its samples."""
    return {
        name: {
            "samples": len([row for row in rows if row.board == name and row.number >= 0]),
            "offset": offset.factor,
            "standard_error": offset.standard_error,
        }
        for name, offset in boards.items()
    }


def estimate(
    logs: FloatArray, errors: FloatArray, boards: IntArray, variants: IntArray, count: int
) -> Tuple[FloatArray, FloatArray]:  # fmt: skip
    """Return log factors (B,), which sum to 0, and their covariance (B, B).

    Args:
        logs: (N,), natural logarithms of what was measured.
        errors: (N,), their standard errors, positive.
        boards, variants: (N,), from 0, of which board and variant each is; the boards must be linked by variants.
        count: B.
    """
    weights = errors**-2.0
    trust = np.ones(len(logs))
    found, inverse, residuals = np.zeros(count), np.zeros((count, count)), np.zeros(len(logs))
    for _ in range(_ROUNDS):
        before = found
        found, inverse, residuals = _solved(logs, trust * weights, boards, variants, count)
        scatter = _scatter(residuals / errors, trust, boards, variants)
        sizes = np.abs(residuals) / (scatter * errors)
        trust = np.minimum(1.0, _HUBER / np.maximum(sizes, 1e-12))
        if np.abs(found - before).max(initial=0.0) < 1e-12:
            break
    return found, scatter**2 * inverse


def _solved(
    logs: FloatArray, weights: FloatArray, boards: IntArray, variants: IntArray, count: int
) -> Tuple[FloatArray, FloatArray, FloatArray]:  # fmt: skip
    """Return factors (B,), the pseudo-inverse of their normal matrix (B, B) and residuals (N,) of weighted squares."""
    share = np.zeros((variants.max(initial=-1) + 1, count))  # weight of each board in each variant
    np.add.at(share, (variants, boards), weights)
    total = share.sum(axis=1)
    mean = np.bincount(variants, weights * logs) / total
    normal = np.diag(share.sum(axis=0)) - (share / total[:, None]).T @ share
    right = np.bincount(boards, weights * (logs - mean[variants]), minlength=count)
    inverse = np.linalg.pinv(normal, rcond=1e-12, hermitian=True)
    found = np.asarray(inverse @ right, dtype=np.float64)
    costs = np.bincount(variants, weights * (logs - found[boards])) / total
    return found, np.asarray(inverse), np.asarray(logs - found[boards] - costs[variants])


def _scatter(sizes: FloatArray, trust: FloatArray, boards: IntArray, variants: IntArray) -> float:
    """Return by how much residuals over their errors (N,) scatter more than they say, at least 1."""
    free = len(sizes) - (variants.max() + 1) - (len(np.unique(boards)) - 1)
    return max(1.0, math.sqrt(float(np.sum(trust * sizes**2)) / free)) if free > 0 else 1.0


def _shared(rows: Sequence[Row]) -> List[Row]:
    """Return rows of variants that more than one board measured."""
    seen: Dict[Tuple[int, ...], set[str]] = {}
    for row in rows:
        seen.setdefault(tuple(row.widths), set()).add(row.board)
    return [row for row in rows if len(seen[tuple(row.widths)]) > 1]


def _variants(rows: Sequence[Row]) -> IntArray:
    known: Dict[Tuple[int, ...], int] = {}
    return np.array([known.setdefault(tuple(row.widths), len(known)) for row in rows], np.int64)


def _logs(rows: Sequence[Row]) -> Tuple[FloatArray, FloatArray]:
    """Return logarithms (N,) and their standard errors (N,)."""
    if not all(math.isfinite(row.value) and row.value > 0.0 for row in rows):
        raise ConfigError("a measured value is not positive; look at the samples")
    return np.log([row.value for row in rows]), np.array([relative_error(row) for row in rows])


def relative_error(row: Row) -> float:
    """Return the relative standard error of a row's value: as told, else from its spread, else the tolerance."""
    error = row.standard_error
    if error is None and row.spread is not None and row.windows > 0:
        error = _MEDIAN_PENALTY * row.spread / (_IQR_PER_SIGMA * math.sqrt(row.windows))
    if error is None or not math.isfinite(error):
        return MeasureProtocol().tolerance
    return max(_LEAST_ERROR, error / row.value)


def _check_linked(names: Sequence[str], boards: IntArray, variants: IntArray) -> None:
    """Check that every board is tied to the first by shared variants.

    Raises: ConfigError naming one that is not.
    """
    linked, grown = {0}, True
    while grown:
        reached = set(variants[np.isin(boards, sorted(linked))].tolist())
        more = set(boards[np.isin(variants, sorted(reached))].tolist())
        grown = not more <= linked
        linked |= more
    for index, name in enumerate(names):
        if index not in linked:
            raise ConfigError(
                f"board {name or '(no fleet)'} and {names[0] or '(no fleet)'} measured no variant in common, so their "
                "offset cannot be told; calibrate with both in one fleet"
            )


def _divided(row: Row, factor: float) -> Row:
    def less(value: float | None) -> float | None:
        return None if value is None else value / factor

    return replace(
        row,
        value=row.value / factor,
        standard_error=less(row.standard_error),
        spread=less(row.spread),
    )
