"""CIFAR-10: the four forms hold the same images, the pickles are read without pickle, damage is told."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Callable, List, Tuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgeecc.data.cifar10 import NORMALISATION
from edgeecc.data.cifar_pickle import MAX_BYTES, read_batch
from edgeecc.data.npz import read_npz
from edgeecc.data.pixels import PAD, PixelSplit
from edgeecc.data.sources import load
from edgeecc.errors import DataError
from edgeecc.normalisation import Normalisation

SHARED = Path(__file__).parents[4] / "shared" / "data" / "cifar10"
CLASSES = ["plane", "car", "kite", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
COUNT = 4
Labelled = Tuple[np.ndarray, List[int]]


def text(value: str) -> bytes:
    return b"U" + bytes([len(value)]) + value.encode("latin-1")


def pickled(pixels: np.ndarray, labels: List[int], *, memo: bool = True) -> bytes:
    """Write a batch as Python 2's cPickle does, operation by operation."""
    puts = iter(range(1, 10**6))

    def put() -> bytes:
        number = next(puts)
        if not memo:
            return b""
        return b"q" + bytes([number]) if number < 256 else b"r" + struct.pack("<i", number)

    raw = pixels.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\n" + put() + b"cnumpy\nndarray\n" + put()
    array += b"K\0\x85" + put() + text("b") + put() + b"\x87" + put() + b"R" + put()
    array += b"(K\x01M" + struct.pack("<H", len(pixels)) + b"M" + struct.pack("<H", 3072)
    array += b"\x86" + put() + b"cnumpy\ndtype\n" + put() + text("u1") + put() + b"K\0K\x01\x87"
    array += (
        put() + b"R" + put() + b"(K\x03" + text("|") + put() + b"NNN" + 2 * b"J\xff\xff\xff\xff"
    )
    array += (
        b"K\0t"
        + put()
        + b"b\x89T"
        + struct.pack("<i", len(raw))
        + raw
        + put()
        + b"t"
        + put()
        + b"b"
    )
    numbers = b"]" + put() + b"(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    names = b"]" + put() + b"(" + b"".join(text(f"{n}.png") + put() for n in range(300)) + b"e"
    body = text("batch_label") + put() + text("training batch 1 of 5") + put()
    body += text("labels") + put() + numbers + text("data") + put() + array
    body += text("filenames") + put() + names
    return b"\x80\x02}" + put() + b"(" + body + b"u."


def batches() -> List[Labelled]:
    """Return six batches of different images; labels in order, as folders sort them."""
    generator = np.random.default_rng(4)
    pixels = generator.integers(0, 256, (6, COUNT, 3, 32, 32), dtype=np.uint8)
    labels = np.sort(generator.integers(0, 10, (6, COUNT)))
    return list(zip(pixels, labels.tolist()))


def write_pickles(root: Path) -> None:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name, (pixels, labels) in zip(part_names(), batches()):
        (folder / name).write_bytes(pickled(pixels, labels))


def write_binaries(root: Path) -> None:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for name, (pixels, labels) in zip(part_names(), batches()):
        records = [bytes([label]) + image.tobytes() for image, label in zip(pixels, labels)]
        (folder / f"{name}.bin").write_bytes(b"".join(records))


def write_archives(root: Path) -> None:
    parts = batches()
    for name, chosen in (("train", parts[:5]), ("test", parts[5:])):
        files = [png(image) for pixels, _ in chosen for image in pixels]
        write_archive(
            root / f"cifar10_{name}_jpeg.npz",
            files,
            [label for _, labels in chosen for label in labels],
        )


def write_archive(path: Path, files: List[bytes], numbers: List[int], **other: np.ndarray) -> None:
    arrays = {
        "jpeg": np.frombuffer(b"".join(files), dtype=np.uint8),
        "offsets": np.cumsum([0, *map(len, files)]),
        "labels": np.array(numbers, dtype=np.uint8),
    }
    np.savez_compressed(path, **{**arrays, **other})


def write_folders(root: Path) -> None:
    parts = batches()
    for part, chosen in (("train", parts[:5]), ("test", parts[5:])):
        for number, name in enumerate(CLASSES):
            (root / part / f"{number}-{name}").mkdir(parents=True)
        for batch, (pixels, labels) in enumerate(chosen):
            for place, (image, label) in enumerate(zip(pixels, labels)):
                path = root / part / f"{label}-{CLASSES[label]}" / f"{batch}-{place}.png"
                path.write_bytes(png(image))


def part_names() -> List[str]:
    return [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("write", [write_pickles, write_binaries, write_archives, write_folders])
def test_every_form_holds_the_same_images(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path)
    data = load(f"cifar10:{tmp_path}", input_shape=(3, 32, 32))
    assert (len(data.train), len(data.val), data.classes) == (5 * COUNT, COUNT, 10)
    pixels, labels = batches()[5]
    mean, deviation = (
        np.array(v)[:, None, None] for v in (NORMALISATION.mean, NORMALISATION.deviation)
    )
    images, found = data.val.take(range(COUNT))
    np.testing.assert_allclose(images.numpy(), (pixels / 255.0 - mean) / deviation, atol=1e-5)
    assert found.tolist() == labels
    known = sorted(label for _, batch in batches()[:5] for label in batch)
    assert sorted(data.train.take(range(5 * COUNT))[1].tolist()) == known


@pytest.mark.parametrize("write", [write_pickles, write_binaries])
def test_the_official_folder_may_be_named_itself(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path)
    inner = next(tmp_path.iterdir())
    assert len(load(f"cifar10:{inner}", input_shape=(3, 32, 32)).val) == COUNT


def test_a_folder_without_cifar10_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"looked for .*data_batch_1, .*\.bin, .*\.npz, train; check"
    ):
        load(f"cifar10:{tmp_path}", input_shape=(3, 32, 32))
    write_archives(tmp_path)
    (tmp_path / "cifar10_test_jpeg.npz").unlink()
    with pytest.raises(DataError, match=r"no .*test_jpeg.npz; copy it"):
        load(f"cifar10:{tmp_path}", input_shape=(3, 32, 32))


def test_other_folders_are_refused(tmp_path: Path) -> None:
    write_folders(tmp_path)
    odd = tmp_path / "test" / "3-cat" / "odd.png"
    odd.write_bytes(png(np.zeros((3, 32, 40), dtype=np.uint8)))
    with pytest.raises(DataError, match=r"cannot decode .*odd.png: it is 32x40, not 32x32"):
        load(f"cifar10:{tmp_path}", input_shape=(3, 32, 32))
    odd.unlink()
    (tmp_path / "train" / "extra").mkdir()
    with pytest.raises(DataError, match="has 11 classes, CIFAR-10 10"):
        load(f"cifar10:{tmp_path}", input_shape=(3, 32, 32))


BLANK = pickled(np.zeros((2, 3, 32, 32), dtype=np.uint8), [1, 2])


def test_memo_and_long_memo_make_no_difference(tmp_path: Path) -> None:
    pixels, labels = batches()[0]
    for memo in (True, False):
        (tmp_path / "b").write_bytes(pickled(pixels, labels, memo=memo))
        found = read_batch(tmp_path / "b")
        np.testing.assert_array_equal(found[0], pixels)
        assert found[1].tolist() == labels


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x80\x02cos\nsystem\n.", "it asks for 'os system'"),
        (b"\x80\x02" + b"c" + b"x" * 999 + b"\ny\n.", "it asks for 'xxx"),
        (b"\x80\x02cnumpy\ndtype\nU\x02f8K\0K\x01\x87R.", "calls something"),
        (b"\x80\x02cnumpy\nndarray\nK\x05\x85R.", "calls something"),
        (b"\x80\x02}K\x01R.", "calls something"),
        (b"\x80\x03X\x01\0\0\0a.", "operation BINUNICODE"),
        (b"\x80\x02I5\n.", "operation INT"),
        (b"\x80\x02F" + b"x" * 999 + b"\n.", "could not convert string to float"),
        (b"\x80\x02}(K\x01K\x02u.", "keys that are no strings"),
        (b"\x80\x02}(U\x01au.", "keys that are no strings"),
        (b"\x80\x02(K\x01K\x02e.", "."),
        (b"\x80\x02K\x01(K\x02e.", "int in place of list"),
        (b"\x80\x02e.", "a sequence has no beginning"),
        (b"\x80\x02\x85.", "values that are not there"),
        (b"\x80\x02h\x07.", "."),
        (b"\x80\x02}.", "holds no images"),
        (b"\x80\x02].", "holds no images"),
        (b"", "."),
        (BLANK.replace(b"T\0\x18\0\0", b"T\xff\xff\xff\x7f"), "."),
        (BLANK.replace(b"M\x02\0M", b"M\x03\0M"), "3 images in 6144 bytes"),
        (BLANK.replace(b"M\x02\0M\0\x0c", b"M\x02\0M\0\x0d"), "not images x 3072"),
        (BLANK.replace(b"\x89T", b"NT"), "another kind"),
        (BLANK.replace(b"U\x01|", b"U\x01<"), "other than bytes"),
        (BLANK.replace(b"U\x06labels", b"U\x06label_"), "holds no labels"),
        (BLANK.replace(b"K\x01K\x02e", b"K\x01Ne"), "holds no labels"),
        (BLANK.replace(b"\x89T\0\x18\0\0", b"\x89N" + b"T\0\x18\0\0"), "without shape and bytes"),
    ],
)  # fmt: skip
def test_pickles_that_hold_anything_else_are_refused(
    tmp_path: Path, raw: bytes, message: str
) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(raw)
    with pytest.raises(DataError, match="no CIFAR-10 batch.*" + message) as caught:
        read_batch(path)
    assert len(str(caught.value)) < 300 + len(str(path))


def test_a_deep_pickle_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "b"
    path.write_bytes(b"\x80\x02" + b"]" + b"\x85" * 200_000 + b"\x85" + b"K\x01\x86" + b"R.")
    with pytest.raises(DataError, match="no CIFAR-10 batch"):
        read_batch(path)


@given(st.data())
def test_damaged_pickles_never_escape(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    raw = bytearray(BLANK)
    places = [*range(150), *range(len(raw) - 150, len(raw))]
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.sampled_from(places))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del raw[data.draw(st.sampled_from(places)) :]
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(bytes(raw))
    try:
        pixels, labels = read_batch(path)
    except DataError:
        return
    assert pixels.shape[1:] == (3, 32, 32)
    assert labels.dtype == np.int64


def test_batches_that_are_absent_or_too_large_are_told(tmp_path: Path) -> None:
    write_pickles(tmp_path)
    last = tmp_path / "cifar-10-batches-py" / "data_batch_5"
    with last.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    with pytest.raises(DataError, match=r"data_batch_5 has 67108865 bytes"):
        load(f"cifar10:{tmp_path}", input_shape=(3, 32, 32))
    last.unlink()
    with pytest.raises(DataError, match=r"cannot read .*data_batch_5"):
        load(f"cifar10:{tmp_path}", input_shape=(3, 32, 32))
    last.write_bytes(pickled(np.zeros((2, 3, 32, 32), dtype=np.uint8), [1, 11]))
    with pytest.raises(DataError, match=r"labels 1..11, not 0..9"):
        load(f"cifar10:{tmp_path}", input_shape=(3, 32, 32))
    last.write_bytes(pickled(np.zeros((2, 3, 32, 32), dtype=np.uint8), [1]))
    with pytest.raises(DataError, match="2 images and 1 labels"):
        load(f"cifar10:{tmp_path}", input_shape=(3, 32, 32))


def test_damaged_binary_batches_are_told(tmp_path: Path) -> None:
    write_binaries(tmp_path)
    last = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    last.write_bytes(bytes(3072))
    with pytest.raises(DataError, match="3072 bytes, not 3073 for each image"):
        load(f"cifar10:{tmp_path}", input_shape=(3, 32, 32))
    last.unlink()
    with pytest.raises(DataError, match="cannot read"):
        load(f"cifar10:{tmp_path}", input_shape=(3, 32, 32))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"offsets": np.array([0, 5, 3])}, "do not divide"),
        ({"offsets": np.array([0, 0, 10**9])}, "do not divide"),
        ({"offsets": np.zeros(0, dtype=np.int64)}, "do not divide"),
        ({"offsets": np.array([0.0, 1.0])}, "is damaged: offsets is float64"),
        ({"labels": np.zeros((2, 1), dtype=np.uint8)}, "is damaged: labels is uint8"),
        ({"labels": np.array([1], dtype=np.uint8)}, "2 images and 1 labels"),
        ({"labels": np.array([1, 10], dtype=np.uint8)}, "labels 1..10"),
        ({"labels": np.array([{}], dtype=object)}, "is damaged: labels is object"),
    ],
)
def test_damaged_archives_are_told(tmp_path: Path, arrays: dict, message: str) -> None:
    for part in ("train", "test"):
        files = [png(np.zeros((3, 32, 32), dtype=np.uint8))] * 2
        write_archive(tmp_path / f"cifar10_{part}_jpeg.npz", files, [1, 2], **arrays)
    with pytest.raises(DataError, match=message):
        load(f"cifar10:{tmp_path}", input_shape=(3, 32, 32))


def test_archives_that_are_none_or_lie_are_told(tmp_path: Path) -> None:
    path = tmp_path / "cifar10_train_jpeg.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="is damaged"):
        load(f"cifar10:{tmp_path}", input_shape=(3, 32, 32))
    headers = {
        "promises 8 bytes and holds less": npy_header("(8,)"),
        "promises 2 bytes and holds more": npy_header("(2,)") + b"123",
        "at most": npy_header("(99999999999,)"),
        "version|format": b"\x93NUMPY\x09\x00",
    }
    for message, raw in headers.items():
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("jpeg.npy", raw)
        with pytest.raises(DataError, match=message):
            load(f"cifar10:{tmp_path}", input_shape=(3, 32, 32))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("jpeg.npy", npy_header("(0,)"))
    with pytest.raises(DataError, match="jpeg is packed in another way"):
        load(f"cifar10:{tmp_path}", input_shape=(3, 32, 32))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.npy", b"")
    with pytest.raises(DataError, match=r"lacks an array: .*jpeg.npy"):
        load(f"cifar10:{tmp_path}", input_shape=(3, 32, 32))


@given(st.data())
def test_damaged_archives_never_escape(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    write_archive(path, [b"one", b"two"], [1, 2])
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(raw[: data.draw(st.none() | st.integers(0, len(raw)))]))
    try:
        found = read_npz(path, {"jpeg": "uint8", "offsets": "int64"}, 100)
    except DataError:
        return
    assert found["offsets"].dtype == np.int64


def npy_header(shape: str) -> bytes:
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    head += " " * (63 - (len(head) + 10) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode()


def plain(count: int, seed: int) -> PixelSplit:
    pixels = np.random.default_rng(2).integers(1, 256, (count, 3, 6, 5), dtype=np.uint8)
    return PixelSplit(pixels, np.arange(count), Normalisation((0.0,) * 3, (1 / 255,) * 3), seed)


@given(st.integers(0, 3), st.integers(0, 5))
def test_a_training_image_is_a_shift_of_itself_black_beyond(seed: int, turn: int) -> None:
    split = plain(2, seed)
    whole = np.random.default_rng(2).integers(1, 256, (2, 3, 6, 5), dtype=np.uint8)
    images = split.take([0, 1], turn)[0].round().numpy()
    for image, original in zip(images, whole):
        wide = np.zeros((3, 6 + 2 * PAD, 5 + 2 * PAD))
        wide[:, PAD:-PAD, PAD:-PAD] = original
        shifts = [
            wide[:, y : y + 6, x : x + 5] for y in range(2 * PAD + 1) for x in range(2 * PAD + 1)
        ]
        assert any(
            np.array_equal(image, shift) or np.array_equal(image, shift[:, :, ::-1])
            for shift in shifts
        )


def test_augmentation_follows_seed_image_and_pass_alone() -> None:
    split = plain(40, 1)
    together = split.take(range(40), 3)[0]
    assert torch.equal(together[7], split.take([7], 3)[0][0])
    assert not torch.equal(together, split.take(range(40), 4)[0])
    assert not torch.equal(together, plain(40, 2).take(range(40), 3)[0])
    still = PixelSplit(np.ones((2, 3, 4, 4), np.uint8), np.arange(2), NORMALISATION)
    assert torch.equal(still.take([0], 0)[0], still.take([0], 1)[0])


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data/cifar10 beside the repository")
def test_real_images_decode_as_pillow_decodes_them(tmp_path: Path) -> None:
    with np.load(SHARED / "cifar10_test_jpeg.npz") as real:
        raw, offsets, labels = real["jpeg"].tobytes(), real["offsets"], real["labels"]
    files = [raw[offsets[index] : offsets[index + 1]] for index in range(300)]
    for part in ("train", "test"):
        write_archive(tmp_path / f"cifar10_{part}_jpeg.npz", files, labels[:300].tolist())
    identity = Normalisation((0.0,) * 3, (1 / 255,) * 3)
    data = load(f"cifar10:{tmp_path}", input_shape=(3, 32, 32), normalisation=identity)
    images, found = data.val.take(range(300))
    assert found.tolist() == labels[:300].tolist()
    for image, file in zip(images.round().byte().numpy(), files):
        np.testing.assert_array_equal(image.transpose(1, 2, 0), Image.open(io.BytesIO(file)))
