"""ONNX Runtime: outputs to compare, and time and energy to measure, on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Sequence

import numpy as np
import onnx

from edgeecc.errors import ArtifactError, RuntimeUnavailableError
from edgeecc.runtimes.base import Array, random_input

DEVICE = "onnxruntime:cpu"
_CUDA = "CUDAExecutionProvider"


class OnnxRuntime:
    """A session as a context manager.

    Args:
        model: the graph, static shapes.
        threads: worker threads of one operator; 1 gives the steadiest times.
        on_gpu: runs it on the first NVIDIA GPU; what is run there while it is measured stays in its memory.
    Raises: RuntimeUnavailableError when onnxruntime, or the GPU that is asked for, is not here; ArtifactError when it
        refuses the graph, or when an input is not float32 with a fixed shape.
    """

    def __init__(self, model: onnx.ModelProto, threads: int = 1, *, on_gpu: bool = False) -> None:
        onnxruntime = check_gpu() if on_gpu else _imported()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=[_CUDA] if on_gpu else ["CPUExecutionProvider"]
            )  # fmt: skip
        except Exception as error:
            raise _refused("the graph", error) from error
        # It falls back to the CPU by itself where the GPU's libraries do not load.
        if on_gpu and _CUDA not in self._session.get_providers():
            raise RuntimeUnavailableError(
                "onnxruntime found no NVIDIA GPU that it can use; run edgeecc doctor, and see that its CUDA and cuDNN "
                "are the ones that onnxruntime-gpu was built for"
            )
        self.name = "onnxruntime:cuda"
        if not on_gpu:
            self.name = f"{DEVICE} ({threads} thread{'s' if threads > 1 else ''})"
        self._names = [item.name for item in self._session.get_inputs()]
        feed = {item.name: random_input(_fixed_shape(item)) for item in self._session.get_inputs()}
        self._run = self._bound(feed) if on_gpu else self._plain(feed)

    def __enter__(self) -> OnnxRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        del self._run, self._session

    def run(self, count: int) -> None:
        """Run `count` inferences on a random input, and return when the last has ended."""
        try:
            self._run(count)
        except Exception as error:
            raise _refused("to run the graph", error) from error

    def infer(self, inputs: Sequence[Array]) -> List[Array]:
        """Return the outputs for the given inputs, in the order of the graph's.

        Raises: ArtifactError when the inputs are not the graph's in number, shape or type.
        """
        try:
            outputs = self._session.run(None, dict(zip(self._names, inputs)))
        except Exception as error:
            raise _refused("these inputs", error) from error
        return [np.asarray(output) for output in outputs]

    def _plain(self, feed: Dict[str, Array]) -> Callable[[int], None]:
        session = self._session

        def run(count: int) -> None:
            for _ in range(count):
                session.run(None, feed)

        return run

    def _bound(self, feed: Dict[str, Array]) -> Callable[[int], None]:
        """Return what runs with inputs and outputs in the GPU's memory: copies are not the network's cost."""
        import onnxruntime

        session, binding = self._session, self._session.io_binding()
        held = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", 0)
            for name, value in feed.items()
        }
        for name, value in held.items():
            binding.bind_ortvalue_input(name, value)
        for item in session.get_outputs():
            binding.bind_output(item.name, "cuda")

        def run(count: int) -> None:
            for _ in range(count):
                session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return run


def check_gpu() -> Any:  # the module
    """Return onnxruntime where it was built for NVIDIA GPUs; whether there is one shows when a graph is loaded.

    Raises: RuntimeUnavailableError when it is not here, or runs on the CPU alone.
    """
    onnxruntime = _imported()
    if _CUDA not in onnxruntime.get_available_providers():
        raise RuntimeUnavailableError(
            "this onnxruntime runs on no NVIDIA GPU; pip uninstall onnxruntime, pip install onnxruntime-gpu"
        )
    return onnxruntime


def _imported() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeUnavailableError(
            "onnxruntime is not here; pip install 'edgeecc[ort]'"
        ) from error
    return onnxruntime


def _fixed_shape(item: Any) -> List[int]:  # onnxruntime.NodeArg is untyped
    if item.type != "tensor(float)" or not all(isinstance(size, int) for size in item.shape):
        raise ArtifactError(
            f"input {item.name} of the graph is {item.type} of shape {item.shape}; only float32 with fixed sizes "
            "can be run, export it so"
        )
    return list(item.shape)


def _refused(what: str, error: Exception) -> ArtifactError:
    detail = " ".join(str(error).split())[:200]
    return ArtifactError(f"ONNX Runtime refuses {what}: {detail}; export it again")
