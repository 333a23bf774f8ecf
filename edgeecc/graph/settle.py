"""Agree on what may be pruned: a group that the ONNX graph cannot be followed through stays whole.

Found before anything is measured or trained, not after: an export that refuses a finished run helps nobody.
"""

from __future__ import annotations

from typing import List

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
            spec = spec.with_whole(dict.fromkeys(_names(spec, error), error.what))
        else:
            return spec


def _names(spec: NetworkSpec, error: FollowError) -> List[str]:
    """Return the groups of the units that an error is about."""
    offset, names = 0, []
    for group in spec.prunable:
        if not error.units.isdisjoint(range(offset, offset + group.width)):
            names.append(group.name)
        offset += group.width
    return names
