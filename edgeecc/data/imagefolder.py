"""A folder of images: PATH/train/CLASS/*.jpg and PATH/val/CLASS/*.jpg, decoded when they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import List, Tuple

import numpy as np

from edgeecc.data.encoded import EncodedSplit
from edgeecc.data.images import Encoded
from edgeecc.data.request import DataRequest, Loaded
from edgeecc.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


class ImageFiles:
    """Files and their labels; `EncodedImages`."""

    def __init__(self, files: List[Tuple[Path, int]]) -> None:
        self._files = [file for file, _ in files]
        self.labels = np.array([label for _, label in files], dtype=np.int64)

    def image(self, index: int) -> Tuple[str, Encoded]:
        """Return the name of an image and its file."""
        return str(self._files[index]), self._files[index]


def load_imagefolder(rest: str, request: DataRequest) -> Loaded:
    """Return (train, val, number of classes) of the folder `rest`.

    Raises: DataError when the folder has no train/ and val/ with class folders of images, or val/ a class that
        train/ lacks.
    """
    folder = Path(rest)
    request.image_shape("a folder of images")
    train, val, names = classes_of(folder, "train", "val")
    return (
        EncodedSplit(ImageFiles(train), request, augment=True),
        EncodedSplit(ImageFiles(val), request, augment=False),
        len(names),
    )


def classes_of(
    folder: Path, train: str, val: str
) -> Tuple[List[Tuple[Path, int]], List[Tuple[Path, int]], List[str]]:
    """Return the files and labels of folder/TRAIN/CLASS and folder/VAL/CLASS, and the classes, sorted by name.

    Raises: DataError when there are none, or val has a class that train lacks.
    """
    names = sorted(path.name for path in _folders(folder, train, val))
    found = [
        [
            (file, label)
            for label, name in enumerate(names)
            for file in images_in(folder / part / name)
        ]
        for part in (train, val)
    ]
    if not found[0] or not found[1]:
        raise DataError(
            f"{folder} holds no images in {train}/CLASS and {val}/CLASS; check the path and the layout"
        )
    strange = sorted({path.name for path in _folders(folder, val, train)} - set(names))
    if strange:
        raise DataError(
            f"{folder / val / strange[0]} has no {folder / train / strange[0]} beside it; lay both out alike"
        )
    return found[0], found[1], names


def images_in(folder: Path) -> List[Path]:
    """Return the images of a folder, sorted by name; none where it is absent."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _folders(folder: Path, part: str, other: str) -> List[Path]:
    if not (folder / part).is_dir():
        raise DataError(
            f"no folder {folder / part}; lay the images out as {part}/CLASS/*.jpg and {other}/CLASS/*.jpg"
        )
    return [path for path in (folder / part).iterdir() if path.is_dir()]
