"""CamVid as SegNet's authors pass it on: 367 scenes for training, 101 for validation, 233 for testing, 11 classes."""

from __future__ import annotations

from pathlib import Path
from typing import List

from edgeecc.config import IGNORE_LABEL
from edgeecc.data.imagefolder import images_in
from edgeecc.data.request import DataRequest, Loaded
from edgeecc.data.segmentation import Pair, SegmentationSplit, mask_table
from edgeecc.errors import DataError

CLASSES = 11
#: Masks hold the classes 0..10, and 11 where there is none of them.
TABLE = mask_table({**{label: label for label in range(CLASSES)}, CLASSES: IGNORE_LABEL})


def load_camvid(rest: str, request: DataRequest) -> Loaded:
    """Return the scenes of train/ and val/ in the folder `rest`, and the number of classes.

    Raises: DataError when there are none, or one has no mask.
    """
    return _load(Path(rest), "val", request)


def load_camvid_test(rest: str, request: DataRequest) -> Loaded:
    """Return the scenes of train/ and test/: for the figure to report, never to choose by.

    Raises: as `load_camvid`.
    """
    return _load(Path(rest), "test", request)


def _load(folder: Path, held: str, request: DataRequest) -> Loaded:
    train, val = _pairs(folder, "train"), _pairs(folder, held)
    return (
        SegmentationSplit(train, TABLE, request, augment=True),
        SegmentationSplit(val, TABLE, request, augment=False),
        CLASSES,
    )


def _pairs(folder: Path, part: str) -> List[Pair]:
    masks = {path.stem: path for path in images_in(folder / f"{part}annot")}
    pairs = []
    for image in images_in(folder / part):
        if image.stem not in masks:
            raise DataError(
                f"{image} has no mask {folder / f'{part}annot' / image.stem}.png; copy it there"
            )
        pairs.append(Pair(image, masks[image.stem]))
    if not pairs:
        raise DataError(f"{folder} holds no scenes in {part}/ and {part}annot/; check the path")
    return pairs
