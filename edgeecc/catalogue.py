"""The networks that edgeecc knows, with what they cost when dense and how many channel groups they have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import torch

from edgeecc.errors import GraphError
from edgeecc.graph.layers import layer_specs, observe
from edgeecc.graph.trace import trace
from edgeecc.networks.table import NETWORKS, build, info

#: Side of the images on which groups are counted, in pixels: they do not depend on it, the time does.
_SIDE = 64
#: Called with how many networks are done, how many there are, and the name of the next.
OnNetwork = Callable[[int, int, str], None]


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


def group_counts(name: str) -> Tuple[int, int]:
    """Trace a table network and return how many of its channel groups can be pruned, and how many there are.

    Raises: ConfigError for an unknown name.
    """
    channels, *sides = info(name).input_shape
    small = (channels, *(min(side, _SIDE) for side in sides))
    model = build(name)
    try:
        spec = trace(model, (torch.zeros((1, *small)),), network=name)
    except GraphError:  # its linear layers take one size of image only
        spec = trace(model, (torch.zeros((1, channels, *sides)),), network=name)
    return len(spec.prunable), len(spec.groups)


def catalogue(
    names: Sequence[str] = (), *, groups: bool = False, on_network: Optional[OnNetwork] = None
) -> List[Dict[str, object]]:  # fmt: skip
    """Return table networks as `edgeecc networks --json` prints them.

    Args:
        names: of those wanted, none for all.
        groups: trace each, which takes seconds, to count its groups.
        on_network: called before each network, and once when all are done.
    Raises: ConfigError for an unknown name.
    """
    chosen = list(names) or list(NETWORKS)
    rows = [info(name) for name in chosen]
    entries: List[Dict[str, object]] = []
    for name, row in zip(chosen, rows):
        if on_network is not None:
            on_network(len(entries), len(chosen), name)
        counts = dense_counts(name)
        entry: Dict[str, object] = {
            "network": name,
            "input": list(row.input_shape),
            "macs": counts.macs,
            "params": counts.params,
            "task": row.task,
            "about": row.about,
        }
        if groups:
            entry["prunable_groups"], entry["groups"] = group_counts(name)
        entries.append(entry)
    if on_network is not None:
        on_network(len(entries), len(chosen), "")
    return entries
