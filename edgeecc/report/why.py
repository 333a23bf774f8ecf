"""Why a cost fell less than the multiply-accumulates (MACs) did, in words: the receipt of a run, read for people.

The numbers are those of `edgeecc explain`; how the gap is cut into causes is told in `cost.receipt`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from edgeecc.cost.exact import ELEMENT_BYTES
from edgeecc.graph.spec import LayerSpec, NetworkSpec, Widths
from edgeecc.units import Metric, format_quantity

#: Causes smaller than this share of the dense cost are not put into words.
_SMALL = 5e-4
#: Share of a layer's cost from which tiles that are not full are told, and shares of MACs that count as alike.
_PADDED, _ALIKE = 0.05, 0.005
#: Cause -> what charts call it, and what it is.
CAUSES = {
    "fixed": ("fixed cost", "is paid by every inference whatever the widths; no pruning removes it"),
    "channels": (
        "memory: passes over channels",
        "is of reading and writing channels, which falls with their number, where MACs fall with the product of two",
    ),
    "whole": ("layers that stay whole", "is of layers that no prunable channel touches"),
    "padding": (
        "tile steps",
        "is of whole tiles of channels: the device works on a tile even where fewer channels fill it",
    ),
    "layers": ("price of a MAC", ""),
}  # fmt: skip


@dataclass(frozen=True)
class LayerGap:
    """One layer, group or module: how much of it stays, and why its cost fell so.

    Args:
        name, kind: see `cost.receipt.Part`.
        channels: "in x out, dense -> slim"; empty for what is no layer.
        macs_share: share of its MACs that stays, None where it has none.
        dense, slim: its cost, metric unit.
        points: what it adds to the gap, per cent of the dense network's cost.
        macs_per_byte: dense and slim, counted; None where it is no layer with a weight of its own.
        why: in words.
    """

    name: str
    kind: str
    channels: str
    macs_share: Optional[float]
    dense: float
    slim: float
    points: float
    macs_per_byte: Optional[Tuple[float, float]]
    why: str


@dataclass(frozen=True)
class Gap:
    """Why the cost of one budget fell as it did.

    Args:
        metric, meter: of the cost model.
        mac_share, share: shares of MACs and of cost that stay.
        causes: name -> points it adds, per cent of the dense cost.
        words: sentences, the largest cause first.
        layers: layers in forward order, then groups and others.
        fixed: cost of no part.
    """

    metric: Metric
    meter: str
    mac_share: float
    share: float
    causes: Mapping[str, float]
    words: Tuple[str, ...]
    layers: Tuple[LayerGap, ...]
    fixed: float


def gaps_of(
    explained: Mapping[str, Any], spec: NetworkSpec, tiles: Mapping[Metric, int]
) -> Tuple[Gap, ...]:
    """Return the gap of every budget but one of MACs.

    Args:
        explained: what `edgeecc.explain.explain` returned.
        spec: of the run.
        tiles: channels of a tile, for the models that have any.
    """
    told = [each for each in explained["budgets"] if Metric(each["metric"]) is not Metric.MACS]
    return tuple(_gap(each, explained, spec, tiles.get(Metric(each["metric"]), 1)) for each in told)


def as_json(gap: Gap) -> Dict[str, object]:
    """Return it as JSON."""
    return {**asdict(gap), "metric": gap.metric.value}


def _gap(
    told: Mapping[str, Any], explained: Mapping[str, Any], spec: NetworkSpec, tile: int
) -> Gap:
    metric, macs = Metric(told["metric"]), explained["macs"]
    causes = {str(cause["name"]): 100.0 * float(cause["excess"]) for cause in told["causes"]}
    layers = {layer["name"]: layer for layer in explained["layers"]}
    forms = {layer.name: layer for layer in spec.layers}
    widths = {name: int(kept) for name, (kept, _) in explained["widths"].items()}
    parts = []
    for part in told["parts"]:
        if part["dense"] > 0.0 or part["name"] in layers:
            layer = None if part["kind"] in ("group", "other") else layers.get(part["name"])
            density = None if layer is None else _density(forms[part["name"]], spec, widths)
            parts.append(_layer(part, layer, told["dense"], macs["share"], density, tile))
    return Gap(
        metric,
        str(told["meter"]),
        float(macs["share"]),
        float(told["share"]),
        causes,
        tuple(_sentences(told, macs, metric)),
        tuple(parts),
        float(told["fixed"]),
    )


def _sentences(told: Mapping[str, Any], macs: Mapping[str, Any], metric: Metric) -> List[str]:
    """Return how far both fell, and the causes, the largest first."""
    gap = 100.0 * told["gap"]
    less = "less" if gap > 0.0 else "more"
    words = [
        f"MACs fell to {macs['share']:.1%} of the dense network's, {metric.value} to {told['share']:.1%} "
        f"({told['meter']}): {abs(gap):.1f} points {less}."
    ]
    for cause in sorted(told["causes"], key=lambda each: -abs(each["excess"])):
        if abs(cause["excess"]) >= _SMALL:
            name, what = CAUSES[cause["name"]]
            cost = format_quantity(cause["slim"], metric)
            if cause["name"] == "layers":
                how = "less" if cause["excess"] > 0.0 else "further"
                told_of = f"the layers whose MACs are dear fell {how} than others"
            else:
                told_of = f"{cost} of what is left {what}"
            points = f"{100.0 * cause['excess']:+.1f} points"
            words.append(f"{name[0].upper()}{name[1:]}, {points}: {told_of}.")
    return words


def _layer(  # keyword-less, one each
    part: Mapping[str, Any], layer: Optional[Mapping[str, Any]], total: float, mac_share: float,
    density: Optional[Tuple[float, float]], tile: int,
) -> LayerGap:  # fmt: skip
    kept = None
    if layer is not None and layer["macs_dense"] > 0.0:
        kept = layer["macs_slim"] / layer["macs_dense"]
    channels = [] if layer is None else [layer["channels_dense"], layer["channels_slim"]]
    return LayerGap(
        str(part["name"]),
        str(part["kind"]),
        " -> ".join("x".join(str(count) for count in pair) for pair in channels),
        kept,
        float(part["dense"]),
        float(part["slim"]),
        100.0 * (part["slim"] - mac_share * part["dense"]) / total,
        density,
        _why(part, kept, mac_share, None if layer is None else layer["channels_slim"], tile),
    )


def _why(
    part: Mapping[str, Any], kept: Optional[float], mac_share: float, channels: Optional[Sequence[int]], tile: int
) -> str:  # fmt: skip
    """Return what keeps a part's cost from falling as the network's MACs did."""
    if not part["dense"]:
        return "the model charges it nothing"
    if not part["movable"]:
        return "no prunable channel touches it"
    if part["kind"] in ("group", "other"):
        return "memory: falls with channels, not with their product"
    padded = ""
    if channels is not None and part["padding_slim"] > _PADDED * part["slim"]:
        share, counts = part["padding_slim"] / part["slim"], " x ".join(map(str, channels))
        padded = f"; tile steps: {counts} channels work as whole tiles of {tile}, {share:.0%} of its cost"
    if kept is None:
        return padded[2:]
    if abs(kept - mac_share) < _ALIKE:
        return f"kept as much of its MACs as the network{padded}"
    if kept > mac_share:
        return f"kept {kept:.0%} of its MACs, the network {mac_share:.0%}{padded}"
    return f"fell further than the network: kept {kept:.0%} of its MACs{padded}"


def _density(layer: LayerSpec, spec: NetworkSpec, widths: Widths) -> Optional[Tuple[float, float]]:
    """Return MACs per byte, dense and slim: weights and activations in and out, in float32, each moved once (ours)."""
    weight = next((p for p in spec.parameters if p.name == f"{layer.name}.weight"), None)
    if weight is None:
        return None
    dense = spec.dense_widths()
    return _intensity(layer, spec, weight.name, dense), _intensity(layer, spec, weight.name, widths)


def _intensity(layer: LayerSpec, spec: NetworkSpec, name: str, widths: Widths) -> float:
    weight = next(parameter for parameter in spec.parameters if parameter.name == name)
    weights, macs = 1.0, float(layer.dense_macs)
    for form in spec.parameter_form(weight):
        weights *= form.at(widths)
    for form in layer.factors():
        macs *= form.at(widths) / form.at(spec.dense_widths())
    sides = ((layer.input, layer.in_size), (layer.output, layer.out_size))
    moved = sum(form.at(widths) * size[0] * size[1] for form, size in sides) * layer.calls
    return macs / (ELEMENT_BYTES * (weights + moved))
