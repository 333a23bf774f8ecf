"""Samples for the calibrators of TensorRT up to 10, which find the ranges for int8 by themselves."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from edgeecc.errors import EdgeeccError
from edgeecc.runtimes.base import Array
from edgeecc.runtimes.cuda_memory import Cuda
from edgeecc.runtimes.trt_api import TensorRT


class Feed:
    """Hands batches to the device, one after the other.

    TensorRT prints what a calibrator raises and goes on, so an error is kept in `error` instead.
    """

    def __init__(self, cuda: Cuda, batches: Sequence[Array]) -> None:
        self._cuda = cuda
        self._left = [np.ascontiguousarray(batch) for batch in batches]
        self.batch_size = int(self._left[0].shape[0])
        self.address = cuda.malloc(self._left[0].nbytes)
        self.error: Optional[EdgeeccError] = None

    def next(self) -> Optional[List[int]]:
        """Return the device address of the next batch; None when there is none."""
        if not self._left or self.error is not None:
            return None
        try:
            self._cuda.upload(self.address, self._left.pop(0))
            self._cuda.synchronize()
        except EdgeeccError as error:
            self.error = error
            return None
        return [self.address]


@contextlib.contextmanager
def calibrator(
    trt: TensorRT, cuda: Cuda, batches: Sequence[Array]
) -> Iterator[Tuple[Any, Feed]]:  # TensorRT's IInt8EntropyCalibrator2, untyped
    """Yield a calibrator over batches of the graph's one input, and what feeds it.

    By entropy, which TensorRT's guide names for convolutional networks.

    Raises: RuntimeUnavailableError when the device has no room for a batch.
    """
    base: Any = trt.module.IInt8EntropyCalibrator2
    feed = Feed(cuda, batches)

    class Calibrator(base):  # type: ignore[misc]  # its base is known when TensorRT is imported
        """What TensorRT asks while it builds."""

        def __init__(self) -> None:
            base.__init__(self)

        def get_batch_size(self) -> int:
            """Return images per batch."""
            return feed.batch_size

        def get_batch(self, names: Sequence[str]) -> Optional[List[int]]:
            """Return device addresses, one for each name."""
            return feed.next()

        def read_calibration_cache(self) -> None:
            """Return None: the engine is cached whole."""

        def write_calibration_cache(self, cache: object) -> None:
            """Keep nothing."""

    try:
        yield Calibrator(), feed
    finally:
        cuda.free(feed.address)
