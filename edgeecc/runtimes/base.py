"""What runs a network so that it can be measured and checked."""

from __future__ import annotations

from typing import Any, List, Optional, Protocol, Sequence, runtime_checkable

import numpy as np
import numpy.typing as npt

from edgeecc.timing import DeviceTimes

Array = npt.NDArray[Any]

#: Seed of the input that is run while a runtime is measured.
_INPUT_SEED = 0


class Runtime(Protocol):
    """A network that is ready to run; a context manager, which lets it go."""

    @property
    def name(self) -> str:
        """As printed beside every figure: what runs it, where, and in which precision."""

    def __enter__(self) -> Runtime:
        """Return it."""

    def __exit__(self, *_: object) -> None:
        """Let go of the device's memory."""

    def run(self, count: int) -> None:
        """Run `count` inferences of one input back to back, and return when the device has finished them."""

    def infer(self, inputs: Sequence[Array]) -> List[Array]:
        """Return the outputs for the given inputs, in the order of the graph's.

        Raises: ArtifactError when the inputs are not the graph's in number, shape or type.
        """


@runtime_checkable
class TimedByDevice(Protocol):
    """What a runtime offers beside, where its device has a clock of its own."""

    def device_times(self, count: int) -> Optional[DeviceTimes]:
        """Return how long single inferences of one input take by that clock, of `count`; None where it has none."""


def random_input(shape: Sequence[int]) -> Array:
    """Return the input that is run while a runtime is measured, float32 of a normal distribution."""
    generator = np.random.default_rng(_INPUT_SEED)
    return np.asarray(generator.standard_normal(tuple(shape)), dtype=np.float32)
