"""TensorRT of any release from 8.2 to 11, and TensorRT for RTX, told apart by what they offer, not by their number.

| offered                                   | 8.2 | 8.5, 8.6 | 10  | 11  | RTX |
|-------------------------------------------|-----|----------|-----|-----|-----|
| NetworkDefinitionCreationFlag.EXPLICIT_BATCH | yes | yes   | yes | no  | no  |
| config.max_workspace_size                 | yes | yes      | no  | no  | no  |
| config.set_memory_pool_limit              | no  | yes      | yes | yes | yes |
| config.builder_optimization_level         | no  | 8.6      | yes | yes | yes |
| BuilderFlag.FP16, INT8, the calibrators   | yes | yes      | yes | no  | no  |
| binding indices, execute_async_v2         | yes | yes      | no  | no  | no  |
| named tensors, execute_async_v3           | no  | yes      | yes | yes | yes |
| tactics that are timed while it builds    | yes | yes      | yes | yes | no  |
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections import deque
from types import ModuleType
from typing import Any, Callable, Deque, Dict, List, Optional, Sequence, Tuple

import numpy as np

from edgeecc.errors import ArtifactError, RuntimeUnavailableError, brief
from edgeecc.runtimes.sparse_kernels import MARK, SparseKernels, sparse_kernels
from edgeecc.runtimes.tensors import TensorSpec

#: Packages with TensorRT's bindings, in the order they are tried.
PACKAGES = ("tensorrt", "tensorrt_rtx")
#: Errors of TensorRT that are kept to be told.
_KEPT_ERRORS = 8
#: Messages about sparse kernels that are kept: two a build are known.
_KEPT_ON_SPARSITY = 16
#: TensorRT's names of element types; its own table of them fails beside a numpy from 1.24 on, up to release 8.5.
_DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
    "UINT8": np.uint8,
}

_log = logging.getLogger(__name__)


class Messages:
    """What TensorRT says: errors, and what it tells of sparse kernels, are kept, the rest goes to the log.

    Nothing reaches stdout.
    """

    def __init__(self) -> None:
        self._errors: Deque[str] = deque(maxlen=_KEPT_ERRORS)
        self._on_sparsity: Deque[str] = deque(maxlen=_KEPT_ON_SPARSITY)

    def add(self, severity: str, text: str) -> None:
        """Take a message; `severity` is TensorRT's name for it."""
        if severity in ("INTERNAL_ERROR", "ERROR"):
            self._errors.append(" ".join(text.split()))
        if MARK in text:
            self._on_sparsity.append(text)
        _log.debug("TensorRT %s: %s", severity.lower(), text)

    def clear(self) -> None:
        """Forget what was kept so far."""
        self._errors.clear()
        self._on_sparsity.clear()

    def sparse_kernels(self) -> Optional[SparseKernels]:
        """Return what was told of sparse kernels."""
        return sparse_kernels("\n".join(self._on_sparsity))

    def errors(self) -> str:
        """Return the first and the last error in one line: the cause, and what came of it."""
        if not self._errors:
            return "it gives no reason"
        both = dict.fromkeys((self._errors[0], self._errors[-1]))
        return "; ".join(text[:200] for text in both)


class TensorRT:
    """One installed TensorRT.

    Args:
        module: its bindings.
    """

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.name = f"{module.__name__} {getattr(module, '__version__', 'of unknown version')}"
        self.messages, self.logger = _logger_of(module)

    @property
    def weakly_typed(self) -> bool:
        """Whether flags choose the precision; otherwise the graph's own types do."""
        flags = self.module.BuilderFlag
        return hasattr(flags, "FP16") and hasattr(flags, "INT8")

    @property
    def calibrates(self) -> bool:
        """Whether it finds the ranges for int8 by itself, from samples."""
        return self.weakly_typed and hasattr(self.module, "IInt8EntropyCalibrator2")

    @property
    def times_tactics(self) -> bool:
        """Whether building times kernels, so that a cache of timings saves time; RTX compiles them when it runs."""
        return not hasattr(getattr(self.module, "IRuntimeConfig", None), "create_runtime_cache")

    def network_flags(self) -> int:
        """Return the flags for a network whose batch size is in its shapes."""
        flag = getattr(self.module.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
        return 0 if flag is None else 1 << int(flag)

    def deserialize(self, engine: bytes) -> Any:  # TensorRT's ICudaEngine, untyped
        """Return the engine that bytes hold, or None when they are damaged or of another device or release.

        Raises: RuntimeUnavailableError when there is no GPU to hold it.
        """
        self.messages.clear()
        try:
            runtime = self.module.Runtime(self.logger)
        except (RuntimeError, TypeError) as error:
            raise self.without_gpu() from error
        return runtime.deserialize_cuda_engine(engine)

    def without_gpu(self) -> RuntimeUnavailableError:
        """Return the error of a TensorRT that starts neither builder nor runtime."""
        return RuntimeUnavailableError(
            f"{self.name} cannot start: {self.messages.errors()}; it needs an NVIDIA GPU with its driver; in a "
            "container use --runtime nvidia"
        )


def load_tensorrt() -> TensorRT:
    """Import TensorRT's bindings.

    Raises: RuntimeUnavailableError when there are none, or their libraries are not there.
    """
    seen = []
    for package in PACKAGES:
        try:
            module = importlib.import_module(package)
        except ModuleNotFoundError:
            continue
        except Exception as error:  # a shared library that does not load, in several kinds
            seen.append(f"{package}: {brief(error, 120)}")
            continue
        return TensorRT(module)
    reason = f" ({'; '.join(seen)})" if seen else ""
    raise RuntimeUnavailableError(
        f"TensorRT's Python bindings cannot be imported{reason}; on a Jetson they come with JetPack for the system's "
        "Python, on a PC pip install tensorrt or tensorrt-rtx"
    )


def io_tensors(trt: TensorRT, engine: Any) -> Tuple[List[TensorSpec], List[TensorSpec]]:
    """Return the inputs and the outputs of an engine.

    Raises: ArtifactError when a size is not fixed or an element type is not known.
    """
    inputs: List[TensorSpec] = []
    outputs: List[TensorSpec] = []
    if hasattr(engine, "num_io_tensors"):
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            goes_in = engine.get_tensor_mode(name) == trt.module.TensorIOMode.INPUT
            kind, shape = engine.get_tensor_dtype(name), engine.get_tensor_shape(name)
            (inputs if goes_in else outputs).append(_spec(name, shape, kind))
    else:
        for index in range(engine.num_bindings):
            kind, shape = engine.get_binding_dtype(index), engine.get_binding_shape(index)
            spec = _spec(engine.get_binding_name(index), shape, kind)
            (inputs if engine.binding_is_input(index) else outputs).append(spec)
    return inputs, outputs


def bind(engine: Any, context: Any, addresses: Dict[str, int], stream: int) -> Callable[[], bool]:
    """Give a context the addresses of its tensors; return what puts one inference into the stream.

    That returns False when TensorRT refuses, and its messages say why.
    """
    if hasattr(context, "execute_async_v3"):
        for name, address in addresses.items():
            context.set_tensor_address(name, address)
        return lambda: bool(context.execute_async_v3(stream))
    bindings = [addresses[engine.get_binding_name(index)] for index in range(engine.num_bindings)]
    return lambda: bool(context.execute_async_v2(bindings, stream))


def _spec(name: str, shape: Sequence[int], kind: object) -> TensorSpec:
    dtype = _DTYPES.get(str(kind).rpartition(".")[2])
    if dtype is None or any(size < 1 for size in shape):
        raise ArtifactError(
            f"tensor {name} of the engine is {kind}{list(shape)}; only fixed sizes and numpy's types can be run, "
            "export the graph so"
        )
    return TensorSpec(name, tuple(shape), dtype)


@functools.lru_cache(maxsize=None)
def _logger_of(module: ModuleType) -> Tuple[Messages, Any]:
    """Return one logger for each module: TensorRT keeps the first that it is given for the whole process."""
    messages = Messages()
    base: Any = module.ILogger

    class Logger(base):  # type: ignore[misc]  # its base is known when TensorRT is imported
        """Hands TensorRT's messages on."""

        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: object, msg: str) -> None:
            """Take a message."""
            messages.add(str(severity).rpartition(".")[2], msg)

    return messages, Logger()
