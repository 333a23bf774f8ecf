"""Small images that are kept in memory as bytes, normalised when they are asked for."""

from __future__ import annotations

from typing import Callable, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt
import torch

from edgeecc.data.images import Encoded, as_rgb, opened
from edgeecc.data.splits import AS_VALIDATION, Batch
from edgeecc.normalisation import Normalisation, PixelArray

#: Pixels around a training image, from which it is cropped (He et al., CVPR 2016, section 4.2).
PAD = 4


class PixelSplit:
    """Images in memory; a `Split`. Training images are padded, cropped and mirrored anew in each pass.

    Args:
        pixels: (N, C, H, W).
        labels: int64 (N,).
        normalisation: of C channels.
        seed: None leaves the images as they are; else of the augmentation, drawn for every image and pass.
    """

    def __init__(
        self,
        pixels: PixelArray,
        labels: npt.NDArray[np.int64],
        normalisation: Normalisation,
        seed: Optional[int] = None,
    ) -> None:
        self._pixels, self._labels = pixels, labels
        self._normalisation, self._seed = normalisation, seed

    def __len__(self) -> int:
        return len(self._labels)

    def take(self, indices: Sequence[int], turn: int = 0) -> Batch:
        """Return the images and labels at `indices`, augmented as befits pass `turn`."""
        places = list(indices)
        pixels = self._pixels[places]
        if self._seed is not None and turn != AS_VALIDATION:
            pixels = _shifted(pixels, [(self._seed, index, turn) for index in places])
        images = np.empty(pixels.shape, dtype=np.float32)
        self._normalisation.apply(images, pixels)
        return torch.from_numpy(images), torch.from_numpy(self._labels[places])


def _shifted(pixels: PixelArray, seeds: Sequence[Tuple[int, int, int]]) -> PixelArray:
    """Return every image shifted by up to PAD pixels, black beyond its edges, every second one mirrored."""
    height, width = pixels.shape[2:]
    padded = np.pad(pixels, ((0, 0), (0, 0), (PAD, PAD), (PAD, PAD)))
    shifted = np.empty_like(pixels)
    for place, seed in enumerate(seeds):
        top, left, mirrored = np.random.default_rng(seed).integers(0, (2 * PAD + 1, 2 * PAD + 1, 2))
        part = padded[place, :, top : top + height, left : left + width]
        shifted[place] = part[:, :, ::-1] if mirrored else part
    return shifted


def decoded(
    count: int, encoded: Callable[[int], Tuple[str, Encoded]], size: Tuple[int, int]
) -> PixelArray:
    """Decode images of one size, (N, 3, H, W).

    In one thread: opening so small an image takes longer than decoding it, and only decoders run side by side.

    Args:
        count: of images.
        encoded: gives name and file or bytes of image i.
        size: (height, width) that each must have.
    Raises: DataError naming one that cannot be decoded or has another size.
    """
    pixels = np.empty((count, 3, *size), dtype=np.uint8)
    for index in range(count):
        name, source = encoded(index)
        with opened(name, source) as image:
            if (image.height, image.width) != size:
                raise ValueError(f"it is {image.height}x{image.width}, not {size[0]}x{size[1]}")
            pixels[index] = np.asarray(as_rgb(image)).transpose(2, 0, 1)
    return pixels
