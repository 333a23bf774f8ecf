"""Explain a pruned run: what each layer costs, dense and slim, and why costs fell less than MACs; needs no torch.

Costs are those of the models that the run was pruned by, which its folder keeps; MACs and bytes are counted. What was
measured stands beside them with its own meter.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from edgeecc.artifacts import number, read_json
from edgeecc.cost.exact import mac_cost
from edgeecc.cost.receipt import Part, Receipt, receipt
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.graph.spec import LayerSpec, NetworkSpec, Widths
from edgeecc.run_folder import (
    REPORT_SCHEMA,
    RESULT_SCHEMA,
    VERIFY_SCHEMA,
    RunFolder,
)
from edgeecc.run_profiles import model_of
from edgeecc.units import Metric
from edgeecc.verdict import Bound, bounds_of

#: Where a measured figure of a metric and its meter stand in report.json and verify.json.
_MEASURED = {
    Metric.ENERGY: ("energy_j", "meter"),
    Metric.LATENCY: ("latency_s", "latency_meter"),
}
#: Share by which the files of a run may differ in what the pruned network costs: rounding, no more.
_SAME = 1e-9


def explain(folder: RunFolder) -> Dict[str, Any]:
    """Return what `edgeecc explain --json` prints: MACs by layer, and the receipt of every budget.

    Raises: ConfigError for a run that removed single weights; ArtifactError when the run is not finished or its files
        are damaged or do not belong together.
    """
    folder.read_finished()
    folder.check_settled()
    if folder.kind() == "weights":
        raise ConfigError(
            f"{folder.path} removed single weights, explain is about channels; edgeecc export {folder.path} writes "
            "what each layer costs to its report.json"
        )
    source = folder.file("result.json")
    result = read_json(source, RESULT_SCHEMA)
    bounds = bounds_of(result, source)
    spec = folder.read_spec()
    widths = {name: len(units) for name, units in folder.read_keep(spec).items()}
    macs = receipt(mac_cost(spec), spec, widths)
    by_name = {part.name: part for part in macs.parts}
    told = []
    for place, bound in enumerate(bounds):
        priced = receipt(model_of(folder, bound.metric, spec), spec, widths)
        _check_same(priced, result, place, source)
        told.append({**_bound(bound), **_receipt(priced, macs), **_measured(folder, bound.metric)})
    return {
        "run": str(folder.path),
        "network": spec.network,
        "macs": {"dense": macs.dense, "slim": macs.slim, "share": macs.share, "meter": macs.meter},
        "layers": [_layer(layer, spec, widths, by_name[layer.name]) for layer in spec.layers],
        "widths": {group.name: [widths[group.name], group.width] for group in spec.prunable},
        "budgets": told,
    }


def _check_same(priced: Receipt, result: Mapping[str, object], place: int, source: Path) -> None:
    """Check that the receipt ends in what pruning said.

    Raises: ArtifactError when it does not.
    """
    listed = result.get("budgets")
    entry = listed[place] if isinstance(listed, list) and len(listed) > 1 else result
    said = number(entry.get("cost"), "cost", source)
    if not math.isclose(priced.slim, said, rel_tol=_SAME):
        unit = priced.metric.unit
        raise ArtifactError(
            f"{source} tells {said:g} {unit} for the pruned network, {priced.meter} {priced.slim:g} {unit}: its files "
            "are of different runs; run edgeecc prune again"
        )


def _bound(bound: Bound) -> Dict[str, object]:
    return {
        "metric": bound.metric.value,
        "unit": bound.metric.unit,
        "text": bound.text,
        "value": bound.value,
        "device": bound.device,
    }


def _receipt(priced: Receipt, macs: Receipt) -> Dict[str, object]:
    """Return a receipt as JSON; MACs against themselves have no causes."""
    causes = () if priced.metric is Metric.MACS else priced.causes(macs.share)
    return {
        "meter": priced.meter,
        "dense": priced.dense,
        "slim": priced.slim,
        "share": priced.share,
        "fixed": priced.fixed,
        "padding_dense": priced.padding_dense,
        "padding_slim": priced.padding_slim,
        "gap": priced.share - macs.share,
        "causes": [vars(cause) for cause in causes],
        "parts": [_part(part, priced.dense - priced.slim) for part in priced.parts],
    }


def _part(part: Part, saved: float) -> Dict[str, object]:
    return {
        "name": part.name,
        "kind": part.kind,
        "movable": part.movable,
        "dense": part.dense,
        "slim": part.slim,
        "padding_dense": part.padding_dense,
        "padding_slim": part.padding_slim,
        "saving_share": (part.dense - part.slim) / saved if saved > 0.0 else None,
        "terms": [vars(line) for line in part.lines],
    }


def _layer(layer: LayerSpec, spec: NetworkSpec, widths: Widths, macs: Part) -> Dict[str, object]:
    dense = spec.dense_widths()
    return {
        "name": layer.name,
        "kind": layer.kind,
        "channels_dense": [layer.input.at(dense), layer.output.at(dense)],
        "channels_slim": [layer.input.at(widths), layer.output.at(widths)],
        "macs_dense": macs.dense,
        "macs_slim": macs.slim,
    }


def _measured(folder: RunFolder, metric: Metric) -> Dict[str, object]:
    """Return what export and verify measured; export measures dense and slim together, verify the slim one alone."""
    if metric not in _MEASURED:
        return {"measured": []}
    found: List[Dict[str, object]] = []
    if folder.has("report.json"):
        path = folder.file("report.json")
        rows = read_json(path, REPORT_SCHEMA).get("networks")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ArtifactError(f"{path} lists no networks; run edgeecc export again")
        figures = {str(row.get("network")): _figure(row, metric, path) for row in rows}
        found.append(_by("export", figures.get("dense"), figures.get("slim")))
    if folder.has("verify.json"):
        path = folder.file("verify.json")
        found.append(_by("verify", None, _figure(read_json(path, VERIFY_SCHEMA), metric, path)))
    return {"measured": [each for each in found if each["slim"] is not None]}


def _figure(row: Mapping[str, object], metric: Metric, source: Path) -> Optional[Tuple[float, str]]:
    """Return a measured value and its meter; None where nothing was measured."""
    key, meter = (row.get(name) for name in _MEASURED[metric])
    if key is None:
        return None
    if not isinstance(meter, str):
        raise ArtifactError(
            f"{source} tells {metric.value} without its meter; run edgeecc export again"
        )
    return number(key, metric.value, source), meter


def _by(
    command: str, dense: Optional[Tuple[float, str]], slim: Optional[Tuple[float, str]]
) -> Dict[str, object]:
    """Return two figures of one meter; the dense one is left out where its meter is another."""
    same = dense is not None and slim is not None and dense[1] == slim[1]
    return {
        "by": command,
        "dense": dense[0] if dense is not None and same else None,
        "slim": None if slim is None else slim[0],
        "meter": None if slim is None else slim[1],
    }
