"""CUDA through pycuda, which raises its errors. It cannot capture graphs."""

from __future__ import annotations

import contextlib
from types import ModuleType
from typing import Any, Callable, Dict, Iterator, Optional

from edgeecc.errors import RuntimeUnavailableError, brief
from edgeecc.runtimes.base import Array
from edgeecc.runtimes.cuda_memory import Launchable


class PyCuda:
    """A GPU through `pycuda.driver`, in the context that TensorRT uses too.

    Args:
        driver: that module.
        device: number of the GPU.
    Raises: RuntimeUnavailableError when CUDA finds no such GPU.
    """

    def __init__(self, driver: ModuleType, device: int) -> None:
        self._driver = driver
        with self._calling("no CUDA GPU can be used"):
            driver.init()
            found = driver.Device.count()
        if not 0 <= device < found:
            raise RuntimeUnavailableError(f"GPU {device} is not here: CUDA sees {found}")
        with self._calling("cannot use the GPU"):
            gpu = driver.Device(device)
            major, minor = gpu.compute_capability()
            parts = gpu.get_attribute(driver.device_attribute.MULTIPROCESSOR_COUNT)
            version = driver.get_driver_version()
            self._context = gpu.retain_primary_context()
            self._context.push()
        self.name = "pycuda"
        self.device = f"{gpu.name().strip()} (sm_{major}{minor}, {parts} SMs)"
        self.version = f"{version // 1000}.{version % 1000 // 10}"
        self._held: Dict[int, Any] = {}  # address -> what keeps the memory
        try:
            with self._calling("cannot open a stream"):
                self._stream = driver.Stream()
        except RuntimeUnavailableError:
            self._context.pop()
            raise

    @property
    def stream(self) -> int:
        """Handle of the stream."""
        return int(self._stream.handle)

    def malloc(self, size: int) -> int:
        """Return the address of `size` bytes on the device."""
        with self._calling(f"no room for {size} bytes on the GPU"):
            memory = self._driver.mem_alloc(size)
        self._held[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        """Give them back."""
        with self._calling("cannot free memory"):
            self._held.pop(address).free()

    def upload(self, address: int, array: Array) -> None:
        """Put a copy of `array` into the stream."""
        with self._calling("cannot copy"):
            self._driver.memcpy_htod_async(address, array, self._stream)

    def download(self, array: Array, address: int) -> None:
        """Put a copy into `array` into the stream."""
        with self._calling("cannot copy"):
            self._driver.memcpy_dtoh_async(array, address, self._stream)

    def synchronize(self) -> None:
        """Return when everything in the stream is done."""
        with self._calling("the GPU failed"):
            self._stream.synchronize()

    def mark(self) -> object:
        """Put an event into the stream."""
        with self._calling("cannot record an event"):
            event = self._driver.Event()
            event.record(self._stream)
        return event

    def seconds(self, first: Any, last: Any) -> float:  # pycuda.driver.Event, untyped
        """Wait for `last`; return seconds between two events."""
        with self._calling("the GPU failed"):
            last.synchronize()
            return 1e-3 * float(first.time_till(last))

    def capture(self, enqueue: Callable[[], bool]) -> Optional[Launchable]:
        """Return None: no released pycuda can capture."""
        return None

    def close(self) -> None:
        """Let go of the stream and the context."""
        with self._calling("cannot close the GPU"):
            del self._stream
            self._context.pop()

    @contextlib.contextmanager
    def _calling(self, fault: str) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            hint = (
                "close what else uses the GPU, or take a smaller batch or workspace"
                if isinstance(error, self._driver.MemoryError)
                else "is the GPU in order? see dmesg; in a container use --runtime nvidia"
            )
            raise RuntimeUnavailableError(f"{fault}: {brief(error, 120)}; {hint}") from error
