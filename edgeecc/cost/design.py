"""Which widths to measure next.

The paper's way is uniform: every width on 1..c, independently (ECC, CVPR 2019, section 4.1). An optimal design picks
those variants that settle the coefficients of the bilinear terms best, one after the other, given what each layer's
work lets expect of them. By D it lowers the volume of their confidence region (Wald 1943), by I (also called V) the
mean variance of predictions over all variants, which is the error that is asked of a cost model. Greedy, from a pool of
uniform variants, and for twice as many samples as there are terms: no device is quite a sum of such terms, and samples
must show that too, so the others are uniform.

Held-out samples are uniform in every design, for they tell the error over all widths. Half of the first samples are
held out, as a confidence of 95 % takes nineteen of them, and later a fixed share. What sample i measures, and whether
it is held out, is a pure function of network, seed and i.
"""

from __future__ import annotations

import math
from typing import Dict, List, Tuple

import numpy as np

from edgeecc.config import Design
from edgeecc.cost.conformal import USUAL, least_samples
from edgeecc.cost.prior import by_work
from edgeecc.cost.samples import DENSE, THINNEST
from edgeecc.cost.terms import Features, layer_terms, spec_groups
from edgeecc.graph.spec import FloatArray, NetworkSpec

#: Samples of which half are held out: with these the usual confidence can be told.
FIRST = 2 * (least_samples(USUAL) + 1)
#: Uniform variants to pick from, at least; and designed samples per term, which are fewer.
POOL = 2000
PER_TERM = 2
#: What a device is expected to spend on MACs, on weights and on moved values; the rest is its fixed cost (ours).
SHARES = (0.6, 0.15, 0.15)
#: How little a sample's noise is against what the prior leaves open.
NOISE = 0.05


class Sampling:
    """The variants of a calibration, by number.

    Args:
        spec: the network.
        seed: of all draws.
        design: how samples that are fitted are chosen; held-out ones are uniform.
        heldout: share of the samples that are held out, see `place`.
    """

    def __init__(self, spec: NetworkSpec, *, seed: int, design: Design, heldout: float) -> None:
        self._spec, self._seed, self._design, self._heldout = spec, seed, design, heldout
        self._most = 0 if design == "uniform" else PER_TERM * (len(spec.layers) + 1)
        self._designed: List[FloatArray] = []

    def is_held_out(self, number: int) -> bool:
        """Return whether a sample is never fitted, which anchors are not either."""
        return number < 0 or place(number, self._heldout)[0]

    def widths(self, number: int) -> Dict[str, int]:
        """Return the widths of a sample; the anchors are the dense and the thinnest network."""
        if number == DENSE:
            return self._spec.dense_widths()
        if number == THINNEST:
            return self._spec.least_widths()
        held, rank = place(number, self._heldout)
        if held or rank >= self._most:
            return self._uniform(number)
        if not self._designed:
            pool = self._pool(max(POOL, 4 * self._most))
            self._designed = list(designed(self._spec, pool, self._most, self._design))
        row = self._designed[rank]
        return {group.name: int(width) for group, width in zip(self._spec.prunable, row)}

    def _pool(self, size: int) -> FloatArray:
        """Return uniform widths, (size, G)."""
        generator = np.random.default_rng([self._seed, 0xDE51])
        dense = [group.width for group in self._spec.prunable]
        columns = [generator.integers(1, width, size, endpoint=True) for width in dense]
        return np.column_stack(columns).astype(np.float64)

    def _uniform(self, number: int) -> Dict[str, int]:
        generator = np.random.default_rng([self._seed, number])
        return {
            group.name: int(generator.integers(1, group.width, endpoint=True))
            for group in self._spec.prunable
        }


def place(number: int, share: float) -> Tuple[bool, int]:
    """Return whether a sample is held out, and how many of its kind come before it.

    Args:
        number: of the sample, from 0.
        share: of the samples after the first ones that are held out, in (0, 1).
    """
    before = _held_before(number, share)
    held = _held_before(number + 1, share) > before
    return held, before if held else number - before


def designed(spec: NetworkSpec, pool: FloatArray, count: int, design: Design) -> FloatArray:
    """Return the widths of an optimal design's first samples, (count, G), in order.

    Args:
        spec: the network.
        pool: widths to pick from, (N, G), drawn as those that predictions are wanted of.
        count: how many, at most N.
        design: the criterion, "i-optimal" or "d-optimal".
    """
    return np.asarray(pool[_picked(_rows(spec, pool), count, design)])


def _rows(spec: NetworkSpec, pool: FloatArray) -> FloatArray:
    """Return the share of the cost of variants that each coefficient's deviation adds, (N, T + 1)."""
    terms = layer_terms(spec)
    prior = by_work(spec, terms)
    costs = prior.patterns @ np.array(SHARES)
    fixed = max(0.0, 1.0 - float(costs.sum()))
    features = Features(spec_groups(spec), terms)(pool)
    expected = fixed + features @ costs
    rows = np.column_stack([np.full(len(pool), fixed), features * prior.deviations(costs, 0.0)])
    return np.asarray(rows / expected[:, None])


def _picked(rows: FloatArray, count: int, design: Design) -> List[int]:
    """Return which rows to measure, in order: at each step the one that lowers the criterion most."""
    covariance = np.eye(rows.shape[1])
    spread = rows.T @ rows / len(rows)
    free = np.ones(len(rows), dtype=bool)
    picked: List[int] = []
    for _ in range(count):
        towards = rows @ covariance
        variance = np.einsum("nt,nt->n", towards, rows)
        gain = variance
        if design == "i-optimal":
            gain = np.einsum("nt,nt->n", towards @ spread, towards) / (NOISE**2 + variance)
        best = int(np.where(free, gain, -np.inf).argmax())
        free[best] = False
        picked.append(best)
        covariance = covariance - np.outer(towards[best], towards[best]) / (
            NOISE**2 + variance[best]
        )
    return picked


def _held_before(number: int, share: float) -> int:
    """Return how many of the samples below `number` are held out."""
    first = min(number, FIRST)
    return first // 2 + math.floor((number - first) * share)
