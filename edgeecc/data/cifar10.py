"""CIFAR-10 in any of the forms it is passed on in; the form is found out by looking."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, List, Tuple

import numpy as np
import numpy.typing as npt

from edgeecc.data.cifar_pickle import read_batch
from edgeecc.data.imagefolder import ImageFiles, classes_of
from edgeecc.data.npz import read_npz
from edgeecc.data.pixels import PixelSplit, decoded
from edgeecc.data.request import DataRequest, Loaded
from edgeecc.errors import DataError
from edgeecc.normalisation import Normalisation, PixelArray

#: Of the training pixels.
NORMALISATION = Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
SIDE, CLASSES = 32, 10
#: Bytes of an image and its label in the binary version.
RECORD = 1 + 3 * SIDE * SIDE
#: Largest array of an .npz, and largest binary batch, bytes.
MAX_BYTES = 2**28
#: Largest JPEG of 32x32 pixels, bytes.
MAX_JPEG = 2**16

Labelled = Tuple[PixelArray, npt.NDArray[np.int64]]


def load_cifar10(rest: str, request: DataRequest) -> Loaded:
    """Return the training and test images, 3x32x32, and the number of classes.

    Args:
        rest: a folder in one of the forms of `FORMS`, or one that holds such a folder under its official name.
        request: what the network wants.
    Raises: DataError when no form is found, or what is there is damaged.
    """
    normalisation = request.normalisation(NORMALISATION, 3)
    train, test = _images(Path(rest))
    return (
        PixelSplit(*train, normalisation, request.seed),
        PixelSplit(*test, normalisation),
        CLASSES,
    )


def _images(folder: Path) -> Tuple[Labelled, Labelled]:
    for name, sign, read in FORMS:
        for place in (folder, folder / name):
            if (place / sign).exists():
                return read(place)
    looked = ", ".join(str(Path(name) / sign) for name, sign, _ in FORMS)
    raise DataError(f"{folder} holds no CIFAR-10; looked for {looked}; check the path")


def _pickles(folder: Path) -> Tuple[Labelled, Labelled]:
    return _batches(folder, read_batch, "")


def _binaries(folder: Path) -> Tuple[Labelled, Labelled]:
    return _batches(folder, _binary, ".bin")


def _batches(
    folder: Path, read: Callable[[Path], Labelled], suffix: str
) -> Tuple[Labelled, Labelled]:
    train = [_checked(folder / f"data_batch_{number}{suffix}", read) for number in range(1, 6)]
    joined = np.concatenate([pixels for pixels, _ in train])
    labels = np.concatenate([found for _, found in train])
    return (joined, labels), _checked(folder / f"test_batch{suffix}", read)


def _checked(path: Path, read: Callable[[Path], Labelled]) -> Labelled:
    pixels, labels = read(path)
    return pixels, _labels(labels, len(pixels), path)


def _binary(path: Path) -> Labelled:
    """Read a batch of the binary version: a label and 3,072 pixels for each image."""
    try:
        size = path.stat().st_size
        if size % RECORD or size > MAX_BYTES:
            raise DataError(f"{path} has {size} bytes, not {RECORD} for each image; copy it again")
        records = np.fromfile(path, dtype=np.uint8).reshape(-1, RECORD)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; copy it again") from error
    return records[:, 1:].reshape(-1, 3, SIDE, SIDE), records[:, 0].astype(np.int64)


def _archives(folder: Path) -> Tuple[Labelled, Labelled]:
    return _archive(folder / "cifar10_train_jpeg.npz"), _archive(folder / "cifar10_test_jpeg.npz")


def _archive(path: Path) -> Labelled:
    """Decode an archive of `jpeg`, all files one after the other, `offsets`, where each begins, and `labels`."""
    if not path.is_file():
        raise DataError(f"no {path}; copy it beside the other part")
    found = read_npz(path, {"jpeg": "uint8", "offsets": "int64", "labels": "uint8"}, MAX_BYTES)
    raw, offsets = found["jpeg"].tobytes(), found["offsets"]
    sizes = np.diff(offsets)
    whole = len(offsets) and offsets[0] == 0 and offsets[-1] == len(raw)
    if not whole or sizes.min(initial=0) < 0 or sizes.max(initial=0) > MAX_JPEG:
        raise DataError(f"the offsets of {path} do not divide its images; copy it again")
    labels = _labels(found["labels"].astype(np.int64), len(sizes), path)
    pixels = decoded(
        len(sizes),
        lambda index: (f"image {index} of {path}", raw[offsets[index] : offsets[index + 1]]),
        (SIDE, SIDE),
    )
    return pixels, labels


def _folders(folder: Path) -> Tuple[Labelled, Labelled]:
    train, test, names = classes_of(folder, "train", "test")
    if len(names) != CLASSES:
        raise DataError(
            f"{folder / 'train'} has {len(names)} classes, CIFAR-10 {CLASSES}; other sets are imagefolder:"
        )
    return _decoded_files(train), _decoded_files(test)


def _decoded_files(files: List[Tuple[Path, int]]) -> Labelled:
    found = ImageFiles(files)
    return decoded(len(files), found.image, (SIDE, SIDE)), found.labels


def _labels(labels: npt.NDArray[np.int64], count: int, what: Path) -> npt.NDArray[np.int64]:
    """Return labels that belong to so many images.

    Raises: DataError when there are none, their number differs, or one is outside 0..9.
    """
    if not count or labels.shape != (count,):
        raise DataError(f"{what} holds {count} images and {labels.size} labels; copy it again")
    if labels.min() < 0 or labels.max() >= CLASSES:
        raise DataError(
            f"{what} holds labels {labels.min()}..{labels.max()}, not 0..9; copy it again"
        )
    return labels


#: Official name of the folder, what it is known by, what reads it.
FORMS: Tuple[Tuple[str, str, Callable[[Path], Tuple[Labelled, Labelled]]], ...] = (
    ("cifar-10-batches-py", "data_batch_1", _pickles),
    ("cifar-10-batches-bin", "data_batch_1.bin", _binaries),
    ("", "cifar10_train_jpeg.npz", _archives),
    ("", "train", _folders),
)
