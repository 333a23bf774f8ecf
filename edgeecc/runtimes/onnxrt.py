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
    Raises: RuntimeUnavailableError when onnxruntime is not installed; ArtifactError when it refuses the graph.
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
            detail = " ".join(str(error).split())[:200]
            raise ArtifactError(
                f"ONNX Runtime refuses the graph: {detail}; export it again"
            ) from error
        self.name = f"{DEVICE} ({threads} thread{'s' if threads > 1 else ''})"
        self._names = [item.name for item in self._session.get_inputs()]
        generator = np.random.default_rng(0)
        shapes = [item.shape for item in self._session.get_inputs()]
        self._feed = {
            name: generator.standard_normal(shape).astype(np.float32)
            for name, shape in zip(self._names, shapes)
        }

    def __enter__(self) -> OnnxRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        del self._session

    def run(self, count: int) -> None:
        """Run `count` inferences on a random input."""
        for _ in range(count):
            self._session.run(None, self._feed)

    def infer(self, inputs: Sequence[Array]) -> List[Array]:
        """Return the outputs for the given inputs."""
        outputs = self._session.run(None, dict(zip(self._names, inputs)))
        return [np.asarray(output) for output in outputs]
