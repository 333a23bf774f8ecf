"""How pixels are brought to the scale that a network was trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, Optional, Tuple, Union

import numpy as np
import numpy.typing as npt

from edgeecc.errors import ArtifactError, ConfigError

FloatArray = npt.NDArray[np.float32]
PixelArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Normalisation:
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

    def grey(self) -> Normalisation:
        """Return the normalisation of the mean of the channels."""
        return Normalisation(
            (sum(self.mean) / len(self.mean),), (sum(self.deviation) / len(self.deviation),)
        )

    def to_json(self) -> Dict[str, object]:
        """Return the two as JSON-ready values."""
        return {"mean": list(self.mean), "deviation": list(self.deviation)}


def read_normalisation(data: object, source: object) -> Optional[Normalisation]:
    """Read what `to_json` wrote, or None.

    Raises: ArtifactError naming `source` when it is neither.
    """
    if data is None:
        return None
    try:
        if not isinstance(data, dict) or set(data) != {"mean", "deviation"}:
            raise TypeError("it needs mean and deviation")  # noqa: TRY301  # told below
        mean, deviation = (
            tuple(float(value) for value in data[key]) for key in ("mean", "deviation")
        )
        return Normalisation(mean, deviation)
    except (TypeError, ValueError, ConfigError) as error:
        raise ArtifactError(
            f"normalisation {data!r} in {source} is damaged: {error}; prune again"
        ) from error


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def parse_normalisation(text: str) -> Normalisation:
    """Read `MEAN/DEVIATION`, each a number for every channel, as in 0.5,0.5,0.5/0.5,0.5,0.5.

    Raises: ConfigError when it is none.
    """
    parts = text.split("/")
    try:
        mean, deviation = (tuple(float(value) for value in part.split(",")) for part in parts)
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is no normalisation; write mean and deviation of 0..1 such as 0.5,0.5,0.5/0.5,0.5,0.5"
        ) from error
    return Normalisation(mean, deviation)
