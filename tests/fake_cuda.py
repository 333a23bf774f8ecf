"""A GPU of the tests, and the two packages that reach it, with the calls of their real ones.

Work that is put into its stream is done when somebody waits for it, so that a missing wait shows.
"""

# ruff: noqa: N802, N815  the names are CUDA's
from __future__ import annotations

import ctypes
import enum
import types
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

#: Seconds that the device's clock moves for one piece of work.
WORK_S = 0.001


class OutOfMemoryError(Exception):
    """The fake device has no room."""


class FakeGpu:
    """Memory by address, one stream, a clock.

    Args:
        memory: bytes in all.
        count: how many such GPUs there are.
    """

    def __init__(self, memory: int = 2**30, count: int = 1) -> None:
        self.memory, self.count = memory, count
        self.blocks: Dict[int, bytearray] = {}
        self.pending: List[Callable[[], None]] = []
        self.captured: Optional[List[Callable[[], None]]] = None
        self.clock_s = 0.0
        self.faults: Set[str] = set()  # names of CUDA functions that fail
        self.alive: Dict[str, int] = {"stream": 0, "event": 0, "graph": 0}
        self._next = 0x1000

    def malloc(self, size: int) -> int:
        if size > self.memory - sum(map(len, self.blocks.values())):
            raise OutOfMemoryError
        self._next += 0x10000 + size
        self.blocks[self._next] = bytearray(size)
        return self._next

    def free(self, address: int) -> None:
        del self.blocks[address]

    def put(self, work: Callable[[], None]) -> None:
        (self.pending if self.captured is None else self.captured).append(work)

    def wait(self) -> None:
        pending, self.pending = self.pending, []
        for work in pending:
            work()
            self.clock_s += WORK_S

    @property
    def clean(self) -> bool:
        """Whether everything that was taken was given back."""
        return not self.blocks and not any(self.alive.values())


class Failure(enum.IntEnum):
    """Errors of CUDA's runtime, numbered as its header numbers them."""

    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorLaunchFailure = 719
    cudaErrorStreamCaptureInvalidated = 901


class _CopyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class _CaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


def cuda_python(gpu: FakeGpu, name: str = "cuda.bindings.runtime") -> Any:
    """Return the module of cuda-python: every function returns a tuple that begins with an error."""
    module: Any = types.ModuleType(name)
    module.cudaStreamNonBlocking = 1
    module.cudaStreamCaptureMode, module.cudaMemcpyKind = _CaptureMode, _CopyKind
    functions = _Runtime(gpu)
    for function in dir(functions):
        if function.startswith("cuda"):
            setattr(module, function, _failing(gpu, getattr(functions, function)))
    return module


def _failing(
    gpu: FakeGpu, function: Callable[..., Tuple[Any, ...]]
) -> Callable[..., Tuple[Any, ...]]:
    def call(*values: Any) -> Tuple[Any, ...]:
        if function.__name__ in gpu.faults:
            return (Failure.cudaErrorLaunchFailure, None)
        return function(*values)

    return call


class _Runtime:
    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu

    def cudaGetDeviceCount(self) -> Tuple[Any, ...]:
        none = (Failure.cudaErrorNoDevice, None)
        return (Failure.cudaSuccess, self._gpu.count) if self._gpu.count else none

    def cudaSetDevice(self, device: int) -> Tuple[Any, ...]:
        return (Failure.cudaSuccess,)

    def cudaGetDeviceProperties(self, device: int) -> Tuple[Any, ...]:
        seen = types.SimpleNamespace(name=b"Orin", major=8, minor=7, multiProcessorCount=8)
        return Failure.cudaSuccess, seen

    def cudaDriverGetVersion(self) -> Tuple[Any, ...]:
        return Failure.cudaSuccess, 12060

    def cudaGetErrorName(self, error: int) -> Tuple[Any, ...]:
        return Failure.cudaSuccess, Failure(error).name.encode()

    def cudaGetLastError(self) -> Tuple[Any, ...]:
        return (Failure.cudaSuccess,)

    def cudaMalloc(self, size: int) -> Tuple[Any, ...]:
        try:
            return Failure.cudaSuccess, self._gpu.malloc(size)
        except OutOfMemoryError:
            return Failure.cudaErrorMemoryAllocation, None

    def cudaFree(self, address: int) -> Tuple[Any, ...]:
        self._gpu.free(address)
        return (Failure.cudaSuccess,)

    def cudaMemcpyAsync(
        self, target: int, source: int, size: int, kind: int, stream: int
    ) -> Tuple[Any, ...]:
        gpu = self._gpu
        if kind == _CopyKind.cudaMemcpyHostToDevice:

            def work() -> None:
                gpu.blocks[target][:size] = ctypes.string_at(source, size)
        else:

            def work() -> None:
                ctypes.memmove(target, bytes(gpu.blocks[source][:size]), size)

        gpu.put(work)
        return (Failure.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags: int) -> Tuple[Any, ...]:
        self._gpu.alive["stream"] += 1
        return Failure.cudaSuccess, 77

    def cudaStreamDestroy(self, stream: int) -> Tuple[Any, ...]:
        self._gpu.alive["stream"] -= 1
        return (Failure.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> Tuple[Any, ...]:
        self._gpu.wait()
        return (Failure.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> Tuple[Any, ...]:
        self._gpu.captured = []
        return (Failure.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> Tuple[Any, ...]:
        work, self._gpu.captured = self._gpu.captured, None
        return Failure.cudaSuccess, work

    def cudaGraphInstantiateWithFlags(self, graph: List[Any], flags: int) -> Tuple[Any, ...]:
        self._gpu.alive["graph"] += 1
        return Failure.cudaSuccess, list(graph)

    cudaGraphInstantiate = cudaGraphInstantiateWithFlags

    def cudaGraphDestroy(self, graph: List[Any]) -> Tuple[Any, ...]:
        return (Failure.cudaSuccess,)

    def cudaGraphExecDestroy(self, graph: List[Any]) -> Tuple[Any, ...]:
        self._gpu.alive["graph"] -= 1
        return (Failure.cudaSuccess,)

    def cudaGraphLaunch(self, graph: List[Any], stream: int) -> Tuple[Any, ...]:
        for work in graph:
            self._gpu.put(work)
        return (Failure.cudaSuccess,)

    def cudaEventCreate(self) -> Tuple[Any, ...]:
        self._gpu.alive["event"] += 1
        return Failure.cudaSuccess, types.SimpleNamespace(at_s=None)

    def cudaEventRecord(self, event: Any, stream: int) -> Tuple[Any, ...]:
        self._gpu.put(lambda: setattr(event, "at_s", self._gpu.clock_s))
        return (Failure.cudaSuccess,)

    def cudaEventSynchronize(self, event: Any) -> Tuple[Any, ...]:
        self._gpu.wait()
        return (Failure.cudaSuccess,)

    def cudaEventElapsedTime(self, first: Any, last: Any) -> Tuple[Any, ...]:
        return Failure.cudaSuccess, 1e3 * (last.at_s - first.at_s)

    def cudaEventDestroy(self, event: Any) -> Tuple[Any, ...]:
        self._gpu.alive["event"] -= 1
        return (Failure.cudaSuccess,)


def pycuda_driver(gpu: FakeGpu) -> Any:  # noqa: C901  one module whose classes share its errors
    """Return the module pycuda.driver, which raises errors of its own."""
    module: Any = types.ModuleType("pycuda.driver")
    module.Error = type("Error", (Exception,), {})
    module.LogicError = type("LogicError", (module.Error,), {})
    module.MemoryError = type("MemoryError", (module.Error,), {})

    def guarded(name: str) -> None:
        if name in gpu.faults:
            raise module.LogicError(f"{name} failed: unspecified launch failure")

    def init() -> None:
        guarded("cuInit")
        if not gpu.count:
            raise module.LogicError("cuInit failed: no CUDA-capable device is detected")

    class Context:
        def push(self) -> None:
            gpu.alive["context"] = gpu.alive.get("context", 0) + 1

        def pop(self) -> None:
            gpu.alive["context"] -= 1

    class Device:
        def __init__(self, number: int) -> None:
            assert number < gpu.count

        count = staticmethod(lambda: gpu.count)
        name = staticmethod(lambda: "NVIDIA Tegra X2")
        compute_capability = staticmethod(lambda: (6, 2))
        get_attribute = staticmethod(lambda attribute: {"parts": 2}[attribute])
        retain_primary_context = staticmethod(Context)

    class Allocation:
        def __init__(self, size: int) -> None:
            try:
                self._address = gpu.malloc(size)
            except OutOfMemoryError:
                raise module.MemoryError("cuMemAlloc failed: out of memory") from None

        def __int__(self) -> int:
            return self._address

        def free(self) -> None:
            guarded("cuMemFree")
            gpu.free(self._address)

    class Stream:
        handle = 78

        def __init__(self) -> None:
            guarded("cuStreamCreate")

        def synchronize(self) -> None:
            guarded("cuStreamSynchronize")
            gpu.wait()

    class Event:
        at_s = 0.0

        def record(self, stream: Stream) -> None:
            gpu.put(lambda: setattr(self, "at_s", gpu.clock_s))

        def synchronize(self) -> None:
            gpu.wait()

        def time_till(self, last: Any) -> float:
            return 1e3 * (last.at_s - self.at_s)

    def upload(target: int, source: Any, stream: Stream) -> None:
        guarded("cuMemcpyHtoDAsync")
        gpu.put(lambda: gpu.blocks[target].__setitem__(slice(0, source.nbytes), source.tobytes()))

    def download(target: Any, source: int, stream: Stream) -> None:
        def work() -> None:
            memoryview(target).cast("B")[:] = gpu.blocks[source][: target.nbytes]

        gpu.put(work)

    module.init, module.Device, module.Stream, module.Event = init, Device, Stream, Event
    module.mem_alloc, module.get_driver_version = Allocation, lambda: 10020
    module.memcpy_htod_async, module.memcpy_dtoh_async = upload, download
    module.device_attribute = types.SimpleNamespace(MULTIPROCESSOR_COUNT="parts")
    return module
