"""Torch's own kernels, node by node as PyTorch runs them: what the paper measured, and a GPU without TensorRT.

On an NVIDIA GPU the launches are recorded once as a CUDA graph and replayed, so that the host's pace is not measured.
Needs the host extra.
"""

from __future__ import annotations

from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from edgeecc.errors import ArtifactError, GraphError, RuntimeUnavailableError, brief
from edgeecc.runtimes.base import Array
from edgeecc.runtimes.eager_ops import OPERATORS, Operator
from edgeecc.runtimes.tensors import TensorSpec, check_inputs, graph_inputs
from edgeecc.timing import DeviceTimes

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
        self._inputs = _float_inputs(model)
        self._outputs = [item.name for item in model.graph.output]
        self.name = (
            f"torch {torch.__version__} {'CUDA graph' if on_gpu else 'on the CPU'} {precision}"
        )
        feed = [torch.from_numpy(spec.standing()) for spec in self._inputs]
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

    def device_times(self, count: int) -> Optional[DeviceTimes]:
        """Return how long `count` inferences take, by CUDA events around each; None on the CPU, which has no clock."""
        if self._device.type != "cuda":
            return None
        pairs = []
        for _ in range(count):
            first, last = _event(), _event()
            first.record()
            self._run()
            last.record()
            pairs.append((first, last))
        torch.cuda.synchronize()
        seconds = [1e-3 * float(first.elapsed_time(last)) for first, last in pairs]
        return DeviceTimes.of(seconds, "CUDA events")

    def infer(self, inputs: Sequence[Array]) -> List[Array]:
        """Return the outputs for the given inputs, in the order of the graph's.

        Raises: ArtifactError when the inputs are not the graph's in number, shape or type.
        """
        check_inputs(self._inputs, inputs)
        held = [torch.from_numpy(value).to(self._device) for value in inputs]
        return [value.float().cpu().numpy() for value in self._forward(held)]

    @torch.inference_mode()
    def _forward(self, inputs: Sequence[torch.Tensor]) -> List[torch.Tensor]:
        values = dict(self._constants)
        for spec, value in zip(self._inputs, inputs):
            values[spec.name] = value.to(self._dtype)
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


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


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


def _float_inputs(model: onnx.ModelProto) -> List[TensorSpec]:
    specs = graph_inputs(model)
    for spec in specs:
        if spec.dtype != np.float32:
            raise ArtifactError(
                f"input {spec} of the graph is not float32, which alone can be run; export it so"
            )
    return specs
