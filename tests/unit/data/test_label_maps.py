"""Users' own data sets with a label a pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from edgeecc.data.sources import load
from edgeecc.data.splits import DatasetSplit
from edgeecc.errors import DataError

IMAGE = torch.zeros(3, 2, 4)
MAP = [[0, 1, 2, 255], [0, 0, 0, 0]]
MADE: dict = {}


def own() -> object:
    return MADE["sets"]


@pytest.mark.parametrize(
    "label",
    [
        torch.tensor(MAP),
        torch.tensor([MAP], dtype=torch.uint8),
        np.array(MAP, dtype=np.uint16),
        np.array(MAP, dtype=np.float64),
        Image.fromarray(np.array(MAP, dtype=np.uint8)),
        MAP,
    ],
    ids=["tensor", "channel", "array", "whole floats", "image", "lists"],
)
def test_maps_of_any_kind_become_int64(label: object) -> None:
    images, labels = DatasetSplit([(IMAGE, label)] * 2, "mine").take([0, 1])
    assert (images.shape, labels.shape, labels.dtype) == ((2, 3, 2, 4), (2, 2, 4), torch.int64)
    assert labels[1].tolist() == MAP


@pytest.mark.parametrize("label", [3, np.int32(3), 3.0, torch.tensor(3), torch.tensor([3]), [3]])
def test_numbers_of_any_kind_become_int64(label: object) -> None:
    labels = DatasetSplit([(IMAGE, label)], "mine").take([0])[1]
    assert (labels.tolist(), labels.dtype) == ([3], torch.int64)


@pytest.mark.parametrize(
    "label",
    [3.5, float("nan"), "cat", None, [1, 2], np.zeros((3, 2, 4)), np.full((2, 4), 0.5), {"label": 1}],
)  # fmt: skip
def test_what_is_no_label_is_told(label: object) -> None:
    with pytest.raises(DataError, match=r"mine must give \(image, label\) pairs"):
        DatasetSplit([(IMAGE, label)], "mine").take([0])


def test_labels_of_two_kinds_in_a_batch_are_told() -> None:
    with pytest.raises(DataError, match="of one shape"):
        DatasetSplit([(IMAGE, 1), (IMAGE, MAP)], "mine").take([0, 1])


def test_the_task_is_told_by_the_labels() -> None:
    maps, numbers = [(IMAGE, MAP)], [(IMAGE, 1)]
    for sets, task in (((maps, maps), "segmentation"), ((numbers, numbers), "classification")):
        MADE["sets"] = sets
        assert load(f"{__name__}:own", input_shape=(3, 2, 4)).task == task
    MADE["sets"] = (numbers, maps)
    with pytest.raises(DataError, match="one split of .* has a label an image"):
        load(f"{__name__}:own", input_shape=(3, 2, 4))
