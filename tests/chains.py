"""Specs of plain chains of convolutions, made without torch."""

from __future__ import annotations

from typing import Sequence

from edgeecc.graph.spec import ChannelGroup, LayerSpec, NetworkSpec, WidthForm


def chain_spec(
    widths: Sequence[int], *, ends: tuple = (3, 10), size: int = 8, groups: str = "g"
) -> NetworkSpec:
    """Return a chain of 3x3 convolutions whose hidden widths may be pruned, its groups named as is said."""
    names = [f"{groups}{index}" for index in range(len(widths))]
    counts = [WidthForm(ends[0]), *(WidthForm(0, ((n, 1),)) for n in names), WidthForm(ends[1])]
    dense = [ends[0], *widths, ends[1]]
    layers = tuple(
        LayerSpec(
            name=f"layer{at}", kind="conv", input=counts[at], output=counts[at + 1], kernel=(3, 3), stride=(1, 1),
            dilation=(1, 1), padding=(1, 1), groups=1, in_size=(size, size), out_size=(size, size), calls=1,
            dense_macs=9 * size * size * dense[at] * dense[at + 1], bias=False,
        )
        for at in range(len(widths) + 1)
    )  # fmt: skip
    made = tuple(ChannelGroup(name, width, ()) for name, width in zip(names, widths))
    return NetworkSpec("chain", ((1, ends[0], size, size),), made, layers, ())
