"""The products that cost models sum, and their values at given widths.

A term is a product of factors, each what a count of channels comes to on a device: the count itself; the count rounded
up to whole tiles, which is what kernels work on; or only the part of it between two counts, so that a sum of such parts
is any rising piecewise-linear function. Every factor is 1 at dense widths and never falls.

Source: products of input and output channels are ECC's (CVPR 2019, section 3.1), generalised to any graph: channels
that go together are one width, fixed ends are constants. Tiles and spans are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import AbstractSet, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from edgeecc.errors import ConfigError
from edgeecc.graph.spec import FloatArray, NetworkSpec, WidthForm

BoolArray = npt.NDArray[np.bool_]

#: What terms are of, beside the kinds of layers.
GROUP, OTHER = "group", "other"
#: Kind and name of what a term is of.
Owner = Tuple[str, str]
#: A count so little above a whole tile fills it: rounding must not cost a tile.
SNAP = 1e-9


@dataclass(frozen=True)
class Factor:
    """What a count of channels comes to.

    Args:
        form: the count.
        tile: channels that it is rounded up to, at least 1.
        above, upto: counts between which it is counted; None: up to the dense one.
    """

    form: WidthForm
    tile: int = 1
    above: int = 0
    upto: Optional[int] = None

    def __post_init__(self) -> None:
        if self.tile < 1:
            raise ConfigError(f"a tile of {self.tile} channels must be at least 1")
        if self.above < 0 or (self.upto is not None and self.upto <= self.above):
            raise ConfigError(
                f"a span of channels must rise from 0, found {self.above} to {self.upto}"
            )

    @property
    def is_plain(self) -> bool:
        """Whether it is the count itself."""
        return self.tile == 1 and self.above == 0 and self.upto is None


@dataclass(frozen=True)
class Term:
    """One product: its name (a layer, or a group for linear terms) and what it multiplies."""

    name: str
    factors: Tuple[Factor, ...]

    @staticmethod
    def of(name: str, forms: Sequence[WidthForm]) -> Term:
        """Return the product of plain counts."""
        return Term(name, tuple(Factor(form) for form in forms))


class Features:
    """The products of a list of terms, normalised to 1 at dense width, vectorised over terms and samples.

    Args:
        groups: (name, dense width) in the order of the width vector.
        terms: the products.
    Raises: ConfigError for a group that is not listed, and for a factor that is nothing at dense width.
    """

    def __init__(self, groups: Sequence[Tuple[str, int]], terms: Sequence[Term]) -> None:
        place = {name: index for index, (name, _) in enumerate(groups)}
        shape = (max((len(term.factors) for term in terms), default=1), len(terms))
        self._fixed, self._slope = np.ones(shape), np.zeros((*shape, len(groups)))
        self._tile, self._above, self._upto = (
            np.ones(shape),
            np.zeros(shape),
            np.full(shape, np.inf),
        )
        for row, term in enumerate(terms):
            for layer, factor in enumerate(term.factors):
                self._set((layer, row), factor, place)
        self._plain = all(factor.is_plain for term in terms for factor in term.factors)
        self._whole = np.ones(shape)
        self._whole = self._factors(np.array([width for _, width in groups], dtype=np.float64))
        if (self._whole <= 0.0).any():
            raise ConfigError("a term of the cost model has no channels at dense width")

    def _set(self, at: Tuple[int, int], factor: Factor, place: Mapping[str, int]) -> None:
        for group, multiplicity in factor.form.terms:
            if group not in place:
                raise ConfigError(
                    f"the cost model depends on group {group!r}, which it does not list"
                )
            self._slope[at][place[group]] += multiplicity
        self._fixed[at], self._tile[at], self._above[at] = (
            factor.form.fixed,
            factor.tile,
            factor.above,
        )
        if factor.upto is not None:
            self._upto[at] = factor.upto

    def __call__(self, widths: FloatArray) -> FloatArray:
        """Return the products, (T,) for widths (G,) or (N, T) for (N, G)."""
        values = self._factors(np.asarray(widths, dtype=np.float64))
        return np.asarray(np.prod(values, axis=-2), dtype=np.float64)

    def unrounded(self, widths: FloatArray) -> FloatArray:
        """Return the products, as `__call__` does and on its scale, if counts were not rounded up to whole tiles.

        A count that no width moves stays as it is: no sample tells whether the device rounds it.
        """
        values = self._factors(
            np.asarray(widths, dtype=np.float64), ~self._slope.any(axis=-1) & (self._tile > 1.0)
        )
        return np.asarray(np.prod(values, axis=-2), dtype=np.float64)

    def jacobian(self, widths: FloatArray) -> FloatArray:
        """Return d product / d width, (T, G), at widths (G,).

        The slope of whole tiles is that of the line through their corners: between them it would be nothing. Where one
        part of a width ends and the next begins it is that of the former, which the next unit to go is of.
        """
        widths = np.asarray(widths, dtype=np.float64)
        values, counts = self._factors(widths), self._counts(widths)
        inside = ((counts > self._above) | (self._above <= 0.0)) & (counts <= self._upto)
        total = np.zeros(self._slope.shape[1:])
        for layer, slope in enumerate(self._slope):
            others = inside[layer] / self._whole[layer]
            for place, value in enumerate(values):
                if place != layer:
                    others = others * value
            total += others[:, None] * slope
        return total

    def _factors(self, widths: FloatArray, rounded: Optional[BoolArray] = None) -> FloatArray:
        """Return the factors, (k, T) for widths (G,) or (N, k, T) for (N, G).

        `rounded`, (k, T), tells which come in whole tiles; None: all that have a tile.
        """
        counts = self._counts(widths)
        if not self._plain:
            tiled = np.ceil(counts / self._tile - SNAP) * self._tile
            counts = np.where(self._tile > 1.0 if rounded is None else rounded, tiled, counts)
            counts = np.clip(counts, self._above, self._upto) - self._above
        return np.asarray(counts / self._whole)

    def _counts(self, widths: FloatArray) -> FloatArray:
        return np.asarray(np.einsum("ktg,...g->...kt", self._slope, widths) + self._fixed)


def layer_terms(spec: NetworkSpec) -> List[Term]:
    """Return one product per layer: input times output channels, for depthwise layers the channels alone."""
    return [Term.of(layer.name, layer.factors()) for layer in spec.layers]


def linear_terms(spec: NetworkSpec) -> List[Term]:
    """Return one linear term per prunable group: what passes over its channels cost (ours)."""
    return [
        Term.of(f"width:{group.name}", [WidthForm(0, ((group.name, 1),))])
        for group in spec.prunable
    ]


def tile_terms(spec: NetworkSpec, tile: int) -> List[Term]:
    """Return per layer its product with whole tiles of output channels, and of both (ours).

    A count that depends on no width is a constant, rounded or not.
    """
    terms = []
    for layer in spec.layers:
        forms = layer.factors()
        for first in reversed(range(len(forms))):
            if forms[first].terms:
                factors = [
                    Factor(form, tile if at >= first else 1) for at, form in enumerate(forms)
                ]
                terms.append(Term(f"tiles:{layer.name}", tuple(factors)))
    return terms


def span_terms(spec: NetworkSpec, shares: Sequence[float]) -> List[Term]:
    """Return per prunable group a term for each part of its width between these shares of dense (ours)."""
    terms = []
    for group in spec.prunable:
        form = WidthForm(0, ((group.name, 1),))
        ends = sorted({0, *(round(share * group.width) for share in shares), group.width})
        terms += [
            Term(f"span:{group.name}", (Factor(form, 1, low, high),))
            for low, high in zip(ends, ends[1:])
        ]
    return terms


def owners(terms: Sequence[Term], spec: NetworkSpec) -> List[Owner]:
    """Return what each term is of: a layer with its kind, a group's channels, or another module."""
    kinds = {layer.name: layer.kind for layer in spec.layers}
    groups = set(spec.dense_widths())
    return [_owner(term.name, kinds, groups) for term in terms]


def spec_groups(spec: NetworkSpec) -> List[Tuple[str, int]]:
    """Return (name, dense width) of the prunable groups in the order of the width vector."""
    return [(group.name, group.width) for group in spec.prunable]


def _owner(term: str, kinds: Mapping[str, str], groups: AbstractSet[str]) -> Owner:
    """Return what a term is of: names are those of this module, and of parameters in counts of bytes."""
    prefix, _, name = term.partition(":")
    module = term.rpartition(".")[0]
    for layer in (term, name if prefix == "tiles" else "", module):
        if layer in kinds:
            return kinds[layer], layer
    if prefix in ("width", "span") and name in groups:
        return GROUP, name
    return OTHER, module or term
