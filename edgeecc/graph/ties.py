"""Which layers a channel group ties together: who makes its channels, who carries them, who reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Tuple

from edgeecc.graph.spec import ChannelGroup, NetworkSpec, Role


@dataclass(frozen=True)
class Ties:
    """The layers of one group, each list in forward order.

    Args:
        group: the group.
        makers: layers that produce its channels; several are tied by an addition or by groups of a convolution.
        carriers: depthwise layers that pass them on one to one.
        readers: layers that read them.
        mac_share: share of the dense multiply-accumulates in all of these layers, 0..1.
    """

    group: ChannelGroup
    makers: Tuple[str, ...]
    carriers: Tuple[str, ...]
    readers: Tuple[str, ...]
    mac_share: float

    @property
    def layers(self) -> Tuple[str, ...]:
        """Return all layers that lose weights with the group, without repetition."""
        return tuple(dict.fromkeys((*self.makers, *self.carriers, *self.readers)))


def ties_of(spec: NetworkSpec) -> Tuple[Ties, ...]:
    """Return the ties of every group, prunable or not, in the spec's order (source: ours)."""
    macs = {layer.name: layer.dense_macs for layer in spec.layers}
    total = sum(macs.values()) or 1
    found = []
    for group in spec.groups:
        layers: Dict[Role, Dict[str, None]] = {"out": {}, "through": {}, "in": {}}
        for piece in group.slices:
            layers[piece.role][piece.parameter.rpartition(".")[0]] = None
        names = {
            role: tuple(name for name in macs if name in seen) for role, seen in layers.items()
        }
        touched = {name for seen in names.values() for name in seen}
        share = sum(macs[name] for name in touched) / total
        found.append(Ties(group, names["out"], names["through"], names["in"], share))
    return tuple(found)
