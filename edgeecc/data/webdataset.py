"""Tar shards of images in WebDataset's convention: a folder of them, or patterns such as train-{000..099}.tar."""

from __future__ import annotations

import re
from pathlib import Path
from typing import List, Tuple

from edgeecc.data.encoded import EncodedSplit
from edgeecc.data.request import DataRequest, Loaded
from edgeecc.data.shards import ShardImages
from edgeecc.errors import DataError

#: Most shards that a pattern may stand for.
MAX_SHARDS = 100_000
RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")


def load_webdataset(rest: str, request: DataRequest) -> Loaded:
    """Return the samples of the training and validation shards, and the number of classes.

    Args:
        rest: a folder with train-*.tar and val-*.tar, or two patterns with a comma between, for training and
            validation; a pattern may hold ranges {000..099}.
        request: what the network wants.
    Raises: DataError when there are no shards or one is damaged, see `ShardImages`.
    """
    request.image_shape("a set of shards")
    train, val = (ShardImages(shards) for shards in _shards(rest))
    return (
        EncodedSplit(train, request, augment=True),
        EncodedSplit(val, request, augment=False),
        int(max(train.labels.max(), val.labels.max())) + 1,
    )


def _shards(rest: str) -> Tuple[List[Path], List[Path]]:
    folder = Path(rest)
    if folder.is_dir():
        train, val = (sorted(folder.glob(f"{part}-*.tar")) for part in ("train", "val"))
        if not train or not val:
            raise DataError(f"{folder} holds no train-*.tar and val-*.tar; check the path")
        return train, val
    patterns = rest.split(",")
    if len(patterns) != 2:
        raise DataError(
            f"{rest} is no folder; give one, or training and validation shards: TRAIN-{{000..009}}.tar,VAL-{{0..1}}.tar"
        )
    return _expanded(patterns[0]), _expanded(patterns[1])


def _expanded(pattern: str) -> List[Path]:
    """Return the shards of a pattern; a range counts with leading zeros where its first number has them.

    Raises: DataError when a range counts down or there are too many shards.
    """
    names = [pattern]
    for found in RANGE.finditer(pattern):
        first, last = found.groups()
        count = int(last) - int(first) + 1
        if count < 1 or count * len(names) > MAX_SHARDS:
            raise DataError(
                f"{pattern} stands for {max(0, count) * len(names)} shards; give 1 to {MAX_SHARDS}"
            )
        numbers = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
        names = [name.replace(found.group(), number, 1) for name in names for number in numbers]
    return [Path(name) for name in names]
