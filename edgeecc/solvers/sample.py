"""Images to look at networks with, and the few positions of each that stand for a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator

import torch
from torch import nn

from edgeecc.data.splits import images_together
from edgeecc.errors import ConfigError
from edgeecc.solvers.unfold import pick, positions

#: Images that run together at most.
IMAGES = 64
#: Output positions of an image that are sampled.
POSITIONS = 10


@dataclass(frozen=True)
class Sample:
    """Images to look at networks with.

    Args:
        images: (N, C, H, W), normalised as for training; N >= 1.
        seed: of the positions.
    Raises: ConfigError without images.
    """

    images: torch.Tensor
    seed: int

    def __post_init__(self) -> None:
        if not len(self.images):
            raise ConfigError("a local fit needs images; give at least one")

    def chunks(self) -> Iterator[torch.Tensor]:
        """Return the images, so many together."""
        together = images_together(self.images.shape, IMAGES)
        return (self.images[at : at + together] for at in range(0, len(self.images), together))

    def places(self) -> Places:
        """Return what draws the positions of one layer, the same for every layer of a shape."""
        return Places(torch.Generator().manual_seed(self.seed))


class Places:
    """Draws the positions of a layer, call by call."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def of(self, module: nn.Module, y: torch.Tensor) -> torch.Tensor:
        """Return positions of each image that a layer gave outputs of, (n, p) int64, on their device."""
        images = 1 if y.ndim == 1 else len(y)
        places = pick(images, positions(module, y), POSITIONS, generator=self._generator)
        return places.to(y.device)
