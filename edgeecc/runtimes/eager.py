"""Torch's own kernels, node by node as PyTorch runs them: what the paper measured, and a GPU without TensorRT.

On an NVIDIA GPU the launches are recorded once as a CUDA graph and replayed, so that the host's pace is not measured.
Needs the host extra.
"""

from __future__ import annotations

from typing import Callable, Dict, List, Sequence, Tuple

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from edgeecc.errors import ArtifactError, GraphError, RuntimeUnavailableError, brief
from edgeecc.runtimes.base import Array, random_input
from edgeecc.runtimes.eager_ops import OPERATORS, Operator

#: Runs before a CUDA graph is recorded: kernels are chosen and memory is laid out in them.
_WARMUP = 3
#: Operators whose further inputs only say how; a GPU would have to be waited for to know them.
_SAID = ("Pad", "Resize")
#: Operators of which more than the first output is made.
_SEVERAL = ("Split",)
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


class EagerRuntime:
    """An ONNX graph by torch; a context manager.

    Args:
        model: the graph, float32, static shapes.
        on_gpu: runs it on the first NVIDIA GPU.
        precision: "fp32" or "fp16", of weights and maps; inputs and outputs stay float32.
    Raises: GraphError for a node that torch does not run here; ArtifactError when the graph is damaged or refused;
        RuntimeUnavailableError when the GPU that is asked for is not here.
    """

    def __init__(
        self, model: onnx.ModelProto, *, on_gpu: bool = False, precision: str = "fp32"
    ) -> None:
        if on_gpu:
            gpu_name()
        self._device = torch.device("cuda" if on_gpu else "cpu")
        self._dtype = _DTYPES[precision]
        self._steps, self._constants = _steps(model), self._moved(model)
        self._inputs = [item.name for item in model.graph.input if item.name not in self._constants]
        self._outputs = [item.name for item in model.graph.output]
        self._shapes = {item.name: _fixed_shape(item) for item in model.graph.input}
        self.name = (
            f"torch {torch.__version__} {'CUDA graph' if on_gpu else 'on the CPU'} {precision}"
        )
        feed = [torch.from_numpy(random_input(self._shapes[name])) for name in self._inputs]
        held = [value.to(self._device) for value in feed]
        self._run = self._recorded(held) if on_gpu else lambda: self._forward(held)

    def __enter__(self) -> EagerRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        del self._run, self._constants
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def run(self, count: int) -> None:
        """Run `count` inferences of one input back to back, and return when the last has ended."""
        for _ in range(count):
            self._run()
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def infer(self, inputs: Sequence[Array]) -> List[Array]:
        """Return the outputs for the given inputs, in the order of the graph's.

        Raises: ArtifactError when the inputs are not the graph's in number, shape or type.
        """
        wanted = [(tuple(self._shapes[name]), "float32") for name in self._inputs]
        if [(value.shape, str(value.dtype)) for value in inputs] != wanted:
            found = [f"{value.dtype} {list(value.shape)}" for value in inputs]
            asked = [f"{kind} {list(size)}" for size, kind in wanted]
            raise ArtifactError(
                f"torch refuses these inputs, {found}: the graph's are {asked}; export it again"
            )
        held = [torch.from_numpy(value).to(self._device) for value in inputs]
        return [value.float().cpu().numpy() for value in self._forward(held)]

    @torch.inference_mode()
    def _forward(self, inputs: Sequence[torch.Tensor]) -> List[torch.Tensor]:
        values = dict(self._constants)
        values.update((name, value.to(self._dtype)) for name, value in zip(self._inputs, inputs))
        for step in self._steps:
            try:
                step(values)
            except (RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
                raise ArtifactError(
                    f"torch refuses node {step.name}: {brief(error)}; export the network again"
                ) from error
        return [values[name] for name in self._outputs]

    def _moved(self, model: onnx.ModelProto) -> Dict[str, torch.Tensor]:
        """Return the graph's constants on the device; those that only say how, such as shapes, stay with the host."""
        found: Dict[str, torch.Tensor] = {}
        host = {
            name for node in model.graph.node if node.op_type in _SAID for name in node.input[1:]
        }
        for name, array in _constants(model):
            tensor = torch.from_numpy(array.copy())
            if tensor.is_floating_point() and name not in host:
                tensor = tensor.to(self._device, self._dtype)
            found[name] = tensor
        return found

    def _recorded(self, inputs: Sequence[torch.Tensor]) -> Callable[[], object]:
        """Return what replays the launches of one inference."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARMUP):
                self._forward(inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._held = self._forward(inputs)
        return graph.replay


def gpu_name() -> str:
    """Return what torch calls the first NVIDIA GPU.

    Raises: RuntimeUnavailableError when it finds none.
    """
    if not torch.cuda.is_available():
        raise RuntimeUnavailableError(
            "torch finds no NVIDIA GPU; see that its build is for CUDA and that nvidia-smi lists the GPU"
        )
    return torch.cuda.get_device_name()


class _Step:
    """One node: from named values to its outputs."""

    def __init__(self, node: onnx.NodeProto, operator: Operator) -> None:
        self.name = node.name or node.output[0]
        self._operator, self._inputs, self._outputs = operator, list(node.input), list(node.output)
        self._attributes = {
            one.name: onnx.helper.get_attribute_value(one) for one in node.attribute
        }

    def __call__(self, values: Dict[str, torch.Tensor]) -> None:
        inputs = [values[name] if name else None for name in self._inputs]
        made = self._operator(self._attributes, inputs)
        values.update(zip(self._outputs, made if isinstance(made, tuple) else (made,)))


def _steps(model: onnx.ModelProto) -> List[_Step]:
    steps = []
    for node in model.graph.node:
        if node.op_type == "Constant":
            continue
        operator = OPERATORS.get(node.op_type)
        if operator is None or (any(node.output[1:]) and node.op_type not in _SEVERAL):
            raise GraphError(
                f"node {node.name or node.output[0]} ({node.op_type}) is not run by torch here; take another runtime"
            )
        steps.append(_Step(node, operator))
    return steps


def _constants(model: onnx.ModelProto) -> List[Tuple[str, Array]]:
    found = [(tensor.name, numpy_helper.to_array(tensor)) for tensor in model.graph.initializer]
    for node in model.graph.node:
        if node.op_type == "Constant":
            value = onnx.helper.get_attribute_value(node.attribute[0])
            is_tensor = isinstance(value, onnx.TensorProto)
            found.append(
                (node.output[0], numpy_helper.to_array(value) if is_tensor else _plain(value))
            )
    return found


def _plain(value: object) -> Array:
    """Return a constant that is written as numbers."""
    array = np.asarray(value)
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)


def _fixed_shape(item: onnx.ValueInfoProto) -> List[int]:
    kind = item.type.tensor_type
    sizes = [dim.dim_value for dim in kind.shape.dim]
    if kind.elem_type != onnx.TensorProto.FLOAT or not all(sizes):
        raise ArtifactError(
            f"input {item.name} of the graph is not float32 with fixed sizes, which alone can be run; export it so"
        )
    return sizes
