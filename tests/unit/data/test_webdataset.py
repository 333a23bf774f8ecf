"""Shards of samples: the same images as a folder of them, patterns, and what shards can do wrong."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Dict, List, Optional

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgeecc.data.shards import MAX_LABEL, ShardImages
from edgeecc.data.sources import load
from edgeecc.data.webdataset import MAX_SHARDS
from edgeecc.errors import DataError


def encoded(seed: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def pack(
    path: Path, files: Dict[str, bytes], kind: int = tarfile.USTAR_FORMAT, mode: str = "w"
) -> Path:
    with tarfile.open(path, mode, format=kind) as archive:
        for name, raw in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return path


def sample(key: str, seed: int, label: int) -> Dict[str, bytes]:
    return {f"{key}.png": encoded(seed), f"{key}.cls": str(label).encode()}


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shards_give_the_same_batches_as_a_folder(tmp_path: Path, kind: int) -> None:
    for part, count in (("train", 6), ("val", 4)):
        for index in range(count):
            folder = tmp_path / "folder" / part / str(index % 2)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{index}.png").write_bytes(encoded(index))
        ordered = sorted(range(count), key=lambda index: (index % 2, index))
        long = "deep/" * 30
        files: Dict[str, bytes] = {}
        for number, index in enumerate(ordered):
            key = f"{long if kind != tarfile.USTAR_FORMAT else ''}a/{index:04}"
            label = {f"{key}.cls": f" {index % 2}\n".encode()}
            if number % 2:
                label = {f"{key}.json": f'{{"label": {index % 2}, "x": []}}'.encode()}
            files.update({f"{key}.PNG": encoded(index), f"{key}.txt": b"a word", **label})
        names = list(files)
        half = names.index(next(name for name in names if f"/{ordered[count // 2]:04}" in name))
        for number, chosen in enumerate((names[:half], names[half:])):
            pack(tmp_path / f"{part}-{number:03}.tar", {name: files[name] for name in chosen}, kind)
    reference = load(f"imagefolder:{tmp_path / 'folder'}", input_shape=(3, 16, 16), seed=3)
    patterns = f"{tmp_path}/train-{{000..001}}.tar,{tmp_path}/val-{{000..001}}.tar"
    for rest in (str(tmp_path), patterns):
        data = load(f"webdataset:{rest}", input_shape=(3, 16, 16), seed=3)
        assert data.classes == 2
        for found, expected in ((data.train, reference.train), (data.val, reference.val)):
            assert len(found) == len(expected)
            for a, b in zip(found.take(range(len(found)), 2), expected.take(range(len(found)), 2)):
                assert torch.equal(a, b)


def test_ranges_count_with_their_zeros(tmp_path: Path) -> None:
    names = [f"{group}-{number:02}" for group in (8, 9) for number in (9, 10, 11)]
    for number, name in enumerate(names):
        pack(tmp_path / f"{name}.tar", sample("k", number, number))
    pattern = f"{tmp_path}/{{8..9}}-{{09..11}}.tar"
    data = load(f"webdataset:{pattern},{tmp_path}/8-09.tar", input_shape=(3, 8, 8))
    assert data.train.take(range(6))[1].tolist() == list(range(6))
    assert (len(data.val), data.classes) == (1, 6)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("nowhere-{0..1}.tar", "is no folder; give one, or training and validation shards"),
        ("a-{5..4}.tar,b", "stands for 0 shards"),
        (f"a-{{0..{MAX_SHARDS}}}.tar,b", "stands for 100001 shards"),
        ("a-{000..400}-{000..400}.tar,b", "stands for 160801 shards"),
        ("a.tar,b.tar", "a.tar is no shard of samples"),
    ],
)
def test_patterns_that_name_no_shards_are_refused(workspace: Path, rest: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(f"webdataset:{rest}", input_shape=(3, 8, 8))


def test_a_folder_without_both_parts_is_refused(tmp_path: Path) -> None:
    pack(tmp_path / "train-0.tar", sample("k", 0, 0))
    with pytest.raises(DataError, match=r"holds no train-\*.tar and val-\*.tar"):
        load(f"webdataset:{tmp_path}", input_shape=(3, 8, 8))
    pack(tmp_path / "val-0.tar", {"readme.md": b"nothing"})
    with pytest.raises(DataError, match="no samples in 1 shards"):
        load(f"webdataset:{tmp_path}", input_shape=(3, 8, 8))
    with pytest.raises(DataError, match="1- or 3-channel"):
        load(f"webdataset:{tmp_path}", input_shape=(4, 8, 8))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"k.png": b"x"}, r"sample 'k' has no file .cls or .json"),
        ({"k.cls": b"1"}, r"sample 'k' has no file .jpg or .jpeg or .png"),
        ({"k.png": b"x", "k.PNG": b"y", "k.cls": b"1"}, "sample 'k' has two files .png"),
        ({"a.png": b"x", "b.cls": b"1"}, "sample 'a' has no file .cls"),
        ({"k.png": b"x", "k.cls": b"-1"}, "'k.cls' holds no label"),
        ({"k.png": b"x", "k.cls": b"1" * 10}, "'k.cls' holds no label"),
        ({"k.png": b"x", "k.cls": b""}, "'k.cls' holds no label"),
        ({"k.png": b"x", "k.json": b'{"label": true}'}, "'k.json' holds no label"),
        ({"k.png": b"x", "k.json": b'{"label": 1e9}'}, "'k.json' holds no label"),
        ({"k.png": b"x", "k.json": b'{"label": 1000000000}'}, "'k.json' holds no label"),
        ({"k.png": b"x", "k.json": b"[1]"}, "'k.json' holds no label"),
        ({"k.png": b"x", "k.json": b"{"}, "is no shard of samples"),
        ({"k.png": b"x", "k.json": b"\xff\xfe\x00"}, "is no shard of samples"),
        ({"k.png": b"x", "k.json": b"[" * 200_000}, "'k.json' is nested too deeply"),
        ({"k.png": b"x", "k.cls": b"1" * (MAX_LABEL + 1)}, "'k.cls' has 1048577 bytes, more than"),
    ],
)
def test_samples_that_are_none_are_told(
    tmp_path: Path, files: Dict[str, bytes], message: str
) -> None:
    path = pack(tmp_path / "s.tar", files)
    with pytest.raises(DataError, match=message) as caught:
        ShardImages([path])
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("folder/") if False else directory())
        info = tarfile.TarInfo("k.png")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(DataError, match=r"'k.png' is a link, device or sparse file"):
        ShardImages([tmp_path / "s.tar"])


def directory() -> tarfile.TarInfo:
    info = tarfile.TarInfo("folder")
    info.type = tarfile.DIRTYPE
    return info


def test_a_header_that_promises_more_than_the_shard_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    info = tarfile.TarInfo("k.png")
    info.size = 2**27
    path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
    with pytest.raises(DataError, match="is no shard of samples"):
        ShardImages([path])
    info.size = 2**40
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(DataError, match="is no shard of samples"):
        ShardImages([path])


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = pack(tmp_path / "s.tar", {**sample("a", 0, 0), **sample("b", 1, 1)})
    raw = bytearray(path.read_bytes())
    place = raw.index(b"b.png")
    raw[place] = 7
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError, match=f"the header at byte {place} is damaged"):
        ShardImages([path])
    pack(path, sample("a", 0, 0), mode="w:gz")
    with pytest.raises(DataError, match="is no shard of samples"):
        ShardImages([path])


def test_a_shard_that_goes_or_shrinks_later_is_told(tmp_path: Path) -> None:
    for part in ("train", "val"):
        pack(tmp_path / f"{part}-0.tar", sample("k", 0, 0))
    data = load(f"webdataset:{tmp_path}", input_shape=(3, 8, 8))
    path = tmp_path / "val-0.tar"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match=r"cannot decode the image at byte 512 of .*val-0.tar"):
        data.val.take([0])
    path.unlink()
    with pytest.raises(DataError, match=r"cannot read .*val-0.tar.*put it back"):
        data.val.take([0])


@given(st.data())
def test_damaged_shards_never_escape(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    files = {"a.jpg": b"image", "a.cls": b"1", "b.jpg": b"other", "b.json": b'{"label": 3}'}
    path = pack(tmp_path_factory.getbasetemp() / "s.tar", files)
    raw = bytearray(path.read_bytes()[:6000])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, 4200))] = data.draw(st.integers(0, 255))
    cut: Optional[int] = data.draw(st.none() | st.integers(0, len(raw)))
    path.write_bytes(bytes(raw[:cut]))
    try:
        found: List[int] = ShardImages([path]).labels.tolist()
    except DataError:
        return
    assert len(found) in (1, 2)
