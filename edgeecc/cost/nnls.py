"""Non-negative least squares (Lawson and Hanson 1974, chapter 23), in float64."""

from __future__ import annotations

import numpy as np

from edgeecc.errors import ConfigError
from edgeecc.graph.spec import FloatArray


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
    return np.asarray(_active_set(matrix / scale, target) / scale, dtype=np.float64)


def _active_set(matrix: FloatArray, target: FloatArray) -> FloatArray:
    count = matrix.shape[1]
    solution = np.zeros(count)
    free = np.zeros(count, dtype=bool)
    slope = matrix.T @ target
    tolerance = (
        10.0
        * np.finfo(np.float64).eps
        * max(matrix.shape)
        * max(1e-300, float(np.abs(slope).max(initial=0.0)))
    )
    for _ in range(3 * count + 10):
        candidates = np.where(free, -np.inf, slope)
        if not count or candidates.max() <= tolerance:
            break
        free[int(candidates.argmax())] = True
        solution = _descend(matrix, target, solution, free)
        slope = matrix.T @ (target - matrix @ solution)
    return solution


def _descend(
    matrix: FloatArray,
    target: FloatArray,
    solution: FloatArray,
    free: np.typing.NDArray[np.bool_],
) -> FloatArray:
    """Solve on the free columns, moving back to the boundary until nothing is negative."""
    while True:
        trial = np.zeros_like(solution)
        trial[free] = np.linalg.lstsq(matrix[:, free], target, rcond=None)[0]
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
