"""The description of a network that everything else works from, without torch.

A `NetworkSpec` says which channels must go together (`ChannelGroup`), where they sit in which parameter
(`Slice`), and what each layer costs as a function of the widths (`LayerSpec`, `WidthForm`). The same table
drives slimming in torch and slicing in ONNX.

Words: a *unit* is the smallest thing that can be removed from a group, usually one channel, in grouped
convolutions one channel of every group together. The *width* of a group is its number of units. A `Keep`
says which units of each prunable group stay; `Widths` only says how many.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Dict, Literal, Mapping, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from edgeecc.errors import ConfigError, GraphError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

#: Group name -> sorted unit indices that stay. Only prunable groups appear.
Keep = Mapping[str, IntArray]
#: Group name -> number of units that stay. Only prunable groups appear.
Widths = Mapping[str, int]

Role = Literal["out", "through", "in"]
LayerKind = Literal["conv", "depthwise", "grouped", "transposed", "linear"]


@dataclass(frozen=True)
class Slice:
    """Where the units of a group sit along one axis of one parameter.

    Unit u owns the indices `start + u*step + r*stride + b` for r < repeats and b < block. A plain channel
    is step 1; a linear layer after flatten has step = block = H*W; a grouped convolution repeats every
    C/G; a group that covers part of a concatenation has a start.

    Args:
        parameter: name as in `state_dict()`, which is also the ONNX initializer's name.
        axis: axis of that parameter.
        role: "out" makes the channels (producer), "through" carries them one to one (batch norm, depthwise,
            PReLU), "in" reads them (consumer). A mask zeroes the "in" slices only.
        first, count: the slice covers units first <= u < first + count of the group; u above counts from
            `first`. Usually the whole group.
    """

    parameter: str
    axis: int
    role: Role
    start: int
    step: int
    first: int
    count: int
    block: int = 1
    repeats: int = 1
    stride: int = 0

    @property
    def per_unit(self) -> int:
        """Number of indices that one unit owns."""
        return self.block * self.repeats

    def indices(self, units: IntArray) -> IntArray:
        """Return the axis indices, (n, per_unit), of the units of the group that this slice covers."""
        local = np.asarray(units, dtype=np.int64) - self.first
        local = local[(local >= 0) & (local < self.count)]
        inner = (np.arange(self.repeats) * self.stride)[:, None] + np.arange(self.block)[None, :]
        return np.asarray(
            self.start + local[:, None] * self.step + inner.reshape(1, -1), dtype=np.int64
        )


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that must be removed together.

    Args:
        name: the module that makes the channels first in forward order; unique in the network.
        width: number of units when dense (c_g).
        slices: every place where the units sit.
        prunable: whether edgeecc may remove units.
        reason: why not, empty when prunable.
    """

    name: str
    width: int
    slices: Tuple[Slice, ...]
    prunable: bool = True
    reason: str = ""


@dataclass(frozen=True)
class WidthForm:
    """A channel count as an affine function of the widths: fixed + sum of multiplicity * width.

    Args:
        fixed: channels that no prunable group owns.
        terms: (group name, channels per unit) of each prunable group.
    """

    fixed: int
    terms: Tuple[Tuple[str, int], ...] = ()

    def at(self, widths: Widths) -> int:
        """Return the channel count for the given widths."""
        return self.fixed + sum(factor * int(widths[group]) for group, factor in self.terms)

    def with_fixed(self, widths: Widths) -> WidthForm:
        """Return the form in which the groups of `widths` have that width for good."""
        free = tuple((group, factor) for group, factor in self.terms if group not in widths)
        owned = sum(factor * widths[group] for group, factor in self.terms if group in widths)
        return WidthForm(self.fixed + owned, free)


@dataclass(frozen=True)
class LayerSpec:
    """One convolution, transposed convolution or linear layer.

    Sizes are (height, width) in elements, (1, 1) for a linear layer; `calls` counts how often forward runs
    it (shared modules), and sizes are those of the first call.

    Args:
        name: module name.
        kind: "conv", "depthwise", "grouped", "transposed" or "linear".
        input, output: channel counts as functions of the widths.
        padding: rows and columns added before the input (above, left); what is added behind follows from the sizes.
        groups: convolution groups when dense; a depthwise layer's groups follow its width.
        dense_macs: multiply-accumulates of all calls at dense width, batch 1.
        bias: whether it has a bias.
    """

    name: str
    kind: LayerKind
    input: WidthForm
    output: WidthForm
    kernel: Tuple[int, int]
    stride: Tuple[int, int]
    dilation: Tuple[int, int]
    padding: Tuple[int, int]
    groups: int
    in_size: Tuple[int, int]
    out_size: Tuple[int, int]
    calls: int
    dense_macs: int
    bias: bool

    def factors(self) -> Tuple[WidthForm, ...]:
        """Return the width forms whose product is proportional to this layer's MACs."""
        if self.kind == "depthwise":
            return (self.output,)
        return (self.input, self.output)


@dataclass(frozen=True)
class ParameterSpec:
    """A tensor of the state dict: its name, dense shape, and whether it is trained or a buffer."""

    name: str
    shape: Tuple[int, ...]
    trained: bool


@dataclass(frozen=True)
class NetworkSpec:
    """A traced network.

    Args:
        network: name of the network or the factory's reference.
        input_shapes: shape of every input, batch dimension included (batch 1).
        groups: channel groups in forward order, prunable or not.
        layers: layers in forward order.
        parameters: every tensor of the state dict.
    """

    network: str
    input_shapes: Tuple[Tuple[int, ...], ...]
    groups: Tuple[ChannelGroup, ...]
    layers: Tuple[LayerSpec, ...]
    parameters: Tuple[ParameterSpec, ...]

    def __post_init__(self) -> None:
        names = [group.name for group in self.groups]
        if len(set(names)) != len(names):
            raise GraphError(f"group names of {self.network} are not unique: {sorted(names)}")

    @property
    def prunable(self) -> Tuple[ChannelGroup, ...]:
        """Prunable groups in forward order: the order of every width vector."""
        return tuple(group for group in self.groups if group.prunable)

    def with_whole(self, reasons: Mapping[str, str]) -> NetworkSpec:
        """Return the spec in which the prunable groups of `reasons` stay whole, for these reasons."""
        groups = tuple(
            replace(group, prunable=False, reason=reasons[group.name])
            if group.prunable and group.name in reasons
            else group
            for group in self.groups
        )
        fixed = {group.name: group.width for group in self.prunable if group.name in reasons}
        layers = tuple(
            replace(
                layer,
                input=layer.input.with_fixed(fixed),
                output=layer.output.with_fixed(fixed),
            )
            for layer in self.layers
        )
        return replace(self, groups=groups, layers=layers)

    def dense_widths(self) -> Dict[str, int]:
        """Return the dense width of every prunable group."""
        return {group.name: group.width for group in self.prunable}

    def least_widths(self) -> Dict[str, int]:
        """Return width 1 for every prunable group."""
        return {group.name: 1 for group in self.prunable}

    def vector(self, widths: Widths) -> FloatArray:
        """Return the widths as a float64 vector in the order of `prunable`."""
        return np.array([widths[group.name] for group in self.prunable], dtype=np.float64)

    def widths(self, vector: Sequence[float] | FloatArray | IntArray) -> Dict[str, int]:
        """Return integer widths from a vector in the order of `prunable`, checked against the bounds.

        Raises: ConfigError for a wrong length or a width outside 1..c_g.
        """
        if len(vector) != len(self.prunable):
            raise ConfigError(
                f"{self.network} has {len(self.prunable)} prunable groups, got {len(vector)} widths"
            )
        out: Dict[str, int] = {}
        for group, value in zip(self.prunable, vector):
            width = int(value)
            if not 1 <= width <= group.width:
                raise ConfigError(
                    f"width {width} of group {group.name} is outside 1..{group.width}"
                )
            out[group.name] = width
        return out

    def keep_all(self) -> Dict[str, IntArray]:
        """Return the `Keep` of the dense network."""
        return {group.name: np.arange(group.width, dtype=np.int64) for group in self.prunable}

    def keep_first(self, widths: Widths) -> Dict[str, IntArray]:
        """Return the `Keep` of the first s_g units of each group, as used for calibration variants."""
        checked = self.widths(self.vector(widths))
        return {name: np.arange(width, dtype=np.int64) for name, width in checked.items()}

    def checked_keep(self, keep: Mapping[str, Sequence[int] | IntArray]) -> Dict[str, IntArray]:
        """Return a copy of `keep`, complete, sorted and within bounds.

        Raises: ConfigError when a group is missing, unknown, empty, repeated or out of range.
        """
        unknown = set(keep) - set(self.dense_widths())
        if unknown:
            raise ConfigError(f"{self.network} has no prunable group {sorted(unknown)[0]!r}")
        out: Dict[str, IntArray] = {}
        for group in self.prunable:
            if group.name not in keep:
                raise ConfigError(
                    f"no kept channels are given for group {group.name} of {self.network}"
                )
            units = np.unique(np.asarray(keep[group.name], dtype=np.int64))
            if len(units) != len(keep[group.name]) or not len(units):
                raise ConfigError(
                    f"kept channels of group {group.name} must be distinct and at least one"
                )
            if units[0] < 0 or units[-1] >= group.width:
                raise ConfigError(
                    f"kept channels of group {group.name} must lie in 0..{group.width - 1}"
                )
            out[group.name] = units
        return out

    def kept_indices(self, parameter: str, axis: int, size: int, keep: Keep) -> Optional[IntArray]:
        """Return the indices of `axis` that stay, or None when no group touches that axis."""
        gone = []
        touched = False
        for group in self.prunable:
            for piece in group.slices:
                if piece.parameter == parameter and piece.axis == axis:
                    touched = True
                    dropped = np.setdiff1d(np.arange(group.width), keep[group.name])
                    gone.append(piece.indices(dropped).reshape(-1))
        if not touched:
            return None
        return np.setdiff1d(np.arange(size, dtype=np.int64), np.concatenate(gone))

    def parameter_form(self, parameter: ParameterSpec) -> Tuple[WidthForm, ...]:
        """Return each axis of a parameter as a function of the widths."""
        return tuple(
            self._axis_form(parameter.name, axis, size) for axis, size in enumerate(parameter.shape)
        )

    def _axis_form(self, name: str, axis: int, size: int) -> WidthForm:
        factors: Dict[str, int] = {}
        for group in self.prunable:
            # A slice over part of a group removes per_unit indices only for the units that it covers, so the
            # form is exact when the slices of a group together cover it evenly; trace guarantees that.
            owned = sum(
                p.per_unit * p.count for p in group.slices if (p.parameter, p.axis) == (name, axis)
            )
            if owned:
                factors[group.name] = owned // group.width
        fixed = size - sum(factor * self.dense_widths()[group] for group, factor in factors.items())
        return WidthForm(fixed, tuple(factors.items()))

    def to_json(self) -> Dict[str, object]:
        """Return the spec as JSON-ready values; `spec_io.read_spec` reads them."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]  # tuples become lists

    def fingerprint(self) -> str:
        """Return a short hash of everything that a profile depends on: inputs, groups and layers, no weights."""
        shape = {
            "inputs": self.input_shapes,
            "groups": [(g.name, g.width) for g in self.prunable],
            "layers": [asdict(layer) for layer in self.layers],
        }
        return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]
