"""Energy of an inference on a systolic array, from the zeros in its weights and inputs.

Source: the model of weighted sparse projection and layer input masking (ICLR 2019) and of its published code,
after energy-aware pruning (CVPR 2017). One image; batch norm, pooling and activations are free. Every zero
weight and every masked input saves its accesses.

*Exact* counts the multiplications of two nonzero numbers. *Relaxed* charges each nonzero weight for every
output position, padding and masked inputs included: an upper bound, in which a weight costs the same
wherever the mask lies. Budgets are shares of the dense network's relaxed energy.

Ours, where the source is silent: transposed convolutions (each input position meets the whole kernel; T
counts input positions), layers that run over several positions (a linear layer on tokens is a 1x1
convolution), layers that run more than once, and windows that do not fit the input cache (each is then read
anew, row by row).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Tuple

import numpy as np
import numpy.typing as npt

from edgeecc.cost.hardware import Hardware
from edgeecc.cost.refetch import Rows, read_again, read_again_masked
from edgeecc.errors import ConfigError
from edgeecc.graph.spec import LayerSpec, NetworkSpec
from edgeecc.pattern import Pattern

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """A layer at dense width, as the array sees it.

    Args:
        name: of the layer.
        matrix: whether its weight is a matrix: a linear layer.
        transposed: whether it is a transposed convolution.
        channels: (input, output).
        kernel, stride, dilation, padding: (height, width).
        groups: convolution groups.
        in_size, out_size: (height, width).
        calls: how often an inference runs it.
        axes: spatial axes of the weight and the input: 1 leaves the height, which is 1, out of their shapes.
    """

    name: str
    matrix: bool
    transposed: bool
    channels: Tuple[int, int]
    kernel: Tuple[int, int]
    stride: Tuple[int, int]
    dilation: Tuple[int, int]
    padding: Tuple[int, int]
    groups: int
    in_size: Tuple[int, int]
    out_size: Tuple[int, int]
    calls: int
    axes: int = 2

    @property
    def weights(self) -> int:
        """Return the number of weights."""
        return math.prod(self.channels) // self.groups * math.prod(self.kernel)

    @property
    def linear(self) -> bool:
        """Return whether the published formula for fully connected layers applies: a matrix used once."""
        return self.matrix and self.uses == 1

    @property
    def weight_shape(self) -> Tuple[int, ...]:
        """Return the shape of the weight tensor in torch's layout."""
        inputs, outputs = self.channels
        if self.matrix:
            return (outputs, inputs)
        kernel = self.kernel[2 - self.axes :]
        if self.transposed:
            return (inputs, outputs // self.groups, *kernel)
        return (outputs, inputs // self.groups, *kernel)

    @property
    def input_shape(self) -> Tuple[int, ...]:
        """Return the shape of the input without batch: channels, then the spatial axes."""
        return (self.channels[0], *self.in_size[2 - self.axes :])

    @property
    def uses(self) -> int:
        """Return how often one weight is multiplied in a call: output positions, input ones when transposed."""
        return math.prod(self.in_size if self.transposed else self.out_size)

    def can_have(self, pattern: Pattern) -> bool:
        """Return whether an N:M pattern applies to the layer."""
        return pattern.applies(self.weight_shape, groups=self.groups, transposed=self.transposed)


@dataclass(frozen=True)
class LayerEnergy:
    """Energy of a layer, in accesses of a register file.

    Args:
        name: of the layer.
        input_memory, input_cache, input_register: moving inputs, and outputs back to memory.
        weight_memory, weight_cache, weight_register: moving weights.
        mac: multiplying.
    """

    name: str
    input_memory: float
    input_cache: float
    input_register: float
    weight_memory: float
    weight_cache: float
    weight_register: float
    mac: float

    @property
    def inputs(self) -> float:
        """Return the energy of inputs: what is left when every weight is zero."""
        return self.input_memory + self.input_cache + self.input_register

    @property
    def weights(self) -> float:
        """Return the energy of moving weights."""
        return self.weight_memory + self.weight_cache + self.weight_register

    @property
    def total(self) -> float:
        """Return the sum over all levels."""
        return self.inputs + self.weights + self.mac

    def levels(self) -> Dict[str, float]:
        """Return energy by level: memory, cache, register, mac."""
        return {
            "memory": self.input_memory + self.weight_memory,
            "cache": self.input_cache + self.weight_cache,
            "register": self.input_register + self.weight_register,
            "mac": self.mac,
        }


def shapes_of(spec: NetworkSpec) -> Tuple[Shape, ...]:
    """Return the layers of a network at dense width, in forward order."""
    widths = spec.dense_widths()
    ranks = {parameter.name: len(parameter.shape) for parameter in spec.parameters}
    return tuple(
        _shape(
            layer,
            (layer.input.at(widths), layer.output.at(widths)),
            axes=1 if ranks.get(f"{layer.name}.weight") == 3 else 2,
        )
        for layer in spec.layers
    )


def layer_energy(
    shape: Shape,
    hardware: Hardware,
    *,
    weights: Optional[BoolArray] = None,
    mask: Optional[BoolArray] = None,
    exact: bool = True,
) -> LayerEnergy:  # fmt: skip
    """Return the energy of a layer.

    Args:
        shape: of the layer.
        hardware: constants.
        weights: where weights are not zero, of `shape.weight_shape`; None for all.
        mask: where inputs are not masked, of `shape.input_shape`; None for all.
        exact: see the module.
    Raises: ConfigError when a pattern has another shape.
    """
    nonzero = shape.weights if weights is None else int(np.count_nonzero(weights))
    if weights is not None and weights.shape != shape.weight_shape:
        raise ConfigError(
            f"weights of {shape.name} are {weights.shape}, expected {shape.weight_shape}"
        )
    if mask is not None and mask.shape != shape.input_shape:
        raise ConfigError(f"the mask of {shape.name} is {mask.shape}, expected {shape.input_shape}")
    if weights is not None and not shape.matrix:
        weights = weights.reshape(*weights.shape[:2], *shape.kernel)
    if mask is not None:
        mask = mask.reshape(shape.channels[0], *shape.in_size)
    moved_in = (
        _linear_inputs(shape, hardware, mask)
        if shape.linear
        else _conv_inputs(shape, hardware, mask)
    )
    moved_weights = _weight_levels(shape, hardware, nonzero)
    products = _products(shape, weights, mask) if exact else shape.uses * nonzero
    calls = shape.calls
    multiplied = hardware.mac * products
    return LayerEnergy(
        shape.name, *(calls * value for value in (*moved_in, *moved_weights, multiplied))
    )


def network_energy(
    shapes: Tuple[Shape, ...],
    hardware: Hardware,
    *,
    weights: Optional[Mapping[str, BoolArray]] = None,
    masks: Optional[Mapping[str, BoolArray]] = None,
    exact: bool = True,
) -> List[LayerEnergy]:  # fmt: skip
    """Return the energy of every layer; patterns by layer name, absent ones dense."""
    return [
        layer_energy(
            shape, hardware, weights=(weights or {}).get(shape.name), mask=(masks or {}).get(shape.name), exact=exact
        )
        for shape in shapes
    ]  # fmt: skip


def _shape(layer: LayerSpec, channels: Tuple[int, int], axes: int) -> Shape:
    return Shape(
        name=layer.name,
        matrix=layer.kind == "linear",
        transposed=layer.kind == "transposed",
        channels=channels,
        kernel=layer.kernel,
        stride=layer.stride,
        dilation=layer.dilation,
        padding=layer.padding,
        groups=layer.groups,
        in_size=layer.in_size,
        out_size=layer.out_size,
        calls=layer.calls,
        axes=axes,
    )


def _linear_inputs(
    shape: Shape, hardware: Hardware, mask: Optional[BoolArray]
) -> Tuple[float, float, float]:
    inputs, outputs = shape.channels
    nonzero = inputs if mask is None else int(np.count_nonzero(mask))
    rounds = math.ceil(outputs / hardware.columns)
    overflow = max(0, nonzero - hardware.input_words)
    read = min(nonzero, hardware.input_words) + rounds * overflow
    return (
        hardware.memory * (read + outputs),
        hardware.cache * rounds * nonzero,
        hardware.register * outputs * nonzero,
    )


def _conv_inputs(
    shape: Shape, hardware: Hardware, mask: Optional[BoolArray]
) -> Tuple[float, float, float]:
    per_group = math.ceil(shape.channels[1] / shape.groups)
    unfolded = _unfolded(shape, mask)
    nonzero = (
        shape.channels[0] * math.prod(shape.in_size)
        if mask is None
        else int(np.count_nonzero(mask))
    )
    read_twice = _read_again(shape, hardware, mask)
    written = math.prod(shape.out_size) * shape.channels[1]
    return (
        hardware.memory * (nonzero + read_twice + written),
        hardware.cache * unfolded * math.ceil(per_group / hardware.columns),
        hardware.register * unfolded * per_group,
    )


def _weight_levels(shape: Shape, hardware: Hardware, nonzero: int) -> Tuple[float, float, float]:
    """Return the energy of weights: those beyond the cache are fetched for every round of output positions."""
    if shape.linear:
        return hardware.memory * nonzero, hardware.cache * nonzero, hardware.register * nonzero
    rounds = rounds_of(shape, hardware)
    overflow = max(0, nonzero - hardware.weight_words)
    return (
        hardware.memory * (min(hardware.weight_words, nonzero) + rounds * overflow),
        hardware.cache * rounds * nonzero,
        hardware.register * shape.uses * nonzero,
    )


def weight_cost(shape: Shape, hardware: Hardware) -> Tuple[float, float]:
    """Return the relaxed energy of one more nonzero weight: while the cache has room, and beyond it."""
    if shape.linear:
        alike = hardware.memory + hardware.cache + hardware.register + hardware.mac
        return shape.calls * alike, shape.calls * alike
    rounds = rounds_of(shape, hardware)
    inside = (
        hardware.memory + rounds * hardware.cache + shape.uses * (hardware.register + hardware.mac)
    )
    return shape.calls * inside, shape.calls * (inside + (rounds - 1) * hardware.memory)


def place_cost(shape: Shape, hardware: Hardware) -> FloatArray:
    """Return what one unmasked place of a convolution's input costs, of `shape.input_shape`.

    What is read into the cache again is charged to all places alike; the multiplications are charged to weights.
    """
    per_group = math.ceil(shape.channels[1] / shape.groups)
    reached = np.outer(_reached(shape, 0).sum(0), _reached(shape, 1).sum(0))
    used = hardware.cache * math.ceil(per_group / hardware.columns) + hardware.register * per_group
    again = _read_again(shape, hardware, None) / (shape.channels[0] * math.prod(shape.in_size))
    cost = shape.calls * (hardware.memory * (1.0 + again) + used * reached)
    return np.broadcast_to(cost, (shape.channels[0], *shape.in_size)).reshape(shape.input_shape)


def rounds_of(shape: Shape, hardware: Hardware) -> int:
    """Return T, how often the array is filled with positions."""
    return math.ceil(shape.uses / hardware.rows)


def coverage(shape: Shape, axis: int) -> BoolArray:
    """Return, along one spatial axis, which input index each kernel place meets, (kernel, input, output).

    Entry (k, i, o) tells that place k multiplies input i into output o. Padding meets nothing.
    """
    size, made = shape.in_size[axis], shape.out_size[axis]
    place = (
        np.arange(shape.kernel[axis])[:, None, None] * shape.dilation[axis] - shape.padding[axis]
    )
    i, o = np.arange(size)[None, :, None], np.arange(made)[None, None, :]
    if shape.transposed:
        return np.asarray(i * shape.stride[axis] + place == o)
    return np.asarray(o * shape.stride[axis] + place == i)


def _reached(shape: Shape, axis: int) -> IntArray:
    """Return how many (kernel place, output) pairs each place meets at each input, (kernel, input)."""
    return np.asarray(coverage(shape, axis).sum(2), dtype=np.int64)


def _unfolded(shape: Shape, mask: Optional[BoolArray]) -> int:
    """Return the nonzero entries of the unfolded input (im2col), in which padding is zero."""
    rows, columns = _reached(shape, 0).sum(0), _reached(shape, 1).sum(0)
    if mask is None:
        return int(shape.channels[0] * rows.sum() * columns.sum())
    return int(rows @ mask.sum(0, dtype=np.int64) @ columns)


def _products(shape: Shape, weights: Optional[BoolArray], mask: Optional[BoolArray]) -> int:
    """Return the multiplications in which neither the weight nor the input is zero."""
    if shape.linear:
        if mask is None:
            return shape.weights if weights is None else int(np.count_nonzero(weights))
        alive = mask.reshape(-1).astype(np.int64)
        return int(alive.sum() * shape.channels[1] if weights is None else weights.sum(0) @ alive)
    rows, columns = _reached(shape, 0), _reached(shape, 1)
    if mask is None:
        met = np.broadcast_to(
            np.outer(rows.sum(1), columns.sum(1)), (shape.channels[0], *shape.kernel)
        )
    else:
        met = np.einsum("ki,cij,lj->ckl", rows, mask.astype(np.int64), columns, optimize=True)
    return int((_per_input(shape, weights) * met).sum())


def _per_input(shape: Shape, weights: Optional[BoolArray]) -> IntArray:
    """Return the nonzero weights that read each input channel at each kernel place, (channels, kernel)."""
    inputs, outputs = shape.channels
    groups = shape.groups
    if weights is None:
        return np.full((inputs, *shape.kernel), outputs // groups, dtype=np.int64)
    if shape.transposed:
        return np.asarray(weights.sum(1), dtype=np.int64)
    grouped = weights.reshape(groups, outputs // groups, inputs // groups, *shape.kernel)
    return np.asarray(grouped.sum(1), dtype=np.int64).reshape(inputs, *shape.kernel)


def _read_again(shape: Shape, hardware: Hardware, mask: Optional[BoolArray]) -> int:
    height = shape.in_size[0]
    full = np.full(height, shape.channels[0] * shape.in_size[1], dtype=np.int64)
    window = (shape.kernel[0] - 1) * shape.dilation[0] + 1
    if shape.transposed:  # the input rows under one output row
        dense = Rows(full, 0, math.ceil(window / shape.stride[0]), 1, height)
    else:
        dense = Rows(full, shape.padding[0], window, shape.stride[0], shape.out_size[0])
    if mask is None:
        return read_again(dense, hardware.input_words)
    nonzeros = np.asarray(mask.sum((0, 2)), dtype=np.int64)
    return read_again_masked(dense, nonzeros, hardware.input_words)
