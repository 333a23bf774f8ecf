"""Images with a mask of labels each: pairs of files, cropped and mirrored together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from edgeecc.data.crops import random_part
from edgeecc.data.images import Box, opened, rgb_crop
from edgeecc.data.request import DataRequest
from edgeecc.data.splits import AS_VALIDATION, Batch
from edgeecc.normalisation import IMAGENET, FloatArray

IntArray = npt.NDArray[np.int64]

#: Least share of each side that a training crop keeps: the network sees the scene at 1 to 2 times its size. Ours;
#: ESPNet trains on crops at several scales, ERFNet on shifts by two pixels, which every crop contains.
LEAST = 0.5
#: In a `mask_table`: a value that no mask may hold.
UNKNOWN = -1


@dataclass(frozen=True)
class Pair:
    """An image and its mask, files of one size."""

    image: Path
    mask: Path


def mask_table(labels: Mapping[int, int], other: int = UNKNOWN) -> IntArray:
    """Return the label of each value that a mask may hold, (256,); `other` for those not in `labels`."""
    table = np.full(256, other, dtype=np.int64)
    for value, label in labels.items():
        table[value] = label
    return table


class SegmentationSplit:
    """A `Split` of pairs.

    Validation images are brought to the network's input whole, training images from a random part and every second
    one mirrored, by a generator of their own for every image and pass. Images are resized bilinearly over all pixels
    that they cover, masks by the nearest pixel.

    Args:
        pairs: of files.
        table: label of each value in the masks, see `mask_table`.
        request: what the network wants; ImageNet's normalisation unless it has its own.
        augment: whether these are for training.
    Raises: DataError when the network does not take three channels.
    """

    #: Taking images is slow enough to be done ahead.
    decodes = True

    def __init__(
        self, pairs: Sequence[Pair], table: IntArray, request: DataRequest, *, augment: bool
    ) -> None:
        self._pairs, self._table = pairs, table
        self._seed, self._augment = request.seed, augment
        self._shape = request.image_shape("a set of scenes", (3,))
        self._normalisation = request.normalisation(IMAGENET, 3)

    def __len__(self) -> int:
        return len(self._pairs)

    def take(self, indices: Sequence[int], turn: int = 0) -> Batch:
        """Return images, float32 (n, 3, H, W), and masks, int64 (n, H, W), augmented as befits pass `turn`.

        Raises: DataError naming a file that cannot be decoded, a mask of another size than its image, or one that
            holds an unknown value.
        """
        images = np.empty((len(indices), *self._shape), dtype=np.float32)
        labels = np.empty((len(indices), *self._shape[1:]), dtype=np.int64)
        for place, index in enumerate(indices):
            self._write(images[place], labels[place], int(index), turn)
        return torch.from_numpy(images), torch.from_numpy(labels)

    def _write(self, image: FloatArray, labels: IntArray, index: int, turn: int) -> None:
        pair, size = self._pairs[index], self._shape[1:]
        with opened(str(pair.image), pair.image) as source:
            whole = source.size
            box: Box = (0.0, 0.0, float(whole[0]), float(whole[1]))
            mirrored = False
            if self._augment and turn != AS_VALIDATION:
                chance = np.random.default_rng([self._seed, index, turn])
                mirrored = bool(chance.random() < 0.5)
                box = random_part(*whole, LEAST, chance)
            pixels = rgb_crop(source, box, size)
        labels[...] = self._labels(pair.mask, box, whole)
        if mirrored:
            pixels = pixels[:, ::-1]
            labels[...] = labels[:, ::-1].copy()
        self._normalisation.apply(image, pixels.transpose(2, 0, 1))

    def _labels(self, path: Path, box: Box, whole: Sequence[int]) -> IntArray:
        """Return the labels of a box of a mask at the network's size."""
        from PIL.Image import Resampling

        height, width = self._shape[1:]
        with opened(str(path), path) as mask:
            if mask.mode not in ("L", "P") or mask.size != tuple(whole):
                raise ValueError(
                    f"it is {mask.mode} {mask.size}, its image {tuple(whole)}; a mask has one byte a pixel"
                )
            values = np.asarray(mask.resize((width, height), Resampling.NEAREST, box=box))
            labels: IntArray = self._table[values]
            if labels.min() == UNKNOWN:
                known = np.flatnonzero(self._table != UNKNOWN)
                strange = values[labels == UNKNOWN][0]
                raise ValueError(f"it holds {strange}, labels here are {known[0]}..{known[-1]}")
        return labels
