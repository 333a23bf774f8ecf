"""CUDA through cuda-python, whose functions return (error, value)."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Callable, Dict, Optional

from edgeecc.errors import RuntimeUnavailableError
from edgeecc.runtimes.base import Array


class CudaPython:
    """A GPU through `cuda.bindings.runtime`, or `cuda.cudart` before 12.

    Args:
        runtime: that module.
        device: number of the GPU.
    Raises: RuntimeUnavailableError when CUDA finds no such GPU.
    """

    def __init__(self, runtime: ModuleType, device: int) -> None:
        self._runtime = runtime
        found = self._call("cudaGetDeviceCount", "no CUDA GPU can be used")
        if not 0 <= device < found:
            raise RuntimeUnavailableError(f"GPU {device} is not here: CUDA sees {found}")
        self._call("cudaSetDevice", "cannot use the GPU", device)
        seen = self._call("cudaGetDeviceProperties", "cannot read what the GPU is", device)
        driver = self._call("cudaDriverGetVersion", "cannot read the driver's version")
        title = seen.name.decode(errors="replace") if isinstance(seen.name, bytes) else seen.name
        self.name = f"{runtime.__name__}"
        self.device = (
            f"{title.strip()} (sm_{seen.major}{seen.minor}, {seen.multiProcessorCount} SMs)"
        )
        self.version = f"{driver // 1000}.{driver % 1000 // 10}"
        self._stream = self._call(
            "cudaStreamCreateWithFlags", "cannot open a stream", runtime.cudaStreamNonBlocking
        )
        self._events: Dict[int, Any] = {}

    @property
    def stream(self) -> int:
        """Handle of the stream."""
        return int(self._stream)

    def malloc(self, size: int) -> int:
        """Return the address of `size` bytes on the device."""
        return int(self._call("cudaMalloc", f"no room for {size} bytes on the GPU", size))

    def free(self, address: int) -> None:
        """Give them back."""
        self._call("cudaFree", "cannot free memory", address)

    def upload(self, address: int, array: Array) -> None:
        """Put a copy of `array` into the stream."""
        self._copy(address, array.ctypes.data, array.nbytes, "cudaMemcpyHostToDevice")

    def download(self, array: Array, address: int) -> None:
        """Put a copy into `array` into the stream."""
        self._copy(array.ctypes.data, address, array.nbytes, "cudaMemcpyDeviceToHost")

    def synchronize(self) -> None:
        """Return when everything in the stream is done."""
        self._call("cudaStreamSynchronize", "the GPU failed", self._stream)

    def mark(self) -> object:
        """Put an event into the stream."""
        event = self._call("cudaEventCreate", "cannot make an event")
        self._events[id(event)] = event
        self._call("cudaEventRecord", "cannot record an event", event, self._stream)
        return event

    def seconds(self, first: object, last: object) -> float:
        """Wait for `last`; return seconds between two events, which are spent then."""
        try:
            self._call("cudaEventSynchronize", "the GPU failed", last)
            return 1e-3 * float(
                self._call("cudaEventElapsedTime", "cannot read events", first, last)
            )
        finally:
            for event in (first, last):
                self._events.pop(id(event), None)
                self._runtime.cudaEventDestroy(event)

    def capture(self, enqueue: Callable[[], bool]) -> Optional[CapturedGraph]:
        """Return a graph of what `enqueue` puts into the stream; None where that cannot be captured."""
        runtime = self._runtime
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        if int(runtime.cudaStreamBeginCapture(self._stream, mode)[0]):
            return None
        accepted = False
        try:
            accepted = enqueue()
        finally:
            error, graph = runtime.cudaStreamEndCapture(self._stream)
            runtime.cudaGetLastError()  # what a refused capture leaves behind is no fault of the next call
        if not accepted or int(error):
            return None
        instantiate = getattr(
            runtime, "cudaGraphInstantiateWithFlags", runtime.cudaGraphInstantiate
        )
        error, ready = instantiate(graph, 0)[:2]
        runtime.cudaGraphDestroy(graph)
        if int(error):
            return None
        return CapturedGraph(self, ready)

    def launch(self, graph: object) -> None:
        """Put a captured graph into the stream."""
        self._call("cudaGraphLaunch", "the GPU refused the captured graph", graph, self._stream)

    def release(self, graph: object) -> None:
        """Let go of a captured graph."""
        self._call("cudaGraphExecDestroy", "cannot free a captured graph", graph)

    def close(self) -> None:
        """Let go of the stream and of events that were never read."""
        for event in self._events.values():
            self._runtime.cudaEventDestroy(event)
        self._events.clear()
        self._call("cudaStreamDestroy", "cannot close the stream", self._stream)

    def _copy(self, target: int, source: int, size: int, kind: str) -> None:
        kinds = self._runtime.cudaMemcpyKind
        self._call(
            "cudaMemcpyAsync",
            "cannot copy",
            target,
            source,
            size,
            getattr(kinds, kind),
            self._stream,
        )

    def _call(self, function: str, fault: str, *values: object) -> Any:  # as CUDA returns it
        try:
            error, *result = getattr(self._runtime, function)(*values)
        except RuntimeError as failure:  # the driver's library is not there
            raise RuntimeUnavailableError(
                f"{fault}: {' '.join(str(failure).split())[:120]}; is the NVIDIA driver installed?"
            ) from failure
        if int(error):
            _, name = self._runtime.cudaGetErrorName(error)
            text = name.decode() if isinstance(name, bytes) else str(name)
            raise RuntimeUnavailableError(f"{fault}: {function} says {text}; {_way_out(text)}")
        return result[0] if result else None


class CapturedGraph:
    """A captured graph of cuda-python."""

    def __init__(self, cuda: CudaPython, graph: object) -> None:
        self._cuda, self._graph = cuda, graph

    def launch(self) -> None:
        """Put it into the stream once."""
        self._cuda.launch(self._graph)

    def close(self) -> None:
        """Let go of it."""
        self._cuda.release(self._graph)


def _way_out(error: str) -> str:
    if error == "cudaErrorMemoryAllocation":
        return "close what else uses the GPU, or take a smaller batch or workspace"
    if error in ("cudaErrorNoDevice", "cudaErrorInsufficientDriver"):
        return "is an NVIDIA GPU here, with a driver that knows this CUDA? in a container use --runtime nvidia"
    return "see dmesg for the driver's word, and run edgeecc doctor"
