"""The tensors that go into a network and come out of it, and whether arrays fit them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, List, Sequence, Tuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from edgeecc.errors import ArtifactError
from edgeecc.runtimes.base import Array, random_input


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    Args:
        name: as the graph calls it.
        shape: fixed sizes.
        dtype: of its elements.
    """

    name: str
    shape: Tuple[int, ...]
    dtype: npt.DTypeLike

    @property
    def nbytes(self) -> int:
        """Bytes of all its elements."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def empty(self) -> Array:
        """Return an array for it."""
        return np.empty(self.shape, self.dtype)

    def standing(self) -> Array:
        """Return what it holds while a runtime is measured: random numbers, zeros where it holds no floats."""
        if np.issubdtype(np.dtype(self.dtype), np.floating):
            return random_input(self.shape).astype(self.dtype)
        return np.zeros(self.shape, self.dtype)

    def __str__(self) -> str:
        return f"{self.name} {np.dtype(self.dtype)}{list(self.shape)}"


def parse_graph(data: bytes) -> onnx.ModelProto:
    """Return the graph that the bytes of an ONNX file hold.

    Raises: ArtifactError when they hold none.
    """
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own kind
        raise ArtifactError(
            f"{len(data)} bytes hold no ONNX graph: {' '.join(str(error).split())[:120]}; export it again"
        ) from error
    if not model.graph.node:
        raise ArtifactError(
            f"{len(data)} bytes hold an ONNX graph without nodes; export the network again"
        )
    return model


def graph_inputs(model: onnx.ModelProto) -> List[TensorSpec]:
    """Return the inputs of a graph, without the constants that old files list among them.

    Raises: ArtifactError when a size is not fixed.
    """
    constants = {item.name for item in model.graph.initializer}
    return [_spec(item) for item in model.graph.input if item.name not in constants]


def graph_outputs(model: onnx.ModelProto) -> List[TensorSpec]:
    """Return the outputs of a graph.

    Raises: ArtifactError when a size is not fixed.
    """
    return [_spec(item) for item in model.graph.output]


def check_inputs(specs: Sequence[TensorSpec], inputs: Sequence[Array]) -> None:
    """Check arrays against the inputs of a graph.

    Raises: ArtifactError when they differ in number, shape or type.
    """
    if len(inputs) != len(specs):
        raise ArtifactError(
            f"{len(inputs)} inputs given, the graph takes {len(specs)}: {', '.join(map(str, specs))}"
        )
    for spec, value in zip(specs, inputs):
        if tuple(value.shape) != spec.shape or value.dtype != np.dtype(spec.dtype):
            raise ArtifactError(
                f"input {spec.name} is given as {value.dtype}{list(value.shape)}, the graph takes {spec}; convert it"
            )


def in_order(found: Sequence[TensorSpec], wanted: Sequence[TensorSpec]) -> List[TensorSpec]:
    """Return the tensors of an engine in the order of the graph's.

    Raises: ArtifactError when they differ from the graph's in name or shape.
    """
    known = {spec.name: spec for spec in found}
    if {(spec.name, spec.shape) for spec in found} != {(spec.name, spec.shape) for spec in wanted}:
        raise ArtifactError(
            f"the engine has {', '.join(map(str, found))}, the graph {', '.join(map(str, wanted))}; it was built of "
            "another graph, build it again"
        )
    return [known[spec.name] for spec in wanted]


def _spec(item: Any) -> TensorSpec:
    kind = item.type.tensor_type
    sizes = [size.dim_value for size in kind.shape.dim]
    if not kind.HasField("shape") or any(size < 1 for size in sizes):
        raise ArtifactError(
            f"tensor {item.name} of the graph has shape {sizes}, 0 where it is not fixed; export with fixed sizes"
        )
    try:
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"tensor {item.name} of the graph is of data type {kind.elem_type}, which is not known; export it again"
        ) from error
    return TensorSpec(item.name, tuple(sizes), dtype)
