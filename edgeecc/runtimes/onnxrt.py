"""ONNX Runtime on the CPU: outputs to compare, and latency to measure."""

from __future__ import annotations

from typing import Any, List, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from edgeecc.errors import ArtifactError, RuntimeUnavailableError

Array = npt.NDArray[Any]

DEVICE = "onnxruntime:cpu"


class OnnxRuntime:
    """A session as a context manager.

    Args:
        model: the graph, static shapes.
        threads: worker threads of one operator; 1 gives the steadiest times.
    Raises: RuntimeUnavailableError when onnxruntime is not installed; ArtifactError when it refuses the graph, or
        when an input is not float32 with a fixed shape.
    """

    def __init__(self, model: onnx.ModelProto, threads: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise RuntimeUnavailableError(
                "onnxruntime is not here; pip install 'edgeecc[ort]'"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise _refused("the graph", error) from error
        self.name = f"{DEVICE} ({threads} thread{'s' if threads > 1 else ''})"
        self._names = [item.name for item in self._session.get_inputs()]
        generator = np.random.default_rng(0)
        self._feed = {
            item.name: generator.standard_normal(_fixed_shape(item)).astype(np.float32)
            for item in self._session.get_inputs()
        }

    def __enter__(self) -> OnnxRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        del self._session

    def run(self, count: int) -> None:
        """Run `count` inferences on a random input."""
        try:
            for _ in range(count):
                self._session.run(None, self._feed)
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
