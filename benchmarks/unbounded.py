"""Cost models whose coefficients may be negative, for comparison: what is lost by models that rise in every width.

Least squares on relative errors over bilinear terms, sixteenths of each width and tiles of 32, 64 and 128, with a ridge
that cross-validation takes. A solver that prunes towards less cost would run into what such a model makes up where
nothing was measured, so they are not in the package.
"""

from __future__ import annotations

import numpy as np

from edgeecc.cost.terms import Features, layer_terms, span_terms, spec_groups, tile_terms
from edgeecc.graph.spec import FloatArray, NetworkSpec

SHARES = tuple(part / 16 for part in range(1, 16))
TILES = (32, 64, 128)
RIDGES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 5


def unbounded_predictions(
    spec: NetworkSpec, known: FloatArray, told: FloatArray, wanted: FloatArray, *, seed: int
) -> FloatArray:
    """Fit and return the predictions.

    Args:
        spec: the network.
        known, told: widths (N, G) and values (N,) to fit.
        wanted: widths (M, G).
        seed: of the folds.
    Returns: (M,), in the unit of the values.
    """
    terms = [*layer_terms(spec), *span_terms(spec, SHARES)]
    terms += [term for tile in TILES for term in tile_terms(spec, tile)]
    features = Features(spec_groups(spec), terms)
    inputs, others = (
        np.column_stack([np.ones(len(rows)), features(rows)]) for rows in (known, wanted)
    )
    folds = np.random.default_rng(seed).permutation(len(told)) % FOLDS

    def error(ridge: float) -> float:
        errors = []
        for fold in range(FOLDS):
            out = folds == fold
            found = _ridge(inputs[~out], told[~out], ridge)
            errors.append(np.abs(inputs[out] @ found / told[out] - 1.0).mean())
        return float(np.mean(errors))

    return np.asarray(others @ _ridge(inputs, told, min(RIDGES, key=error)))


def _ridge(design: FloatArray, values: FloatArray, ridge: float) -> FloatArray:
    """Return coefficients by least squares on relative residuals, and a ridge on shares of the mean value."""
    scale = values.mean()
    relative = design * (scale / values)[:, None]
    normal = relative.T @ relative + ridge * np.eye(relative.shape[1])
    return np.asarray(scale * np.linalg.solve(normal, relative.sum(axis=0)))
