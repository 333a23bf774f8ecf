"""Labelled images that stay encoded until they are asked for: files, or places in shards."""

from __future__ import annotations

from typing import Protocol, Sequence, Tuple

import numpy as np
import numpy.typing as npt
import torch

from edgeecc.data.crops import central, random_resized
from edgeecc.data.images import Encoded, opened, rgb_crop
from edgeecc.data.request import DataRequest
from edgeecc.data.splits import AS_VALIDATION, Batch
from edgeecc.normalisation import IMAGENET, FloatArray


class EncodedImages(Protocol):
    """Where encoded images and their labels, int64 (N,), are."""

    labels: npt.NDArray[np.int64]

    def image(self, index: int) -> Tuple[str, Encoded]:
        """Return the name of an image, for messages, and its file or bytes.

        Raises: DataError when it cannot be read.
        """


class EncodedSplit:
    """A `Split` of encoded images.

    Validation images are scaled so that the crop is 7/8 of the short side, and cropped in the middle; training
    images are cropped at random (`crops.random_resized`) and mirrored, by a generator of their own for every
    image and pass.

    Args:
        images: where they are.
        request: what the network wants; ImageNet's normalisation unless it has its own.
        augment: whether these are for training.
    Raises: DataError when the network takes other than 1 or 3 channels.
    """

    #: Taking images is slow enough to be done ahead.
    decodes = True

    def __init__(self, images: EncodedImages, request: DataRequest, *, augment: bool) -> None:
        self._images, self._seed, self._augment = images, request.seed, augment
        self._shape = request.image_shape("a set of images")
        self._normalisation = request.normalisation(IMAGENET, self._shape[0])

    def __len__(self) -> int:
        return len(self._images.labels)

    def take(self, indices: Sequence[int], turn: int = 0) -> Batch:
        """Return the images and labels at `indices`, augmented as befits pass `turn`.

        Raises: DataError naming an image that cannot be decoded.
        """
        images = np.empty((len(indices), *self._shape), dtype=np.float32)
        for place, index in enumerate(indices):
            self._write(images[place], int(index), turn)
        return torch.from_numpy(images), torch.from_numpy(self._images.labels[list(indices)])

    def _write(self, out: FloatArray, index: int, turn: int) -> None:
        channels, height, width = self._shape
        name, encoded = self._images.image(index)
        mirrored = False
        with opened(name, encoded) as image:
            if self._augment and turn != AS_VALIDATION:
                chance = np.random.default_rng([self._seed, index, turn])
                mirrored = bool(chance.random() < 0.5)
                box = random_resized(image.width, image.height, width / height, chance)
            else:
                box = central(image.width, image.height, width / height)
            pixels = rgb_crop(image, box, (height, width))
        if mirrored:
            pixels = pixels[:, ::-1]
        if channels == 1:
            pixels = pixels.mean(2, keepdims=True)
        self._normalisation.apply(out, pixels.transpose(2, 0, 1))
