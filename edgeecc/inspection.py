"""Inspect a network: its channel groups, its layers, and what each costs when dense."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from edgeecc.calibration_folder import device_metric
from edgeecc.graph.spec import LayerSpec, NetworkSpec
from edgeecc.pricing import Price, PriceQuery, price
from edgeecc.sources import open_network, trace_source


@dataclass(frozen=True)
class InspectRequest:
    """What to look at: see `open_network` and `PriceQuery`."""

    network: Optional[str]
    input_shape: Optional[Tuple[int, ...]]
    weights: Optional[Path]
    device: str
    workspace: Path


def inspect(request: InspectRequest) -> Dict[str, object]:
    """Return groups, layers and totals of a network, as `edgeecc inspect --json` prints them."""
    model, source = open_network(request.network, request.input_shape, request.weights)
    traced = trace_source(model, source)
    spec = traced.spec
    query = PriceQuery(device_metric(request.device), request.device, None, request.workspace)
    priced = price(traced, source, query)
    layers = [_layer(layer, spec, priced) for layer in spec.layers]
    total = {
        "macs": sum(layer.dense_macs for layer in spec.layers),
        "params": sum(
            math.prod(parameter.shape) for parameter in spec.parameters if parameter.trained
        ),
        "cost": priced.cost.predict(spec.vector(spec.dense_widths())),
    }
    return {
        "network": source.reference,
        "input": list(source.input_shape),
        "groups": _groups(spec),
        "layers": layers,
        "total": total,
        "metric": query.metric.value,
        "meter": priced.cost.meter,
    }


def _groups(spec: NetworkSpec) -> List[Dict[str, object]]:
    return [
        {
            "name": group.name,
            "width": group.width,
            "prunable": group.prunable,
            "reason": group.reason,
        }
        for group in spec.groups
    ]


def _layer(layer: LayerSpec, spec: NetworkSpec, priced: Price) -> Dict[str, object]:
    own = [p for p in spec.parameters if p.trained and p.name.rpartition(".")[0] == layer.name]
    terms = priced.profile.layer_costs() if priced.profile is not None else {}
    return {
        "name": layer.name,
        "kind": layer.kind,
        "macs": layer.dense_macs,
        "params": sum(math.prod(parameter.shape) for parameter in own),
        "cost": terms.get(layer.name),
    }
