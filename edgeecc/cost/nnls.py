"""Non-negative least squares (Lawson and Hanson 1974, chapter 23), in float64.

The active set is first found on the normal equations, which are quick, and then from there on the matrix itself, which
is exact: columns of cost models nearly depend on each other (ours, in two passes).
"""

from __future__ import annotations

from typing import Callable, Tuple

import numpy as np

from edgeecc.errors import ConfigError
from edgeecc.graph.spec import FloatArray

#: Columns are independent where the least pivot of their QR is above this share of the largest.
INDEPENDENT = 1e-10

_Free = np.typing.NDArray[np.bool_]
#: Free columns -> the unconstrained solution on them.
_Solve = Callable[[_Free], FloatArray]


def nnls(matrix: FloatArray, target: FloatArray) -> FloatArray:
    """Return argmin_x |matrix @ x - target|^2 subject to x >= 0.

    Columns are scaled to unit length inside, so the answer does not depend on their units.

    Args:
        matrix: (N, T), finite.
        target: (N,), finite.
    Returns: (T,).
    Raises: ConfigError when the shapes disagree or a value is not finite.
    """
    if matrix.ndim != 2 or target.shape != (matrix.shape[0],):
        raise ConfigError(f"nnls needs (N, T) and (N,), got {matrix.shape} and {target.shape}")
    if not (np.isfinite(matrix).all() and np.isfinite(target).all()):
        raise ConfigError("nnls met a value that is not finite; look at the samples")
    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0.0] = 1.0
    matrix = matrix / scale
    if matrix.shape[0] > matrix.shape[1]:  # the same problem in as many rows as columns
        rotation, matrix = np.linalg.qr(matrix)
        target = rotation.T @ target
    return np.asarray(_solved(matrix, target) / scale, dtype=np.float64)


def _solved(matrix: FloatArray, target: FloatArray) -> FloatArray:
    count = matrix.shape[1]
    solution, free = np.zeros(count), np.zeros(count, dtype=bool)
    gram, moment = matrix.T @ matrix, matrix.T @ target

    def by_normal_equations(free: _Free) -> FloatArray:
        return np.asarray(np.linalg.solve(gram[np.ix_(free, free)], moment[free]))

    def exactly(free: _Free) -> FloatArray:
        return _least_squares(matrix[:, free], target)

    try:
        solution, free = _active_set(matrix, target, (solution, free), by_normal_equations)
    except np.linalg.LinAlgError:  # columns depend on each other: all of it on the matrix
        solution, free = np.zeros(count), np.zeros(count, dtype=bool)
    return _active_set(matrix, target, (solution, free), exactly)[0]


def _active_set(
    matrix: FloatArray, target: FloatArray, start: Tuple[FloatArray, _Free], solve: _Solve
) -> Tuple[FloatArray, _Free]:
    """Free columns while that lowers the residual; return the solution and which columns are free."""
    count = matrix.shape[1]
    solution, free = start[0].copy(), start[1].copy()
    tolerance = (
        10.0
        * np.finfo(np.float64).eps
        * max(matrix.shape)
        * max(1e-300, float(np.abs(matrix.T @ target).max(initial=0.0)))
    )
    if free.any():
        solution = _descend(solution, free, solve)
    for _ in range(3 * count + 10):
        slope = matrix.T @ (target - matrix @ solution)
        candidates = np.where(free, -np.inf, slope)
        if not count or candidates.max() <= tolerance:
            break
        free[int(candidates.argmax())] = True
        solution = _descend(solution, free, solve)
    return solution, free


def _descend(solution: FloatArray, free: _Free, solve: _Solve) -> FloatArray:
    """Solve on the free columns, moving back to the boundary until nothing is negative; `free` shrinks."""
    while True:
        trial = np.zeros_like(solution)
        trial[free] = solve(free)
        blocked = free & (trial <= 0.0)
        if not blocked.any():
            return trial
        step = np.min(solution[blocked] / np.maximum(solution[blocked] - trial[blocked], 1e-300))
        solution = solution + step * (trial - solution)
        leaving = blocked & (solution <= 1e-14 * max(1.0, float(solution.max(initial=0.0))))
        if not leaving.any():
            leaving = blocked
        free[leaving] = False
        solution[leaving] = 0.0
        if not free.any():
            return np.zeros_like(solution)


def _least_squares(matrix: FloatArray, target: FloatArray) -> FloatArray:
    """Return the least-squares solution, of least norm where columns depend on each other."""
    if matrix.shape[0] >= matrix.shape[1]:
        rotation, upper = np.linalg.qr(matrix)
        pivots = np.abs(np.diag(upper))
        if pivots.min() > INDEPENDENT * pivots.max():
            return np.asarray(np.linalg.solve(upper, rotation.T @ target))
    return np.asarray(np.linalg.lstsq(matrix, target, rcond=None)[0])
