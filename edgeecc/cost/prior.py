"""What the coefficients of a cost model are expected to be before many samples tell (ours).

A prior says that the coefficients are about a sum of a few patterns, by weights that the samples themselves settle, and
how far each coefficient may be from that. By work: what a layer costs goes with its multiply-accumulates, the weights
that it reads and the values that it moves, at the same prices in all layers. By another profile: of the same network,
on another board or at another precision, layers cost alike but for one factor, and for what their work explains. With
few samples the fit is hardly more than these patterns, with many it is least squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Sequence

import numpy as np

from edgeecc.cost.nnls import nnls
from edgeecc.cost.product import ProductModel
from edgeecc.cost.terms import GROUP, Term, owners
from edgeecc.graph.spec import FloatArray, LayerSpec, NetworkSpec, Widths

#: How far a coefficient may be from the expected one, as a share of what its layers cost (ours).
DEVIATION = 0.5
#: A layer's cost is expected to be known to this share of the mean layer's at best: none costs nothing for certain.
FLOOR = 1e-3
#: The least that the constant, and all layers together, are taken to cost for that, as a share of the mean sample.
LEAST_SHARE = 0.05
#: Samples that the residuals of the patterns alone weigh in the estimate of the noise.
NOISE_SAMPLES = 4.0
#: Least noise of a sample, relative: no meter is better.
LEAST_NOISE = 1e-3


@dataclass(frozen=True)
class Prior:
    """Expected coefficients of T terms, without the constant, which is free.

    Args:
        patterns: (T, K), at least 0, columns summing to 1: expected coefficients are a non-negative sum of them.
        layers: (T, L), which share of each layer's cost a term may be off by.
        own: (T, L), 1 where a term is of a layer itself.
    """

    patterns: FloatArray
    layers: FloatArray
    own: FloatArray

    def deviations(self, expected: FloatArray, least: float) -> FloatArray:
        """Return how far coefficients may be from the expected ones, (T,): half of what their layers cost.

        Args:
            expected: (T,), metric unit.
            least: what all layers are taken to cost at least, metric unit.
        """
        costs = self.own.T @ expected
        costs = costs + FLOOR * max(float(expected.sum()), least) / max(1, len(costs))
        return np.asarray(DEVIATION * np.maximum(self.layers @ costs, expected))


def by_work(spec: NetworkSpec, terms: Sequence[Term]) -> Prior:
    """Return the prior that layers cost by their work.

    Args:
        spec: the network.
        terms: of the cost model.
    """
    return _prior(spec, terms, _works(spec, terms))


def by_model(spec: NetworkSpec, terms: Sequence[Term], model: ProductModel) -> Prior:
    """Return the prior that layers cost by another cost model of this network, and by their work beside.

    Two devices seldom differ by one factor: the work takes up where one of them moves values for less, say.

    Args:
        spec: the network.
        terms: of the cost model to be fitted; those that the other lacks are expected to cost nothing.
        model: the other.
    """
    known = dict(zip(model.terms, model.coefficients))
    other = np.array([known.get(term, 0.0) for term in terms])
    return _prior(spec, terms, np.column_stack([other, _works(spec, terms)]))


def fit_towards(prior: Prior, design: FloatArray, values: FloatArray) -> FloatArray:
    """Return non-negative coefficients by least squares on relative residuals and on distances from a prior.

    Residuals count in units of the samples' noise, distances in units of the prior's deviations: for normal errors
    that is the most probable answer. The noise is estimated from residuals, of the patterns alone first.

    Args:
        prior: of T terms.
        design: (N, T + 1), first column ones.
        values: (N,), metric unit, positive.
    Returns: (T + 1,), metric unit.
    """
    relative, ones = design / values[:, None], np.ones(len(values))
    weights = nnls(np.column_stack([relative[:, 0], relative[:, 1:] @ prior.patterns]), ones)
    terms = prior.patterns @ weights[1:]
    expected = np.concatenate([weights[:1], terms])
    least = LEAST_SHARE * float(values.mean())
    fixed = max(float(weights[0]), least)
    deviations = np.concatenate([[fixed], prior.deviations(terms, least)])
    squares = float(np.sum((relative @ expected - 1.0) ** 2))
    start = max(LEAST_NOISE**2, squares / len(values))
    first = _most_probable(relative, (expected, deviations), start)
    left = max(0.0, len(values) - _freedom(relative, deviations * (first > 0.0), start))
    squares = float(np.sum((relative @ first - 1.0) ** 2)) + NOISE_SAMPLES * start
    return _most_probable(
        relative, (expected, deviations), max(LEAST_NOISE**2, squares / (left + NOISE_SAMPLES))
    )


def layer_works(spec: NetworkSpec) -> FloatArray:
    """Return each layer's share of the dense network's MACs, weights and moved values, (L, 3)."""
    dense = spec.dense_widths()
    works = np.array([_work(layer, dense) for layer in spec.layers], dtype=np.float64).reshape(
        -1, 3
    )
    return np.asarray(works / np.maximum(works.sum(axis=0), 1.0))


def _works(spec: NetworkSpec, terms: Sequence[Term]) -> FloatArray:
    """Return what `layer_works` says of the terms that are of a layer's plain product, (T, 3)."""
    works = {layer.name: work for layer, work in zip(spec.layers, layer_works(spec))}
    rows = [works.get(term.name, np.zeros(3)) for term in terms]
    return np.array(rows).reshape(len(terms), 3)


def _work(layer: LayerSpec, dense: Widths) -> List[float]:
    reads, makes = layer.input.at(dense), layer.output.at(dense)
    pairs = makes if layer.kind == "depthwise" else reads * makes / layer.groups
    moved = (
        reads * layer.in_size[0] * layer.in_size[1] + makes * layer.out_size[0] * layer.out_size[1]
    )
    return [layer.dense_macs, layer.kernel[0] * layer.kernel[1] * pairs, layer.calls * moved]


def _prior(spec: NetworkSpec, terms: Sequence[Term], patterns: FloatArray) -> Prior:
    place = {layer.name: at for at, layer in enumerate(spec.layers)}
    touching: Dict[str, FloatArray] = {group.name: np.zeros(len(place)) for group in spec.prunable}
    for layer in spec.layers:
        factors = layer.factors()
        for form in factors:
            for group, _ in form.terms:
                touching[group][place[layer.name]] += 1.0 / len(factors)
    own, layers = np.zeros((len(terms), len(place))), np.zeros((len(terms), len(place)))
    for row, (kind, name) in enumerate(owners(terms, spec)):
        if kind == GROUP:
            layers[row] = np.minimum(1.0, touching[name])
        else:
            own[row, place[name]] = layers[row, place[name]] = 1.0
    totals = patterns.sum(axis=0)
    return Prior(patterns / np.where(totals > 0.0, totals, 1.0), layers, own)


def _most_probable(
    relative: FloatArray, prior: tuple[FloatArray, FloatArray], variance: float
) -> FloatArray:
    expected, deviations = prior
    noise = float(np.sqrt(variance))
    matrix = np.vstack([relative / noise, np.diag(1.0 / deviations)])
    target = np.concatenate([np.full(len(relative), 1.0 / noise), expected / deviations])
    return nnls(matrix, target)


def _freedom(relative: FloatArray, deviations: FloatArray, variance: float) -> float:
    """Return how many coefficients the samples settle: the trace of what maps values to fitted ones."""
    scaled = relative * deviations / np.sqrt(variance)
    values = np.linalg.svd(scaled, compute_uv=False) ** 2
    return float(np.sum(values / (1.0 + values)))
