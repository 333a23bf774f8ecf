"""The layers of a run that removed single weights: what stays of each, and what it costs on the analytic array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Mapping, Optional, Tuple

from edgeecc.cost.systolic import network_energy, shapes_of
from edgeecc.report.fields import Fields
from edgeecc.report.run_files import RunFiles
from edgeecc.verify import array_of


@dataclass(frozen=True)
class WeightLayer:
    """A layer.

    Args:
        name: of the layer.
        density: share of its weights that are not zero.
        mask_density: share of its inputs that are not masked, None without a mask.
        dense: its energy in the dense network, relaxed as budgets count it, accesses of a register file.
        energy: its exact energy with the zeros, None before export.
        levels: of that, by level: memory, cache, register, mac.
        pattern: N:M that it has; empty: none.
    """

    name: str
    density: float
    mask_density: Optional[float]
    dense: float
    energy: Optional[float]
    levels: Mapping[str, float]
    pattern: str


def weight_layers(files: RunFiles) -> Tuple[WeightLayer, ...]:
    """Return the layers of a run that removed single weights, in forward order; none of another run.

    Raises: ArtifactError when its files are damaged.
    """
    if files.kind != "weights":
        return ()
    array = array_of(files.result.data, files.result.source)
    density = files.result.under("density").all_numbers()
    masks = files.result.under("mask_density").all_numbers()
    listed = [] if files.exported is None else files.exported.objects("layers")
    exported: Dict[str, Fields] = {row.text("name"): row for row in listed}
    return tuple(
        _layer(energy.name, energy.total, density, masks, exported.get(energy.name))
        for energy in network_energy(shapes_of(files.spec), array, exact=False)
    )


def _layer(
    name: str, dense: float, density: Mapping[str, float], masks: Mapping[str, float], row: Optional[Fields]
) -> WeightLayer:  # fmt: skip
    if row is None:
        return WeightLayer(name, density.get(name, 1.0), masks.get(name), dense, None, {}, "")
    return WeightLayer(
        name,
        row.number("density"),
        row.maybe("mask_density"),
        dense,
        row.number("total"),
        row.under("levels").all_numbers(),
        row.text("pattern", ""),
    )
