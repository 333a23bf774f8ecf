"""Folders of images: augmentation, decompression bombs, damaged files."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgeecc.data.encoded import EncodedSplit
from edgeecc.data.imagefolder import ImageFiles
from edgeecc.data.images import MAX_PIXELS, PIXELS_A_BYTE
from edgeecc.data.request import DataRequest
from edgeecc.data.sources import load
from edgeecc.data.splits import Batches
from edgeecc.errors import DataError


def folder(path: Path, *, augment: bool) -> EncodedSplit:
    return EncodedSplit(ImageFiles([(path, 1)]), DataRequest((3, 16, 16), 5), augment=augment)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "p.png"
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_each_pass_augments_anew_and_repeats(picture: Path) -> None:
    images = folder(picture, augment=True)
    passes = [images.take([0], turn)[0] for turn in range(6)]
    assert len({image.numpy().tobytes() for image in passes}) == 6
    again = folder(picture, augment=True)
    assert all(torch.equal(again.take([0], turn)[0], passes[turn]) for turn in (4, 0, 2))


def test_validation_images_never_change(picture: Path) -> None:
    images = folder(picture, augment=False)
    assert torch.equal(images.take([0], 0)[0], images.take([0], 1)[0])
    assert images.take([0])[1].tolist() == [1]


def test_batches_hand_on_the_pass(picture: Path) -> None:
    batches = Batches(folder(picture, augment=True), 1, 0)
    assert not torch.equal(batches.batch(0)[0], batches.batch(1)[0])
    assert torch.equal(
        batches.batch(1)[0], Batches(folder(picture, augment=True), 1, 0).batch(1)[0]
    )


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0"))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [13_342, 13_400, 60_000])
def test_decompression_bombs_are_named_before_they_unpack(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(side, side))
    assert side**2 > MAX_PIXELS
    with pytest.raises(DataError, match=r"cannot decode .*bomb.png.*pixels.*take it out"):
        folder(path, augment=False).take([0])


def test_a_small_file_of_a_large_image_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(6_000, 6_000))
    with pytest.raises(DataError, match="36000000 pixels in 66 bytes"):
        folder(path, augment=False).take([0])


def test_a_large_image_that_is_allowed_does_not_warn(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    room = bytes(9_500**2 // PIXELS_A_BYTE)  # what follows the image counts as what it takes
    path.write_bytes(png_header(9_500, 9_500) + room)  # above Pillow's warning, an error here
    with pytest.raises(DataError, match=r"truncated|incomplete|broken"):
        folder(path, augment=False).take([0])


@pytest.mark.parametrize("kind", ["jpeg", "png", "bmp", "webp", "gif", "tiff", "dds"])
def test_damage_is_never_a_traceback(tmp_path: Path, kind: str) -> None:
    generator = np.random.default_rng(3)
    buffer = io.BytesIO()
    Image.fromarray(generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(buffer, kind)
    path, refused = tmp_path / "f.png", 0
    for turn in range(80):
        damaged = bytearray(buffer.getvalue())
        if turn % 2:
            del damaged[generator.integers(1, len(damaged)) :]
        for place in generator.integers(0, min(len(damaged), 80), 4):
            damaged[place] = generator.integers(0, 256)
        path.write_bytes(bytes(damaged))
        try:
            assert folder(path, augment=False).take([0])[0].shape == (1, 3, 16, 16)
        except DataError as error:
            assert "f.png" in str(error)  # noqa: PT017  # undamaged pixels may decode
            refused += 1
    assert refused


def test_a_class_of_validation_alone_is_told(tmp_path: Path) -> None:
    for name in ("train/cat", "val/cat", "val/bird"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    with pytest.raises(DataError, match=r"val/bird has no .*train/bird beside it"):
        load(f"imagefolder:{tmp_path}", input_shape=(3, 8, 8))
