"""What users' own data sets and damaged files can do wrong."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeecc.data.fashion_mnist import read_idx
from edgeecc.data.splits import DatasetSplit, TensorSplit
from edgeecc.errors import DataError
from edgeecc.training.scores import TopK


def test_sizes_that_overflow_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x04" + struct.pack(">4I", *[2**16] * 4)))
    with pytest.raises(DataError, match="promises 65536x65536x65536x65536 bytes and holds 0"):
        read_idx(path)


class Broken:
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> object:
        raise FileNotFoundError(2, "No such file", "cat.jpg")


def test_an_item_that_fails_is_named() -> None:
    with pytest.raises(DataError, match=r"image 2 of mine:f failed: FileNotFoundError.*cat.jpg"):
        DatasetSplit(Broken(), "mine:f").take([2])


@pytest.mark.parametrize("label", [-1, 10, 255])
def test_labels_out_of_range_are_told(label: int) -> None:
    TopK().check((10, 10), np.arange(10))
    with pytest.raises(DataError, match=rf"label {label}, the network tells 0..9"):
        TopK().check((2, 10), np.array([3, label]))


def test_tensors_do_not_depend_on_the_pass() -> None:
    split = TensorSplit(torch.arange(4.0).reshape(4, 1, 1, 1), torch.arange(4))
    assert torch.equal(split.take([1, 3], 0)[0], split.take([1, 3], 7)[0])
