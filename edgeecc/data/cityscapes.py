"""Cityscapes in its official layout, with the 19 classes that are evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import List, Tuple

from edgeecc.config import IGNORE_LABEL
from edgeecc.data.request import DataRequest, Loaded
from edgeecc.data.segmentation import IntArray, Pair, SegmentationSplit, mask_table
from edgeecc.errors import DataError

#: Label ids of the classes, in the order of their train ids (Cityscapes' `labels.py`): road, sidewalk, building, wall,
#: fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person, rider, car, truck, bus, train,
#: motorcycle, bicycle.
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
IMAGE = "_leftImg8bit.png"
#: Ends of a mask's name and what its values mean, the first that all scenes of a part have. License plates have label
#: id -1, which a byte holds as 255; no other id lies beyond the table.
MASKS: Tuple[Tuple[str, IntArray], ...] = (
    (
        "_gtFine_labelTrainIds.png",
        mask_table({label: label for label in (*range(len(LABEL_IDS)), IGNORE_LABEL)}),
    ),
    (
        "_gtFine_labelIds.png",
        mask_table({value: label for label, value in enumerate(LABEL_IDS)}, IGNORE_LABEL),
    ),
)


def load_cityscapes(rest: str, request: DataRequest) -> Loaded:
    """Return the scenes of train/ and val/ in the folder `rest`, and the number of classes.

    Raises: DataError when there are none, or one has no mask.
    """
    folder = Path(rest)
    return (
        SegmentationSplit(*_pairs(folder, "train"), request, augment=True),
        SegmentationSplit(*_pairs(folder, "val"), request, augment=False),
        len(LABEL_IDS),
    )


def _pairs(folder: Path, part: str) -> Tuple[List[Pair], IntArray]:
    images = sorted((folder / "leftImg8bit" / part).glob(f"*/*{IMAGE}"))
    if not images:
        raise DataError(f"no scenes {folder}/leftImg8bit/{part}/CITY/*{IMAGE}; check the path")
    for end, table in MASKS:
        pairs = [
            Pair(
                image,
                folder / "gtFine" / part / image.parent.name / (image.name[: -len(IMAGE)] + end),
            )
            for image in images
        ]
        absent = [pair for pair in pairs if not pair.mask.is_file()]
        if not absent:
            return pairs, table
    raise DataError(f"{absent[0].image} has no mask {absent[0].mask}; unpack gtFine there")
