"""Cut variants out of one dense ONNX graph: slice its initializers, mend its shape constants.

A variant costs milliseconds and needs no torch, so thousands can be made on the device itself.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Tuple

import numpy as np
import numpy.typing as npt
import onnx

from edgeecc.errors import ArtifactError
from edgeecc.graph.channels import array_of, trace_channels
from edgeecc.graph.onnx_rules import is_depthwise
from edgeecc.graph.provenance import FREE, FollowError, Tag, fitting, touched, units_of
from edgeecc.graph.spec import IntArray, Keep, NetworkSpec, Widths

#: Largest ONNX file that is read: protobuf's own limit.
MAX_MODEL_BYTES = 2**31 - 1

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Fix:
    """A constant of a node that depends on the widths: its initializer, and one provenance per entry.

    kind "sizes": entry i becomes the kept length of axes[i] where it is that axis's dense length. kind "bounds": entry
    i counts the kept indices before its dense value.
    """

    name: str
    dense: IntArray
    axes: Tuple[IntArray, ...]
    kind: str


class SlicePlan:
    """Everything about a dense graph that does not depend on the widths; `build` it once."""

    def __init__(self, model: onnx.ModelProto, spec: NetworkSpec, tags: Mapping[str, Tag]) -> None:
        self.spec = spec
        self.tags = dict(tags)
        self._arrays: Dict[str, npt.NDArray[np.generic]] = {
            t.name: array_of(t) for t in model.graph.initializer
        }
        self._types = {t.name: t.data_type for t in model.graph.initializer}
        self._skeleton = onnx.ModelProto()
        self._skeleton.CopyFrom(model)
        del self._skeleton.graph.initializer[:]
        del self._skeleton.graph.value_info[:]
        self._fixes: List[_Fix] = []
        self._depthwise: List[Tuple[int, IntArray]] = []
        for place, node in enumerate(self._skeleton.graph.node):
            with fitting(node):
                self._prepare(place, node)
        used = {name for node in self._skeleton.graph.node for name in node.input}
        fixed = {fix.name for fix in self._fixes}
        self._plain = [name for name in self._arrays if name in used and name not in fixed]
        self._fields = {name: touched(tags[name]) for name in self._plain}

    @staticmethod
    def build(model: onnx.ModelProto, spec: NetworkSpec) -> SlicePlan:
        """Follow the channels of `spec` through `model`.

        Raises: FollowError naming the node that cannot be followed; GraphError where the graph has no fixed shapes.
        """
        separate = _unshared(model, spec)
        return SlicePlan(separate, spec, trace_channels(separate, spec))

    @property
    def graph(self) -> onnx.GraphProto:
        """Return the dense graph without its initializers; not to be changed."""
        return self._skeleton.graph

    @property
    def constants(self) -> Mapping[str, npt.NDArray[np.generic]]:
        """Return the dense initializers, the mended ones under names of their own."""
        return self._arrays

    def cut(self, keep: Keep) -> onnx.ModelProto:
        """Return the graph of a variant.

        Args:
            keep: units that stay, per prunable group.
        Raises: ConfigError when `keep` does not fit the spec.
        """
        alive = self.alive(self.spec.checked_keep(keep))
        model = onnx.ModelProto()
        model.CopyFrom(self._skeleton)
        kept = _KeptIndices(alive)
        for name in self._plain:
            array = self._arrays[name]
            if self._fields[name]:
                for axis, owners in enumerate(self.tags[name]):
                    array = kept.take(array, axis, owners)
            _add_tensor(model, name, self._types[name], array)
        for fix in self._fixes:
            _add_tensor(model, fix.name, onnx.TensorProto.INT64, _mended(fix, alive))
        for place, owners in self._depthwise:
            for attribute in model.graph.node[place].attribute:
                if attribute.name == "group":
                    attribute.i = kept.count(owners)
        return model

    def alive(self, keep: Keep) -> BoolArray:
        """Return, per global unit, whether it stays; the last entry stands for free indices."""
        alive = np.zeros(sum(group.width for group in self.spec.prunable) + 1, dtype=np.bool_)
        alive[FREE] = True
        offset = 0
        for group in self.spec.prunable:
            alive[offset + np.asarray(keep[group.name])] = True
            offset += group.width
        return alive

    def shapes(self, widths: Widths) -> Dict[str, Tuple[int, ...]]:
        """Return the shape of every tensor of the variant with the first s_g units of each group."""
        kept = _KeptIndices(self.alive(self.spec.keep_first(widths)))
        return {name: tuple(kept.count(axis) for axis in tag) for name, tag in self.tags.items()}

    def _prepare(self, place: int, node: onnx.NodeProto) -> None:
        if node.op_type in ("Conv", "ConvTranspose"):
            groups = next((a.i for a in node.attribute if a.name == "group"), 1)
            channels = self.tags[node.input[0]][1], self.tags[node.output[0]][1]
            if is_depthwise(groups, *map(len, channels)) and bool((channels[1] != FREE).any()):
                self._depthwise.append((place, channels[1]))
        elif node.op_type in ("Reshape", "Expand", "Resize", "Split", "Slice"):
            self._prepare_shapes(node)

    def _prepare_shapes(self, node: onnx.NodeProto) -> None:
        made = self.tags[node.output[0]]
        if node.op_type == "Split":
            self._prepare_split(node)
        elif node.op_type == "Slice":
            axes = self._slice_axes(node)
            for place in (1, 2):
                self._fix(node, place, axes, "bounds")
        elif touched(made):
            place = 3 if node.op_type == "Resize" else 1
            if len(node.input) > place and node.input[place]:
                self._fix(node, place, self._sized_axes(node, place, made), "sizes")

    def _prepare_split(self, node: onnx.NodeProto) -> None:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        pieces = [self.tags[name][axis] for name in node.output]
        if not any(bool((piece != FREE).any()) for piece in pieces):
            return
        for index in reversed(range(len(node.attribute))):
            if node.attribute[index].name in ("num_outputs", "split"):
                del node.attribute[index]
        if len(node.input) == 1:
            node.input.append("")
        self._fix(
            node, 1, pieces, "sizes", np.array([len(piece) for piece in pieces], dtype=np.int64)
        )

    def _sized_axes(self, node: onnx.NodeProto, place: int, made: Tag) -> Tuple[IntArray, ...]:
        """Return the axes that the entries of a shape constant stand for."""
        if node.op_type == "Resize":
            axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
            return made if axes is None else tuple(made[axis] for axis in axes)
        if node.op_type == "Expand":  # aligned at the last axis
            return made[-self._arrays[node.input[place]].size :]
        return made

    def _slice_axes(self, node: onnx.NodeProto) -> Tuple[IntArray, ...]:
        tag = self.tags[node.input[0]]
        given = self._arrays.get(node.input[3]) if len(node.input) > 3 else None
        axes = range(len(tag)) if given is None else [int(axis) for axis in given.reshape(-1)]
        return tuple(tag[axis] for axis in axes)

    def _fix(
        self, node: onnx.NodeProto, place: int, axes: Sequence[IntArray], kind: str, dense: object = None
    ) -> None:  # fmt: skip
        if not any(bool((axis != FREE).any()) for axis in axes):
            return
        if dense is None:
            if node.input[place] not in self._arrays:
                raise FollowError(
                    f"ONNX node {node.name} ({node.op_type}) computes its shape",
                    units_of(tuple(axes)),
                )
            dense = self._arrays[node.input[place]]
        name = f"{node.output[0]}/{node.op_type}/{place}"
        values = np.asarray(dense, dtype=np.int64).reshape(-1)
        node.input[place] = name
        self._arrays[name] = values
        self.tags[name] = (np.full(len(values), FREE, dtype=np.int64),)
        self._fixes.append(_Fix(name, values, tuple(axes), kind))


class _KeptIndices:
    """Kept indices of an axis, computed once per distinct provenance."""

    def __init__(self, alive: BoolArray) -> None:
        self._alive = alive
        self._cache: Dict[int, Tuple[IntArray, IntArray, bool]] = {}

    def _look(self, owners: IntArray) -> Tuple[IntArray, IntArray, bool]:
        found = self._cache.get(id(owners))
        if found is None:
            indices = np.flatnonzero(self._alive[owners])
            prefix = bool(len(indices)) and indices[-1] == len(indices) - 1
            found = self._cache[id(owners)] = (
                owners,
                indices,
                prefix,
            )  # owners kept alive: ids stay unique
        return found

    def count(self, owners: IntArray) -> int:
        return len(self._look(owners)[1])

    def take(
        self, array: npt.NDArray[np.generic], axis: int, owners: IntArray
    ) -> npt.NDArray[np.generic]:
        _, indices, prefix = self._look(owners)
        if len(indices) == array.shape[axis]:
            return array
        if prefix:
            return array[(slice(None),) * axis + (slice(0, len(indices)),)]
        return np.take(array, indices, axis)


def load_model(path: Path, max_bytes: int = MAX_MODEL_BYTES) -> onnx.ModelProto:
    """Read an ONNX file that may come from anywhere.

    Raises: ArtifactError when it is missing, too large, damaged, or points at other files.
    """
    try:
        size = path.stat().st_size
        if size <= max_bytes:
            data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}; check the path") from error
    if size > max_bytes:
        raise ArtifactError(f"{path} is larger than {max_bytes} bytes; export a smaller network")
    try:
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model)
    except Exception as error:
        detail = " ".join(str(error).split())[:200]
        raise ArtifactError(f"{path} is damaged: {detail}; export it again") from error
    if any(_is_outside(tensor) for tensor in _tensors_in(model)):
        raise ArtifactError(f"{path} keeps weights in other files; save it as one file")
    return model


def _tensors_in(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a model, those of attributes, subgraphs and functions too."""
    left: List[Any] = [model]
    while left:
        message = left.pop()
        if isinstance(message, onnx.TensorProto):
            yield message
            continue
        for field, value in message.ListFields():
            if field.message_type is not None:
                left += [value] if hasattr(value, "ListFields") else value


def _is_outside(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL or bool(tensor.external_data)


def _unshared(model: onnx.ModelProto, spec: NetworkSpec) -> onnx.ModelProto:
    """Return the graph with every constant that is no parameter read once: each use may lose other channels."""
    own = {parameter.name for parameter in spec.parameters}
    loose = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name not in own}
    uses = Counter(name for node in model.graph.node for name in node.input if name in loose)
    if max(uses.values(), default=0) < 2:
        return model
    separate = onnx.ModelProto()
    separate.CopyFrom(model)
    for node in separate.graph.node:
        for place, name in enumerate(node.input):
            if uses[name] > 1:
                uses[name] -= 1
                node.input[place] = f"{name}/{uses[name]}"
                separate.graph.initializer.add().CopyFrom(loose[name])
                separate.graph.initializer[-1].name = node.input[place]
    return separate


def _mended(fix: _Fix, alive: BoolArray) -> IntArray:
    values: IntArray = fix.dense.copy()
    for place, owners in enumerate(fix.axes[: len(values)]):
        if not bool((owners != FREE).any()):
            continue
        if fix.kind == "sizes":
            if values[place] == len(owners):  # 0, -1 and a broadcast 1 follow by themselves
                values[place] = int(alive[owners].sum())
        else:
            bound = min(
                max(int(values[place]) + (len(owners) if values[place] < 0 else 0), 0), len(owners)
            )
            values[place] = int(alive[owners[:bound]].sum())
    return values


def _add_tensor(
    model: onnx.ModelProto, name: str, data_type: int, array: npt.NDArray[np.generic]
) -> None:
    tensor = model.graph.initializer.add()
    tensor.name = name
    tensor.data_type = data_type
    tensor.dims.extend(array.shape)
    tensor.raw_data = array.tobytes()
