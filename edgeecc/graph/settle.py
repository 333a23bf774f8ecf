"""Agree on what may be pruned: a group that the ONNX graph cannot be followed through stays whole.

Found before anything is measured or trained, not after: an export that refuses a finished run helps nobody.
"""

from __future__ import annotations

from dataclasses import replace

import onnx

from edgeecc.graph.onnx_slice import SlicePlan
from edgeecc.graph.provenance import FollowError
from edgeecc.graph.spec import NetworkSpec


def settle(spec: NetworkSpec, graph: onnx.ModelProto) -> NetworkSpec:
    """Return the spec with every group kept whole, with the reason, that meets a node which cannot be followed.

    Raises: GraphError when the graph is not the spec's, or has no fixed shapes.
    """
    while True:
        try:
            SlicePlan.build(graph, spec)
        except FollowError as error:
            if not error.units:
                raise
            spec = _whole(spec, error)
        else:
            return spec


def _whole(spec: NetworkSpec, error: FollowError) -> NetworkSpec:
    offset, names = 0, set()
    for group in spec.prunable:
        if not error.units.isdisjoint(range(offset, offset + group.width)):
            names.add(group.name)
        offset += group.width
    groups = tuple(
        replace(group, prunable=False, reason=error.what) if group.name in names else group
        for group in spec.groups
    )
    return replace(spec, groups=groups)
