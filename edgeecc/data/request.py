"""What a network wants of a data set: the shape of its input, how pixels are normalised, the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

from edgeecc.data.splits import Split
from edgeecc.errors import DataError
from edgeecc.normalisation import Normalisation

#: What a loader returns: training images, validation images, number of classes.
Loaded = Tuple[Split, Split, Optional[int]]


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
    given: Optional[Normalisation] = None

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

    def normalisation(self, usual: Normalisation, channels: int) -> Normalisation:
        """Return the network's normalisation, or else the set's `usual` one, for images of so many channels.

        A network of other channels keeps the usual one: `DataBundle.check_fits` refuses it.
        """
        if self.given is not None and len(self.given.mean) == channels:
            return self.given
        return usual.grey() if channels == 1 else usual
