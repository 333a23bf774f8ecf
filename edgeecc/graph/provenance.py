"""Follow prunable channels through an ONNX graph, index by index.

For every tensor and axis we know which unit owns each index (*provenance*): a global unit number, or FREE for
an index that always stays. Parameters get theirs from the spec; nodes pass it on. Where two sides meet (a
weight and its input, the operands of an addition) they must agree, which checks the traced groups a second
time, independently of torch. A constant that is no parameter of the network, such as the ones of a batch norm
without weights, has no owner of its own: it follows the channels that it meets.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Dict, FrozenSet, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import onnx

from edgeecc.errors import GraphError
from edgeecc.graph.spec import IntArray

#: Provenance of an index that no group owns.
FREE = -1
#: One array per axis.
Tag = Tuple[IntArray, ...]


class FollowError(GraphError):
    """Channels that cannot be followed through an ONNX graph.

    Args:
        what: what was seen, naming the node.
        units: global numbers of the units concerned.
    """

    def __init__(self, what: str, units: FrozenSet[int]) -> None:
        super().__init__(f"{what}; keep its channels whole or report the network")
        self.what = what
        self.units = units


@dataclass(frozen=True)
class Context:
    """What the rules of the operators look things up in.

    Args:
        shapes: tensor name -> dense shape.
        constants: names of small integer constants -> values.
        loose: names of constants that are no parameter of the network and are read once.
        opset: version of the default operator set.
    """

    shapes: Mapping[str, Tuple[int, ...]]
    constants: Mapping[str, IntArray]
    loose: FrozenSet[str]
    opset: int


class Node:
    """A node with its inputs' provenance: what an operator's rule sees."""

    def __init__(
        self, proto: onnx.NodeProto, tags: Sequence[Optional[Tag]], context: Context
    ) -> None:
        self.op = proto.op_type
        self.name = proto.name or (proto.output[0] if proto.output else proto.op_type)
        self.inputs = list(proto.input)
        self.outputs = list(proto.output)
        self.tags = list(tags)
        self.opset = context.opset
        #: Constants that follow the channels they met here.
        self.adopted: Dict[str, Tag] = {}
        self._context = context
        self._attributes = {
            item.name: onnx.helper.get_attribute_value(item) for item in proto.attribute
        }

    def tag(self, place: int) -> Tag:
        """Return the provenance of an input.

        Raises: GraphError when the input is absent.
        """
        tag = self.tags[place] if place < len(self.tags) else None
        if tag is None:
            raise self.fault(f"has no input {place}")
        return tag

    def has(self, place: int) -> bool:
        """Return whether an optional input is given."""
        return place < len(self.tags) and self.tags[place] is not None

    def attribute(self, name: str, default: object = None) -> object:
        """Return an attribute or its default."""
        return self._attributes.get(name, default)

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        value = self._attributes.get(name, default)
        if not isinstance(value, int):
            raise self.fault(f"has a wrong attribute {name}")
        return value

    def shape(self, output: int = 0) -> Tuple[int, ...]:
        """Return the dense shape of an output.

        Raises: GraphError when shape inference did not find it.
        """
        shape = self._context.shapes.get(self.outputs[output])
        if shape is None:
            raise self.fault("has an output of unknown shape")
        return shape

    def constant(self, place: int) -> Optional[IntArray]:
        """Return a small integer constant input, or None when it is absent or computed."""
        return self._context.constants.get(self.inputs[place]) if place < len(self.inputs) else None

    def integers(self, name: str, place: int) -> Optional[List[int]]:
        """Return integers given as an attribute (older opsets) or as a constant input."""
        value = self._attributes.get(name)
        if value is not None:
            return [int(item) for item in np.atleast_1d(np.asarray(value))]
        constant = self.constant(place)
        return None if constant is None else [int(item) for item in constant.reshape(-1)]

    def free(self, output: int = 0) -> Tag:
        """Return the provenance of an output that no group touches."""
        return tuple(np.full(size, FREE, dtype=np.int64) for size in self.shape(output))

    def adopt(self, place: int, axis: int, owners: IntArray) -> None:
        """Let a constant input that nobody owns follow the channels it meets index by index."""
        tag, name = self.tag(place), self.inputs[place]
        fits = name in self._context.loose and len(tag[axis]) == len(owners)
        if fits and not is_touched(tag[axis]):
            axis %= len(tag)
            self.tags[place] = self.adopted[name] = (*tag[:axis], owners, *tag[axis + 1 :])

    def same(self, one: IntArray, other: IntArray, what: str) -> None:
        """Check that two sides that meet agree.

        Raises: GraphError naming the node.
        """
        if one.shape != other.shape or not bool((one == other).all()):
            raise self.fault(f"meets channels that do not go together ({what})")

    def untouched(self, axis_tag: IntArray, what: str) -> None:
        """Check that no group owns an index of this axis.

        Raises: GraphError naming the node.
        """
        if is_touched(axis_tag):
            raise self.fault(f"works across prunable channels ({what})")

    def fault(self, what: str) -> FollowError:
        """Return an error that names this node and the units that arrive at it."""
        return FollowError(
            f"ONNX node {self.name} ({self.op}) {what}",
            frozenset().union(*(units_of(tag) for tag in self.tags if tag is not None)),
        )


@contextlib.contextmanager
def fitting(node: onnx.NodeProto) -> Iterator[None]:
    """Do what a node needs, which may have other inputs, outputs and attributes than its operator: files lie.

    Raises: GraphError naming the node, where the block trips over them.
    """
    try:
        yield
    except (ArithmeticError, LookupError, ValueError) as error:
        raise GraphError(
            f"ONNX node {node.name} ({node.op_type}) has inputs or outputs that do not fit it; export the network again"
        ) from error


def is_touched(axis_tag: IntArray) -> bool:
    """Return whether a group owns an index of this axis."""
    return bool((axis_tag != FREE).any())


def touched(tag: Tag) -> bool:
    """Return whether any index belongs to a group."""
    return any(is_touched(axis) for axis in tag)


def units_of(tag: Tag) -> FrozenSet[int]:
    """Return the units that own an index."""
    return frozenset(int(unit) for axis in tag for unit in np.unique(axis)) - {FREE}
