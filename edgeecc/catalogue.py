"""The networks that edgeecc knows, with what they cost when dense and how many channel groups they have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List

import torch

from edgeecc.graph.layers import layer_specs, observe
from edgeecc.networks.table import NETWORKS, build, info


@dataclass(frozen=True)
class DenseCounts:
    """Multiply-accumulates of convolutions and linear layers on one image, and trained parameters."""

    macs: int
    params: int


def dense_counts(name: str) -> DenseCounts:
    """Count a table network without allocating or computing anything.

    Raises: ConfigError for an unknown name.
    """
    with torch.device("meta"):
        model = build(name).eval()
        example = torch.empty((1, *info(name).input_shape))
    layers = layer_specs(model, observe(model, (example,)), ())
    return DenseCounts(
        sum(layer.dense_macs for layer in layers),
        sum(parameter.numel() for parameter in model.parameters()),
    )


def catalogue() -> List[Dict[str, object]]:
    """Return every table network as `edgeecc networks --json` prints it."""
    entries: List[Dict[str, object]] = []
    for name, row in NETWORKS.items():
        counts = dense_counts(name)
        entries.append(
            {
                "network": name,
                "input": list(row.input_shape),
                "macs": counts.macs,
                "params": counts.params,
                "prunable_groups": row.groups[0],
                "groups": row.groups[1],
                "task": row.task,
                "about": row.about,
            }
        )
    return entries
