"""Data sets: what they hold, that batches repeat, and what damaged ones say."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgeecc.data.fashion_mnist import DEFAULT_FOLDER, read_idx
from edgeecc.data.sources import DataBundle, load
from edgeecc.data.splits import Batches, DatasetSplit, TensorSplit
from edgeecc.errors import ConfigError, DataError
from edgeecc.networks.table import NETWORKS, build, infer
from edgeecc.plugins import lookup, resolve
from edgeecc.training.classification import CLASSIFICATION, Classification
from edgeecc.training.distill import distillation_loss


def split(count: int) -> TensorSplit:
    return TensorSplit(torch.arange(count).float().reshape(count, 1, 1, 1), torch.arange(count))


@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 5))
def test_a_pass_shows_every_image_at_most_once_and_repeats(
    count: int, size: int, seed: int
) -> None:
    batches = Batches(split(count), size, seed)
    per_pass = count // min(size, count)
    shown = torch.cat([batches.batch(step)[1] for step in range(per_pass)])
    assert len(set(shown.tolist())) == len(shown)
    again = Batches(split(count), size, seed)
    for step in reversed(range(2 * per_pass)):
        assert torch.equal(batches.batch(step)[1], again.batch(step)[1])


def test_passes_differ_and_seeds_differ() -> None:
    batches = Batches(split(100), 100, 0)
    assert not torch.equal(batches.batch(0)[1], batches.batch(1)[1])
    assert not torch.equal(batches.batch(0)[1], Batches(split(100), 100, 1).batch(0)[1])


def test_digits_are_split_evenly_and_whole() -> None:
    data = load("digits", input_shape=(1, 8, 8))
    assert len(data.train) + len(data.val) == 1797
    counts = torch.bincount(data.val.take(range(len(data.val)))[1])
    assert int(counts.min()) >= 34
    images, labels = data.train.take([0, 1])
    assert (images.shape, images.dtype, labels.dtype) == ((2, 1, 8, 8), torch.float32, torch.int64)


def write_idx(path: Path, array: np.ndarray, magic: bytes = b"\0\0\x08") -> None:
    head = magic + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


def test_idx_files_read_back_and_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    array = np.random.default_rng(0).integers(0, 256, (3, 4, 5))
    write_idx(path, array)
    np.testing.assert_array_equal(read_idx(path), array)
    write_idx(path, array, magic=b"\0\0\x0d")
    with pytest.raises(DataError, match="no IDX file"):
        read_idx(path)
    path.write_bytes(gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", 10**9) + b"x"))
    with pytest.raises(DataError, match="promises"):
        read_idx(path)
    write_idx(path, array)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="damaged"):
        read_idx(path)
    path.write_bytes(b"plain")
    with pytest.raises(DataError, match="damaged"):
        read_idx(path)
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist"):
        read_idx(tmp_path / "absent.gz")


def test_a_small_fashion_mnist(tmp_path: Path) -> None:
    for part, count in (("train", 6), ("t10k", 4)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", np.zeros((count, 28, 28)))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", np.arange(count))
    data = load(f"fashion-mnist:{tmp_path}", input_shape=(1, 28, 28))
    assert (len(data.train), len(data.val)) == (6, 4)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.arange(5))
    with pytest.raises(DataError, match="do not belong together"):
        load(f"fashion-mnist:{tmp_path}", input_shape=(1, 28, 28))


@pytest.mark.skipif(
    not DEFAULT_FOLDER.is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_the_real_fashion_mnist() -> None:
    data = load("fashion-mnist", input_shape=(1, 28, 28))
    assert (len(data.train), len(data.val)) == (60_000, 10_000)
    images, labels = data.train.take(range(60_000))
    assert torch.bincount(labels).tolist() == [6000] * 10
    assert float(images.mean()) == pytest.approx(0.0, abs=1e-3)
    assert float(images.std()) == pytest.approx(1.0, abs=1e-3)


def folder_of_images(root: Path) -> Path:
    generator = np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 2)):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (40, 60, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{index}.png")
    return root


def test_a_folder_of_images(tmp_path: Path) -> None:
    data = load(f"imagefolder:{folder_of_images(tmp_path)}", input_shape=(3, 32, 32))
    assert (len(data.train), len(data.val), data.classes) == (6, 4, 2)
    images, labels = data.val.take([0, 3])
    assert images.shape == (2, 3, 32, 32)
    assert labels.tolist() == [0, 1]
    assert torch.equal(data.train.take([1])[0], data.train.take([1])[0])
    grey = load(f"imagefolder:{tmp_path}", input_shape=(1, 16, 24))
    assert grey.val.take([0])[0].shape == (1, 1, 16, 24)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    folder_of_images(tmp_path)
    (tmp_path / "val" / "cat" / "0.png").write_bytes(b"no image")
    data = load(f"imagefolder:{tmp_path}", input_shape=(3, 32, 32))
    with pytest.raises(DataError, match=r"cannot decode .*0\.png.*; take it out"):
        data.val.take([0])


def test_folders_of_another_layout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        load(f"imagefolder:{tmp_path}", input_shape=(3, 8, 8))
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no images"):
        load(f"imagefolder:{tmp_path}", input_shape=(3, 8, 8))
    with pytest.raises(DataError, match="1- or 3-channel"):
        load(f"imagefolder:{tmp_path}", input_shape=(4, 8, 8))


class Pairs:
    def __init__(self, items: list) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> object:
        return self.items[index]


def test_own_datasets_are_checked() -> None:
    images, labels = DatasetSplit(
        Pairs([(torch.zeros(1, 2, 2), 3), (np.ones((1, 2, 2)), 1)]), "mine"
    ).take([0, 1])
    assert images.shape == (2, 1, 2, 2)
    assert labels.tolist() == [3, 1]
    for wrong in ([1, 2], [(torch.zeros(1), "cat")], [(torch.zeros(1), 0), (torch.zeros(2), 0)]):
        with pytest.raises(DataError, match="must give"):
            DatasetSplit(Pairs(wrong), "mine").take(range(len(wrong)))
    with pytest.raises(DataError, match="is empty"):
        DatasetSplit(Pairs([]), "mine")
    with pytest.raises(DataError, match="map-style"):
        DatasetSplit(iter([]), "mine")
    with pytest.raises(DataError, match="make no data set"):
        TensorSplit(torch.zeros(2, 1), torch.zeros(3))


def test_data_and_network_must_fit() -> None:
    data = load("digits", input_shape=(1, 8, 8))
    task = Classification(data.classes)
    data.check_fits(build("digits_mobilenet", width=0.05), (torch.zeros(1, 1, 8, 8),), task)
    with pytest.raises(DataError, match="images of digits are 1x8x8, the network takes 3x8x8"):
        data.check_fits(build("digits_mobilenet"), (torch.zeros(1, 3, 8, 8),), task)
    with pytest.raises(DataError, match="has 10 classes, the network 3"):
        data.check_fits(
            build("digits_mobilenet", width=0.05, classes=3), (torch.zeros(1, 1, 8, 8),), task
        )
    with pytest.raises(DataError, match="does not return logits"):
        data.check_fits(torch.nn.Identity(), (torch.zeros(1, 1, 8, 8),), task)
    assert isinstance(data, DataBundle)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_networks_are_told_by_their_weights(name: str) -> None:
    with torch.device("meta"):
        state = build(name).state_dict()
    assert infer(state)[0] == name
    assert infer({**state, "extra": torch.zeros(1)}) is None


@pytest.mark.parametrize(("width", "classes"), [(0.25, 10), (0.5, 1001), (1.0, 7), (1.4, 1000)])
def test_width_and_classes_are_inferred(width: float, classes: int) -> None:
    with torch.device("meta"):
        state = build("mobilenet_v1", width=width, classes=classes).state_dict()
    name, options = infer(state)
    assert name == "mobilenet_v1"
    assert options["classes"] == classes
    assert options["width"] == pytest.approx(width, abs=0.02)


def test_builders_refuse_what_they_do_not_take() -> None:
    for call in (
        lambda: build("nothing"),
        lambda: build("lenet5", depth=3),
        lambda: build("mobilenet_v1", width=-1.0),
    ):
        with pytest.raises(ConfigError):
            call()


def test_references_and_tables() -> None:
    assert resolve("math:pi") > 3
    for wrong in ("math", "math:", ":pi", "math:nothing", "no_such_module_here:x"):
        with pytest.raises(ConfigError):
            resolve(wrong)
    assert lookup({"pi": "math:pi"}, "pi", kind="number") > 3
    with pytest.raises(ConfigError, match="unknown number 'e'; known are pi"):
        lookup({"pi": "math:pi"}, "e", kind="number")


def test_distillation_is_the_mean_square_and_cross_entropy() -> None:
    logits, teacher, labels = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    square = float(((logits - teacher) ** 2).sum() / 12)
    chosen = -torch.log_softmax(logits, 1)[range(4), labels].mean()
    assert float(distillation_loss(CLASSIFICATION, logits, teacher, labels, 0.25)) == pytest.approx(
        0.25 * square + 0.75 * float(chosen), rel=1e-5
    )
    assert float(distillation_loss(CLASSIFICATION, logits, teacher, labels, 1.0)) == pytest.approx(
        square, rel=1e-5
    )
    assert float(distillation_loss(CLASSIFICATION, logits, teacher, labels, 0.0)) == pytest.approx(
        float(chosen), rel=1e-5
    )
