"""Prune what ECC's paper pruned: only channels that a single layer makes."""

from __future__ import annotations

from edgeecc.graph.spec import ChannelGroup, NetworkSpec

_REASON = (
    "several layers make its channels (a residual stream), and --paper-groups keeps those whole"
)


def keep_streams_whole(spec: NetworkSpec) -> NetworkSpec:
    """Return the spec in which every group that more than one layer makes stays whole.

    Source: ECC (CVPR 2019): AlexNet has 7 widths, MobileNetV1 14, ERFNet the 51 inside its residual blocks.
    """
    streams = {group.name: _REASON for group in spec.prunable if len(_makers(group)) > 1}
    return spec.with_whole(streams)


def _makers(group: ChannelGroup) -> set[str]:
    return {piece.parameter.rpartition(".")[0] for piece in group.slices if piece.role == "out"}
