"""The receipt of a pruned network: what each part costs, dense and slim, and why costs fell less than MACs.

A cost model is a constant and terms (`cost.product`); every term is told with the layer, or the group of channels, that
it is of. The decomposition of the gap is ours. With E the model, m the share of the dense multiply-accumulates (MACs)
that stays, and E cut into parts P, whichever,

    E(slim) / E(dense) - m = sum over parts of (P(slim) - m P(dense)) / E(dense)

because the parts add up to E: each adds what it costs beyond what it would, had it fallen as the network's MACs did.
That is exact for every model. The parts are put together by what keeps them from falling so:

fixed      the constant
whole      terms that no width moves: layers that no group touches
channels   terms of a group's width, and of modules that are no layers: these fall with widths, MACs with products
padding    of all terms, what is paid for whole tiles that are not full
layers     what is left of the layers' own terms

In the forms that calibration fits, what is left of a layer's terms falls just as its own MACs do, so `layers` is what
comes of dear MACs: above nothing where the layers that cost most a MAC fell less than the others, below where more.

Padding is what a term costs at counts rounded up to whole tiles, less what it would cost at the counts themselves, at
the same price a channel (ours). It is nothing for models without tiles and where all counts fill their tiles, so that
dense networks have some too. Counts that no width moves are left out: no sample tells whether a device rounds them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, List, Tuple

from edgeecc.cost.product import ProductModel
from edgeecc.cost.terms import GROUP, OTHER, Owner, Term, owners
from edgeecc.errors import ConfigError
from edgeecc.graph.spec import NetworkSpec, Widths
from edgeecc.units import Metric


@dataclass(frozen=True)
class Line:
    """What one term costs, in the metric's unit.

    Args:
        term: its name.
        moved: whether any width moves it.
        dense, slim: its cost.
        padding_dense, padding_slim: of that, for whole tiles that are not full.
    """

    term: str
    moved: bool
    dense: float
    slim: float
    padding_dense: float
    padding_slim: float


@dataclass(frozen=True)
class Part:
    """What a layer, the channels of a group or another module cost.

    Args:
        name: of the layer, the group or the module.
        kind: the layer's, GROUP or OTHER.
        movable: whether any width moves it.
        lines: its terms.
    """

    name: str
    kind: str
    movable: bool
    lines: Tuple[Line, ...]

    @property
    def dense(self) -> float:
        """Cost when dense, metric unit."""
        return math.fsum(line.dense for line in self.lines)

    @property
    def slim(self) -> float:
        """Cost at the widths that stay, metric unit."""
        return math.fsum(line.slim for line in self.lines)

    @property
    def padding_dense(self) -> float:
        """Of the dense cost, what whole tiles that are not full cost."""
        return math.fsum(line.padding_dense for line in self.lines)

    @property
    def padding_slim(self) -> float:
        """Of the slim cost, what whole tiles that are not full cost."""
        return math.fsum(line.padding_slim for line in self.lines)


@dataclass(frozen=True)
class Cause:
    """One reason why cost and MACs did not fall alike, see the module.

    Args:
        name: fixed, whole, channels, padding or layers.
        dense, slim: what its parts cost, metric unit.
        excess: what it adds to the gap between the share of the cost that stays and that of the MACs.
    """

    name: str
    dense: float
    slim: float
    excess: float


@dataclass(frozen=True)
class Receipt:
    """What a network costs by part, dense and slim; the parts and the fixed cost add up to the totals.

    Args:
        metric, meter: of the cost model.
        fixed: the model's constant, metric unit: what no pruning removes.
        parts: layers in forward order, then groups, then other modules.
        dense, slim: the totals, as the model predicts them.
    """

    metric: Metric
    meter: str
    fixed: float
    parts: Tuple[Part, ...]
    dense: float
    slim: float

    @property
    def padding_dense(self) -> float:
        """Of the dense cost, what whole tiles that are not full cost."""
        return math.fsum(part.padding_dense for part in self.parts)

    @property
    def padding_slim(self) -> float:
        """Of the slim cost, what whole tiles that are not full cost."""
        return math.fsum(part.padding_slim for part in self.parts)

    @property
    def share(self) -> float:
        """Share of the dense cost that stays."""
        return self.slim / self.dense

    def causes(self, mac_share: float) -> Tuple[Cause, ...]:
        """Return why `share` is not the share of the MACs that stays; the excesses add up to their difference."""
        sums: Dict[str, List[Tuple[float, float]]] = {
            "fixed": [(self.fixed, self.fixed)],
            "whole": [],
            "channels": [],
            "padding": [],
            "layers": [],
        }
        for part in self.parts:
            own = "channels" if part.kind in (GROUP, OTHER) else "layers"
            for line in part.lines:
                full = (line.dense - line.padding_dense, line.slim - line.padding_slim)
                sums[own if line.moved else "whole"].append(full)
                sums["padding"].append((line.padding_dense, line.padding_slim))
        found = []
        for name, costs in sums.items():
            dense, slim = (math.fsum(cost) for cost in zip(*costs)) if costs else (0.0, 0.0)
            found.append(Cause(name, dense, slim, (slim - mac_share * dense) / self.dense))
        return tuple(found)


def receipt(model: ProductModel, spec: NetworkSpec, widths: Widths) -> Receipt:
    """Return what each part of a network costs, dense and at the given widths.

    Args:
        model: a cost model of this network: its groups are the spec's prunable ones.
        spec: the network.
        widths: units that stay of every prunable group.
    Raises: ConfigError when the dense network costs nothing, or more than a number holds.
    """
    dense, slim = spec.vector(spec.dense_widths()), spec.vector(widths)
    totals = model.predict(dense), model.predict(slim)
    if not 0.0 < totals[0] < math.inf:
        raise ConfigError(
            f"the dense network costs {totals[0]} {model.metric.unit} by {model.meter}; calibrate again"
        )
    features = model.features
    values = (features(dense), features(slim), features.unrounded(dense), features.unrounded(slim))
    lines: Dict[Owner, List[Line]] = {(layer.kind, layer.name): [] for layer in spec.layers}
    lines.update({(GROUP, group.name): [] for group in spec.prunable})
    costs = (model.coefficients * value for value in values)
    for owner, term, *cost in zip(owners(model.terms, spec), model.terms, *costs):
        whole, left, full, full_left = (float(value) for value in cost)
        line = Line(term.name, _moved(term), whole, left, whole - full, left - full_left)
        lines.setdefault(owner, []).append(line)
    movable = {
        (layer.kind, layer.name)
        for layer in spec.layers
        if any(form.terms for form in layer.factors())
    }
    parts = tuple(
        Part(name, kind, (kind, name) in movable or any(line.moved for line in own), tuple(own))
        for (kind, name), own in lines.items()
        if own or kind != GROUP
    )
    return Receipt(model.metric, model.meter, model.constant, parts, *totals)


def _moved(term: Term) -> bool:
    return any(factor.form.terms for factor in term.factors)
