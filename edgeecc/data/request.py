"""What a network wants of a data set: the shape of its input, how pixels are normalised, the seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Sequence, Tuple, Union

import numpy as np
import numpy.typing as npt

from edgeecc.data.splits import Split
from edgeecc.errors import ConfigError, DataError

FloatArray = npt.NDArray[np.float32]
PixelArray = npt.NDArray[np.uint8]
#: What a loader returns: training images, validation images, number of classes.
Loaded = Tuple[Split, Split, Optional[int]]


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of pixels between 0 and 1, per channel.

    Raises: ConfigError when the two differ in length, are not finite, or a deviation is not positive.
    """

    mean: Tuple[float, ...]
    deviation: Tuple[float, ...]

    def __post_init__(self) -> None:
        finite = all(math.isfinite(value) for value in (*self.mean, *self.deviation))
        positive = all(value > 0.0 for value in self.deviation)
        if not self.mean or len(self.mean) != len(self.deviation) or not (finite and positive):
            raise ConfigError(
                f"cannot normalise by mean {self.mean} and deviation {self.deviation}; "
                "give a number for each channel, deviations above 0"
            )

    def apply(self, out: FloatArray, pixels: Union[PixelArray, npt.NDArray[np.float64]]) -> None:
        """Write normalised pixels.

        Args:
            out: float32 (..., C, H, W), written.
            pixels: 0..255, of the same shape.
        """
        deviation = np.array(self.deviation)[:, None, None]
        mean = np.array(self.mean)[:, None, None]
        out[...] = pixels
        out *= (1.0 / (255.0 * deviation)).astype(np.float32)
        out -= (mean / deviation).astype(np.float32)

    def grey(self) -> Normalization:
        """Return the normalisation of the mean of the channels."""
        return Normalization(
            (sum(self.mean) / len(self.mean),), (sum(self.deviation) / len(self.deviation),)
        )


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class DataRequest:
    """What a network wants.

    Args:
        input_shape: (C, H, W) of the network.
        seed: of random augmentation.
        given: the network's own normalisation; None leaves the data set's.
    """

    input_shape: Tuple[int, ...]
    seed: int = 0
    given: Optional[Normalization] = None

    def image_shape(self, what: str, channels: Sequence[int] = (1, 3)) -> Tuple[int, int, int]:
        """Return (C, H, W), which `what` can serve.

        Raises: DataError when the network takes no images, or of other channels.
        """
        shape = self.input_shape
        if len(shape) != 3 or shape[0] not in channels or min(shape) < 1:
            wanted = " or ".join(f"{count}-" for count in channels)
            raise DataError(
                f"{what} needs a {wanted}channel network, this one takes {shape}; see --input"
            )
        return shape[0], shape[1], shape[2]

    def normalization(self, usual: Normalization, channels: int) -> Normalization:
        """Return the network's normalisation, or else the set's `usual` one, for images of so many channels.

        A network of other channels keeps the usual one: `DataBundle.check_fits` refuses it.
        """
        if self.given is not None and len(self.given.mean) == channels:
            return self.given
        return usual.grey() if channels == 1 else usual
