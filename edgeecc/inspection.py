"""Inspect a network: its channel groups, its layers, and what each costs when dense."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple

from edgeecc.artifacts import write_bytes
from edgeecc.calibration_folder import device_metric
from edgeecc.cost.hardware import hardware
from edgeecc.cost.systolic import network_energy, shapes_of
from edgeecc.errors import ConfigError
from edgeecc.graph.drawing import DRAWINGS
from edgeecc.graph.spec import LayerSpec, NetworkSpec
from edgeecc.graph.ties import ties_of
from edgeecc.pricing import PriceQuery, price
from edgeecc.sources import NetworkSource, Traced, open_network, trace_source
from edgeecc.units import Metric


@dataclass(frozen=True)
class InspectRequest:
    """What to look at: see `open_network` and `PriceQuery`; `drawing` is a file to draw the groups to."""

    network: Optional[str]
    input_shape: Optional[Tuple[int, ...]]
    weights: Optional[Path]
    paper_groups: bool
    device: str
    workspace: Path
    drawing: Optional[Path] = None

    def __post_init__(self) -> None:
        if self.drawing is not None and self.drawing.suffix not in DRAWINGS:
            known = " or ".join(sorted(DRAWINGS))
            raise ConfigError(f"cannot draw {self.drawing}; give a file that ends in {known}")


def inspect(request: InspectRequest) -> Dict[str, object]:
    """Return groups, layers and totals of a network, as `edgeecc inspect --json` prints them; draw if asked.

    Raises: ConfigError and GraphError of `open_network` and `trace_source`; ArtifactError when the drawing cannot
        be written.
    """
    model, source = open_network(
        request.network, request.input_shape, request.weights, paper_groups=request.paper_groups
    )
    traced = trace_source(model, source)
    spec = traced.spec
    if request.drawing is not None:
        write_bytes(request.drawing, DRAWINGS[request.drawing.suffix](spec).encode())
    costs = _costs(traced, source, request)
    total = {
        "macs": sum(layer.dense_macs for layer in spec.layers),
        "params": sum(
            math.prod(parameter.shape) for parameter in spec.parameters if parameter.trained
        ),
        "cost": costs.total,
    }
    return {
        "network": source.reference,
        "input": list(source.input_shape),
        "groups": _groups(spec),
        "layers": [_layer(layer, spec, costs) for layer in spec.layers],
        "total": total,
        "metric": costs.metric.value,
        "meter": costs.meter,
        "drawing": str(request.drawing) if request.drawing is not None else None,
    }


@dataclass(frozen=True)
class _Costs:
    """What the dense network costs on a device, by layer, and where the model tells it by memory level."""

    metric: Metric
    meter: str
    total: float
    layers: Mapping[str, float]
    levels: Mapping[str, Mapping[str, float]]


def _costs(traced: Traced, source: NetworkSource, request: InspectRequest) -> _Costs:
    kind, _, name = request.device.partition(":")
    if kind == "systolic":
        return _systolic(traced.spec, name)
    query = PriceQuery(device_metric(request.device), request.device, None, request.workspace)
    priced = price(traced, source, query)
    dense = priced.cost.predict(traced.spec.vector(traced.spec.dense_widths()))
    layers = priced.profile.layer_costs() if priced.profile is not None else {}
    return _Costs(query.metric, priced.cost.meter, dense, layers, {})


def _systolic(spec: NetworkSpec, name: str) -> _Costs:
    array = hardware(name)
    energies = network_energy(shapes_of(spec), array)
    return _Costs(
        Metric.ACCESSES,
        array.meter,
        sum(energy.total for energy in energies),
        {energy.name: energy.total for energy in energies},
        {energy.name: energy.levels() for energy in energies},
    )


def _groups(spec: NetworkSpec) -> List[Dict[str, object]]:
    return [
        {
            "name": ties.group.name,
            "width": ties.group.width,
            "prunable": ties.group.prunable,
            "reason": ties.group.reason,
            "makers": list(ties.makers),
            "carriers": list(ties.carriers),
            "readers": list(ties.readers),
            "mac_share": ties.mac_share,
        }
        for ties in ties_of(spec)
    ]


def _layer(layer: LayerSpec, spec: NetworkSpec, costs: _Costs) -> Dict[str, object]:
    own = [p for p in spec.parameters if p.trained and p.name.rpartition(".")[0] == layer.name]
    levels = {"levels": costs.levels[layer.name]} if costs.levels else {}
    return {
        **levels,
        "name": layer.name,
        "kind": layer.kind,
        "macs": layer.dense_macs,
        "params": sum(math.prod(parameter.shape) for parameter in own),
        "cost": costs.layers.get(layer.name),
    }
