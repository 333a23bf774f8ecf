"""Training images that are held apart to be scored are as validation images are; all others are augmented."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, List, Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from edgeecc.data.encoded import EncodedSplit
from edgeecc.data.imagefolder import ImageFiles
from edgeecc.data.pixels import PixelSplit
from edgeecc.data.request import DataRequest
from edgeecc.data.segmentation import Pair, SegmentationSplit, mask_table
from edgeecc.data.splits import Batch, Split, held_apart, in_order
from edgeecc.normalisation import Normalisation

COUNT = 12
REQUEST = DataRequest((3, 16, 16), 5)


def pictures(folder: Path) -> List[Path]:
    """Write images of noise, each with a mask of its red halves beside it."""
    chance = np.random.default_rng(0)
    paths = [folder / f"{index}.png" for index in range(COUNT)]
    for path in paths:
        pixels = chance.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        Image.fromarray(pixels[..., 0] // 128).save(path.with_suffix(".mask.png"))
    return paths


def in_memory(folder: Path, augment: bool) -> Split:
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 3, 16, 16), dtype=np.uint8)
    plain = Normalisation((0.0,) * 3, (1.0,) * 3)
    return PixelSplit(pixels, np.arange(COUNT), plain, 5 if augment else None)


def files(folder: Path, augment: bool) -> Split:
    labelled = [(path, index) for index, path in enumerate(pictures(folder))]
    return EncodedSplit(ImageFiles(labelled), REQUEST, augment=augment)


def scenes(folder: Path, augment: bool) -> Split:
    pairs = [Pair(path, path.with_suffix(".mask.png")) for path in pictures(folder)]
    return SegmentationSplit(pairs, mask_table({0: 0, 1: 1}), REQUEST, augment=augment)


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other))


@pytest.mark.parametrize("kind", [in_memory, files, scenes])
def test_scored_images_are_as_in_validation(
    tmp_path: Path, kind: Callable[[Path, bool], Split]
) -> None:
    trained, still = kind(tmp_path, True), kind(tmp_path, False)
    rest, kept = held_apart(trained, 4, seed=1)
    rest_still, kept_still = held_apart(still, 4, seed=1)
    for turn in (0, 3):
        assert same(kept.take(range(4), turn), kept_still.take(range(4)))
        assert not same(rest.take(range(8), turn), rest_still.take(range(8)))
    assert not same(rest.take(range(8), 0), rest.take(range(8), 1))
    (scored,) = in_order(kept, 4)
    assert same(scored, kept_still.take(range(4)))


def test_what_is_held_apart_twice_is_still_as_in_validation() -> None:
    turns: List[int] = []

    class Watched:
        def __len__(self) -> int:
            return COUNT

        def take(self, indices: Sequence[int], turn: int = 0) -> Batch:
            turns.append(turn)
            return torch.zeros(len(indices), 1, 1, 1), torch.zeros(len(indices), dtype=torch.int64)

    rest, judged = held_apart(Watched(), 3, seed=0)
    train, chosen = held_apart(rest, 3, seed=0)
    for part in (judged, chosen, train):
        part.take([0], 7)
    assert turns == [-1, -1, 7]
