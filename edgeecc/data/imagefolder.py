"""A folder of images: PATH/train/CLASS/*.jpg and PATH/val/CLASS/*.jpg, decoded when they are asked for."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Iterator, List, Sequence, Tuple

import numpy as np
import numpy.typing as npt
import torch

from edgeecc.data.splits import Batch
from edgeecc.errors import DataError

FloatArray = npt.NDArray[np.float64]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
#: Largest image that is decoded, pixels: above any camera, just below what Pillow refuses as a decompression bomb.
MAX_PIXELS = 178_000_000
#: Mean and standard deviation of ImageNet's training pixels, 0..1, per channel.
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)


class ImageFolder:
    """One split of a folder of images; a `Split`.

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

    def __len__(self) -> int:
        return len(self._files)

    def take(self, indices: Sequence[int], turn: int = 0) -> Batch:
        """Return the images and labels at `indices`, augmented as befits pass `turn`.

        Raises: DataError naming an image that cannot be decoded.
        """
        images = torch.stack([self._image(int(index), turn) for index in indices])
        return images, torch.tensor([self._files[int(index)][1] for index in indices])

    def _image(self, index: int, turn: int) -> torch.Tensor:
        chance = np.random.default_rng([self._seed, index, turn]).random(3)
        pixels = self._decode(self._files[index][0], chance)
        if self._shape[0] == 1:
            values = (pixels.mean(2, keepdims=True) / 255.0 - MEAN.mean()) / DEVIATION.mean()
        else:
            values = (pixels / 255.0 - MEAN) / DEVIATION
        return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float32))

    def _decode(self, path: Path, chance: FloatArray) -> np.typing.NDArray[np.float32]:
        from PIL import Image

        height, width = self._shape[1:]
        try:
            with _unwarned(), Image.open(path) as image:
                pixels = image.width * image.height
                if pixels > MAX_PIXELS:
                    raise ValueError(f"{pixels} pixels, more than {MAX_PIXELS}")  # noqa: TRY301  # told below
                image.draft("RGB", (width * 2, height * 2))
                rgb = image.convert("RGB")
                box = self._crop(rgb.width, rgb.height, chance)
                small = rgb.resize((width, height), Image.Resampling.BILINEAR, box=box)
        except Exception as error:  # decoders of damaged files raise whatever they trip over
            raise DataError(f"cannot decode {path}: {error}; take it out of the folder") from error
        values = np.asarray(small, dtype=np.float32)
        mirrored = self._augment and chance[2] < 0.5
        return values[:, ::-1] if mirrored else values

    def _crop(
        self, width: int, height: int, chance: FloatArray
    ) -> Tuple[float, float, float, float]:
        """Return the box (left, top, right, bottom) with the network's aspect."""
        aspect = self._shape[2] / self._shape[1]
        crop_w = min(width, height * aspect) * 0.875
        crop_h = crop_w / aspect
        left, top = chance[:2] if self._augment else (0.5, 0.5)
        x, y = (width - crop_w) * left, (height - crop_h) * top
        return x, y, x + crop_w, y + crop_h


@contextlib.contextmanager
def _unwarned() -> Iterator[None]:
    """Silence Pillow's warning of large images: the limit here is MAX_PIXELS."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def load_imagefolder(
    folder: Path, input_shape: Tuple[int, ...], seed: int
) -> Tuple[ImageFolder, ImageFolder, int]:  # fmt: skip
    """Return (train, val, number of classes).

    Raises: DataError when the folder has no train/ and val/ with class folders of images, or val/ a class that
        train/ lacks.
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
    strange = sorted({path.name for path in _folders(folder / "val")} - set(names))
    if strange:
        raise DataError(
            f"{folder / 'val' / strange[0]} has no {folder / 'train' / strange[0]} beside it; lay both out alike"
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
