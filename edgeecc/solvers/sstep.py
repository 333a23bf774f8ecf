"""The width step of ECC: move the real-valued bounds s until the energy model meets its target."""

from __future__ import annotations

import math
from typing import Callable, Sequence, Tuple

import numpy as np

from edgeecc.graph.spec import FloatArray

#: Widths never fall below one channel.
LEAST = 1.0
#: A bound this close to an integer is that integer.
SNAP = 1e-9


def flow(
    s: FloatArray,
    ranked: Sequence[FloatArray],
    *,
    energy: Callable[[FloatArray], float],
    slope: Callable[[FloatArray], FloatArray],
    target: float,
) -> Tuple[FloatArray, float]:  # fmt: skip
    """Move s along the clamped gradient of the Lagrangian until energy(s) <= target (ours, after Algorithm 1).

    The dual y_g of a group stands at its trim, a/2 of the unit that the next move would lose: rho1 brings it
    there within a step. A group moves only while z de/ds_g > y_g. With z always the smallest value that frees
    one group, that is the group with the least importance per energy, and s follows it channel by channel;
    the last move ends exactly on the target. The path does not depend on the unit of the energy, and in
    shares of the dense widths not on the number of channels either.

    Args:
        s: (G,), channels, real, at least 1; not changed.
        ranked: per group the importance of its units, falling.
        energy: s -> energy, any unit.
        slope: s -> d energy / d s, (G,).
        target: in that unit.
    Returns: the new s, and the last z, importance per energy. s stops short only where every width is 1.
    """
    s = s.copy()
    z = 0.0
    now = energy(s)
    while now > target:
        gain = slope(s)
        ratio = np.full(len(s), np.inf)
        for group, values in enumerate(ranked):
            if s[group] > LEAST and gain[group] > 0.0:
                ratio[group] = marginal(values, s[group]) / gain[group]
        group = int(np.argmin(ratio))
        if not math.isfinite(ratio[group]):
            break
        z = max(z, float(ratio[group]))
        trial = s.copy()
        trial[group] = max(LEAST, math.ceil(s[group] - SNAP) - 1.0)
        after = energy(trial)
        if after < target:
            # The model is affine in one width (each product holds a group once) or convex in it (squares of a
            # residual width); a few secant steps land on the target from the safe side.
            trial[group] = _land(trial, group, s[group], energy=energy, target=target)
            after = energy(trial)
        s, now = trial, after
    return s, z


def marginal(ranked: FloatArray, s: float) -> float:
    """Return y at its trim: half the importance of the unit that a smaller s would lose."""
    return float(ranked[min(len(ranked), math.ceil(s - SNAP)) - 1]) / 2.0


def _land(
    s: FloatArray, group: int, upper: float, *, energy: Callable[[FloatArray], float], target: float
) -> float:  # fmt: skip
    """Return the largest width of `group` in [s_g, upper] whose energy is at most `target`, by bisection."""
    low, high = s[group], upper
    trial = s.copy()
    for _ in range(60):
        middle = 0.5 * (low + high)
        trial[group] = middle
        low, high = (middle, high) if energy(trial) <= target else (low, middle)
    return float(low)


def least_dual(
    lagrangian: FloatArray, energy_slope: FloatArray, movable: FloatArray, epsilon: float
) -> float:
    """Return z_min: the smallest z for which some movable group has slope at least epsilon (ECC Algorithm 1).

    Args:
        lagrangian: g1, slope of all terms but z's, (G,).
        energy_slope: g2 = dE/ds, (G,).
        movable: nonzero where s is above its lower bound, (G,).
        epsilon: the least slope.
    Returns: z_min; infinity where no movable group costs energy (the published code divides by zero there).
    """
    useful = (movable > 0) & (energy_slope > 0.0)
    if not useful.any():
        return math.inf
    return float(np.min((np.maximum(0.0, -lagrangian[useful]) + epsilon) / energy_slope[useful]))


def published_step(  # noqa: PLR0913  # keyword-only, one sample or state each
    s: FloatArray, k: FloatArray, y: FloatArray, z: float, *, excess: float, slope: FloatArray,
    rho: Tuple[float, float], epsilon: float, beta: float,
) -> Tuple[FloatArray, float]:  # fmt: skip
    """Take one published s-step (ECC Algorithm 1, with the paper's sum of squares, not the code's squared sum).

    Args:
        s, k, y: bounds, present widths, duals, (G,).
        z: dual of the budget.
        excess: E(s) - E_b, metric unit.
        slope: dE/ds, (G,).
        rho: (rho1, rho2).
        epsilon, beta: least slope, step size in channels.
    Returns: (s, z); z only grows. With no group left to move both stay.
    """
    above = (s > LEAST).astype(np.float64)
    lagrangian = rho[1] * max(0.0, excess) * slope - rho[0] * np.maximum(k - s, 0.0) - y
    floor_z = least_dual(lagrangian, slope, above, epsilon)
    if not math.isfinite(floor_z):
        return s, z
    z = max(z, floor_z)
    gradient = np.maximum(lagrangian + z * slope, 0.0) * above
    norm = float(np.linalg.norm(gradient))
    if norm > 1.0:
        gradient /= norm  # the published command line clips to norm 1
    return np.maximum(s - beta * gradient, LEAST), z
