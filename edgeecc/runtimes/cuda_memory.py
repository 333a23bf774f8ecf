"""What we need of CUDA: memory, one stream, events, and graphs of what was put into the stream.

Two packages can give it. cuda-python has wheels and can capture graphs; pycuda must be built, and is all there is for
CUDA 10.2 (Jetson TX2). Whichever imports is taken, cuda-python first.
"""

from __future__ import annotations

import importlib
from typing import Callable, List, Optional, Protocol

from edgeecc.errors import RuntimeUnavailableError, brief
from edgeecc.runtimes.base import Array

#: A CUDA event, as the package has it.
Mark = object


class Launchable(Protocol):
    """A captured graph."""

    def launch(self) -> None:
        """Put it into the stream once."""

    def close(self) -> None:
        """Let go of it."""


class Cuda(Protocol):
    """One GPU and one stream on it, to be used by the thread that opened it.

    Every method raises RuntimeUnavailableError when CUDA reports an error.
    """

    @property
    def name(self) -> str:
        """The package that calls CUDA."""

    @property
    def device(self) -> str:
        """The GPU with all that an engine depends on: its name, compute capability and multiprocessors."""

    @property
    def version(self) -> str:
        """CUDA version of the driver, such as "12.6"."""

    @property
    def stream(self) -> int:
        """Handle of the stream."""

    def malloc(self, size: int) -> int:
        """Return the address of `size` bytes on the device."""

    def free(self, address: int) -> None:
        """Give them back."""

    def upload(self, address: int, array: Array) -> None:
        """Put a copy of `array`, which is contiguous and must stay until `synchronize`, into the stream."""

    def download(self, array: Array, address: int) -> None:
        """Put a copy into `array`, which is contiguous and must stay until `synchronize`, into the stream."""

    def synchronize(self) -> None:
        """Return when everything in the stream is done."""

    def mark(self) -> Mark:
        """Put an event into the stream."""

    def seconds(self, first: Mark, last: Mark) -> float:
        """Wait for `last`; return seconds between two events, by the device's clock."""

    def capture(self, enqueue: Callable[[], bool]) -> Optional[Launchable]:
        """Return a graph of what `enqueue` puts into the stream; None where that cannot be captured."""

    def close(self) -> None:
        """Let go of the stream and the device."""


def open_cuda(device: int = 0) -> Cuda:
    """Open a GPU.

    Raises: RuntimeUnavailableError when no package for it imports, or CUDA finds no GPU.
    """
    missing: List[str] = []
    for module in ("cuda.bindings.runtime", "cuda.cudart"):
        try:
            runtime = importlib.import_module(module)
        except ImportError:
            continue
        except Exception as error:  # a library of the driver that does not load
            missing.append(brief(error, 80))
            continue
        from edgeecc.runtimes.cuda_python import CudaPython

        return CudaPython(runtime, device)
    try:
        driver = importlib.import_module("pycuda.driver")
    except Exception as error:
        if not isinstance(error, ImportError) or "pycuda" not in str(error):
            missing.append(brief(error, 80))
    else:
        from edgeecc.runtimes.cuda_pycuda import PyCuda

        return PyCuda(driver, device)
    seen = f" ({'; '.join(missing)})" if missing else ""
    raise RuntimeUnavailableError(
        f"neither cuda-python nor pycuda can be imported{seen}; pip install cuda-python, or pycuda for the CUDA of "
        "JetPack 4"
    )
