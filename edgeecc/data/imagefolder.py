"""A folder of images: PATH/train/CLASS/*.jpg and PATH/val/CLASS/*.jpg, decoded when they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import List, Tuple

import numpy as np
import torch

from edgeecc.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
#: Largest image that is decoded, pixels: far above any camera, far below a decompression bomb.
MAX_PIXELS = 200_000_000
#: Mean and standard deviation of ImageNet's training pixels, 0..1, per channel.
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)


class ImageFolder:
    """One split as a map-style dataset: (image, label).

    Validation images are scaled so that the crop is 7/8 of the short side, and cropped in the middle;
    training images are cropped at random and mirrored, by a generator of their own for every image and pass.
    """

    def __init__(
        self,
        files: List[Tuple[Path, int]],
        input_shape: Tuple[int, ...],
        seed: int,
        *,
        augment: bool,
    ) -> None:
        self._files, self._shape, self._seed, self._augment = files, input_shape, seed, augment
        self._asked = 0

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Tuple[torch.Tensor, int]:
        path, label = self._files[index]
        pixels = self._decode(path, index)
        if self._shape[0] == 1:
            values = (pixels.mean(2, keepdims=True) / 255.0 - MEAN.mean()) / DEVIATION.mean()
        else:
            values = (pixels / 255.0 - MEAN) / DEVIATION
        return torch.from_numpy(
            np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float32)
        ), label

    def _decode(self, path: Path, index: int) -> np.typing.NDArray[np.float32]:
        from PIL import Image

        height, width = self._shape[1:]
        try:
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(
                        f"{path} is {image.width}x{image.height}; take it out of the folder"
                    )
                image.draft("RGB", (width * 2, height * 2))
                rgb = image.convert("RGB")
                box = self._crop(rgb.width, rgb.height, index)
                small = rgb.resize((width, height), Image.Resampling.BILINEAR, box=box)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"cannot decode {path}: {error}; take it out of the folder") from error
        pixels = np.asarray(small, dtype=np.float32)
        mirrored = self._augment and np.random.default_rng([self._seed, index, 1]).random() < 0.5
        return pixels[:, ::-1] if mirrored else pixels

    def _crop(self, width: int, height: int, index: int) -> Tuple[float, float, float, float]:
        """Return the box (left, top, right, bottom) with the network's aspect."""
        aspect = self._shape[2] / self._shape[1]
        crop_w = min(width, height * aspect) * 0.875
        crop_h = crop_w / aspect
        left, top = 0.5, 0.5
        if self._augment:
            left, top = np.random.default_rng([self._seed, index]).random(2)
        x, y = (width - crop_w) * left, (height - crop_h) * top
        return x, y, x + crop_w, y + crop_h


def load_imagefolder(
    folder: Path, input_shape: Tuple[int, ...], seed: int
) -> Tuple[ImageFolder, ImageFolder, int]:  # fmt: skip
    """Return (train, val, number of classes).

    Raises: DataError when the folder has no train/ and val/ with class folders of images.
    """
    if len(input_shape) != 3 or input_shape[0] not in (1, 3):
        raise DataError(
            f"a folder of images needs a 1- or 3-channel network, this one takes {input_shape}; see --input"
        )
    names = sorted(path.name for path in _folders(folder / "train"))
    train = [
        (file, label)
        for label, name in enumerate(names)
        for file in _images(folder / "train" / name)
    ]
    val = [
        (file, label) for label, name in enumerate(names) for file in _images(folder / "val" / name)
    ]
    if not train or not val:
        raise DataError(
            f"{folder} holds no images in train/CLASS and val/CLASS; check the path and the layout"
        )
    return (
        ImageFolder(train, input_shape, seed, augment=True),
        ImageFolder(val, input_shape, seed, augment=False),
        len(names),
    )


def _folders(folder: Path) -> List[Path]:
    if not folder.is_dir():
        raise DataError(
            f"no folder {folder}; lay the images out as train/CLASS/*.jpg and val/CLASS/*.jpg"
        )
    return [path for path in folder.iterdir() if path.is_dir()]


def _images(folder: Path) -> List[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
