"""Cost as a constant plus a sum of products of channel counts.

    E(s) = a_0 + sum_l a_l * prod_k n_lk(s) / n_lk(dense)

where n_lk is a channel count, affine in the widths, or what it comes to on the device (`terms.Factor`). One form
serves all models: the paper's bilinear energy model (ECC, CVPR 2019, section 3.1: one product of input and output
channels per layer), the same with linear terms, whole tiles and parts of widths (ours), and the exact counts of MACs
and bytes. Coefficients are in the metric's unit: a_l is what term l costs when dense.
"""

from __future__ import annotations

from typing import Dict, List, Mapping, Sequence, Tuple

import numpy as np

from edgeecc.artifacts import number
from edgeecc.cost.terms import Factor, Features, Term
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.graph.spec import FloatArray, WidthForm
from edgeecc.units import Metric

#: Bounds on what a model file may hold: entries of its lists, and of the table of terms by groups that they make.
MAX_TERMS = 100_000
MAX_TABLE = 2_000_000


class ProductModel:
    """A fitted or exact sum of products; a `CostModel`.

    Args:
        metric: what it predicts.
        meter: where its numbers come from, as printed beside them.
        groups: (name, dense width) in the order of the width vector.
        terms: the products.
        coefficients: a_l, (T,), metric unit, at least 0: the model is monotone in every width.
        constant: a_0, metric unit, at least 0.
    """

    def __init__(
        self,
        metric: Metric,
        meter: str,
        *,
        groups: Sequence[Tuple[str, int]],
        terms: Sequence[Term],
        coefficients: FloatArray,
        constant: float,
    ) -> None:
        self.metric = metric
        self.meter = meter
        self.groups = tuple(groups)
        self.terms = tuple(terms)
        self.coefficients = np.asarray(coefficients, dtype=np.float64)
        self.constant = float(constant)
        if self.coefficients.shape != (len(self.terms),):
            raise ConfigError(
                f"{len(self.terms)} terms need as many coefficients, got {self.coefficients.shape}"
            )
        values = np.append(self.coefficients, self.constant)
        if not (np.isfinite(values).all() and (values >= 0.0).all()):
            raise ConfigError(
                "coefficients of a cost model must be finite and at least 0; fit it with non-negative least squares"
            )
        self.features = Features(self.groups, self.terms)

    @property
    def dense(self) -> Tuple[int, ...]:
        """Dense widths in the order of the width vector."""
        return tuple(width for _, width in self.groups)

    @property
    def tile(self) -> int:
        """The tile of the terms that cost most together when dense, of those with one; 1 where none costs."""
        cost: Dict[int, float] = {1: 0.0}
        for term, coefficient in zip(self.terms, self.coefficients):
            tile = max(factor.tile for factor in term.factors)
            cost[tile] = cost.get(tile, 0.0) + (float(coefficient) if tile > 1 else 0.0)
        return max(cost, key=lambda tile: (cost[tile], -tile))

    def predict(self, widths: FloatArray) -> float:
        """Return the cost at real-valued widths (G,)."""
        return self.constant + float(self.features(widths) @ self.coefficients)

    def predict_many(self, widths: FloatArray) -> FloatArray:
        """Return the costs, (N,), at widths (N, G)."""
        return np.asarray(
            self.constant + self.features(widths) @ self.coefficients, dtype=np.float64
        )

    def gradient(self, widths: FloatArray) -> FloatArray:
        """Return d cost / d width, (G,), metric unit per channel."""
        return np.asarray(self.coefficients @ self.features.jacobian(widths), dtype=np.float64)

    def to_json(self) -> Dict[str, object]:
        """Return the model as JSON-ready values."""
        return {
            "metric": self.metric.value,
            "meter": self.meter,
            "groups": [[name, width] for name, width in self.groups],
            "constant": self.constant,
            "terms": [
                {
                    "name": term.name,
                    "coefficient": float(a),
                    "factors": [_factor_json(factor) for factor in term.factors],
                }
                for term, a in zip(self.terms, self.coefficients)
            ],
        }

    @staticmethod
    def from_json(data: Mapping[str, object], source: object) -> ProductModel:
        """Read what `to_json` wrote, checking every field.

        Raises: ArtifactError naming the field in `source`.
        """
        try:
            terms = _objects(data.get("terms"), "terms", source)
            groups = _groups(data.get("groups"), source)
            if len(terms) * len(groups) > MAX_TABLE:
                raise ArtifactError(
                    f"{source} has {len(terms)} terms of {len(groups)} groups, no network has; is it the right file?"
                )
            return ProductModel(
                Metric(data.get("metric")),
                _text(data.get("meter"), source),
                groups=groups,
                terms=[_term(term, source) for term in terms],
                coefficients=np.array(
                    [number(term.get("coefficient"), "coefficient", source) for term in terms]
                ),
                constant=number(data.get("constant"), "constant", source),
            )
        except (ValueError, ConfigError) as error:
            raise ArtifactError(
                f"the cost model in {source} is damaged: {error}; calibrate again"
            ) from error


def _factor_json(factor: Factor) -> Dict[str, object]:
    """Return a factor as JSON; what a plain count does not need is left out."""
    data: Dict[str, object] = {
        "fixed": factor.form.fixed,
        "terms": [[group, multiplicity] for group, multiplicity in factor.form.terms],
    }
    if factor.tile != 1:
        data["tile"] = factor.tile
    if factor.above or factor.upto is not None:
        data["span"] = [factor.above, factor.upto]
    return data


def _term(data: Mapping[str, object], source: object) -> Term:
    factors = _objects(data.get("factors"), "factors", source)
    if not 1 <= len(factors) <= 4:
        raise ArtifactError(
            f"a term in {source} has {len(factors)} factors; the file is damaged, calibrate again"
        )
    return Term(
        _text(data.get("name"), source), tuple(_factor(factor, source) for factor in factors)
    )


def _factor(data: Mapping[str, object], source: object) -> Factor:
    terms = tuple(
        (str(group), _count(factor, source)) for group, factor in _pairs(data.get("terms"), source)
    )
    ((above, upto),) = _pairs([data.get("span", [0, None])], source)
    return Factor(
        WidthForm(_count(data.get("fixed"), source), terms),
        tile=_count(data.get("tile", 1), source),
        above=_count(above, source),
        upto=None if upto is None else _count(upto, source),
    )


def _groups(value: object, source: object) -> List[Tuple[str, int]]:
    groups = [(_text(name, source), _count(width, source)) for name, width in _pairs(value, source)]
    if len({name for name, _ in groups}) != len(groups) or any(width < 1 for _, width in groups):
        raise ArtifactError(
            f"groups in {source} must have distinct names and at least one channel; calibrate again"
        )
    return groups


def _text(value: object, source: object) -> str:
    if not isinstance(value, str):
        raise ArtifactError(
            f"{value!r} in {source} must be text; the file is damaged, calibrate again"
        )
    return value


def _count(value: object, source: object) -> int:
    if type(value) is not int or not 0 <= value <= 10**9:
        raise ArtifactError(
            f"{value!r} in {source} is no channel count; the file is damaged, calibrate again"
        )
    return value


def _objects(value: object, what: str, source: object) -> List[Mapping[str, object]]:
    if (
        not isinstance(value, list)
        or len(value) > MAX_TERMS
        or not all(isinstance(item, dict) for item in value)
    ):
        raise ArtifactError(
            f"{what} in {source} must be a list of objects; the file is damaged, calibrate again"
        )
    return value


def _pairs(value: object, source: object) -> List[Tuple[object, object]]:
    fine = isinstance(value, list) and len(value) <= MAX_TERMS
    if not fine or not all(isinstance(item, list) and len(item) == 2 for item in value):  # type: ignore[attr-defined]  # a list
        raise ArtifactError(
            f"{source} must list pairs of name and number; the file is damaged, calibrate again"
        )
    return [(item[0], item[1]) for item in value]  # type: ignore[attr-defined]  # a list of pairs
