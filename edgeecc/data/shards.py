"""Samples in tar shards, found by an index of places, read from where they lie."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from edgeecc.data.images import Encoded
from edgeecc.errors import DataError, brief

#: Extensions of what a sample is made of; others are passed over.
IMAGES = ("jpg", "jpeg", "png", "webp")
LABELS = ("cls", "json")
#: Largest encoded image and largest label, bytes.
MAX_IMAGE, MAX_LABEL = 2**28, 2**20


@dataclass(frozen=True)
class _Member:
    """A file in a shard."""

    name: str
    offset: int
    size: int


class ShardImages:
    """Images in tar shards in WebDataset's convention; `EncodedImages`.

    A sample is the neighbouring members KEY.jpg (or jpeg, png, webp) and KEY.cls (a number in ASCII) or KEY.json (with
    "label"), where the key ends at the first dot of the file's name. The headers are read once; nothing is extracted.

    Args:
        shards: the tar files, not compressed.
    Raises: DataError naming a shard that cannot be read or holds a link, a member larger than is allowed, or a sample
        without image or label; or when there are no samples.
    """

    def __init__(self, shards: Sequence[Path]) -> None:
        self._shards = list(shards)
        rows = [
            (number, *sample)
            for number, shard in enumerate(self._shards)
            for sample in _samples(shard)
        ]
        if not rows:
            raise DataError(f"no samples in {len(self._shards)} shards; check the pattern")
        table = np.array(rows, dtype=np.int64)
        self._places: npt.NDArray[np.int64] = table[:, :3].copy()
        self.labels: npt.NDArray[np.int64] = table[:, 3].copy()

    def image(self, index: int) -> Tuple[str, Encoded]:
        """Return the name of an image and its bytes.

        Raises: DataError when the shard is not there any more.
        """
        number, offset, size = self._places[index].tolist()
        shard = self._shards[number]
        try:
            with shard.open("rb") as stream:
                stream.seek(offset)
                return f"the image at byte {offset} of {shard}", stream.read(size)
        except OSError as error:
            raise DataError(f"cannot read {shard}: {error.strerror}; put it back") from error


class _Bounded(io.BufferedReader):
    """A file that is asked for no more than it holds.

    A header may promise any size, and a read takes the memory for what is promised before it sees what is there.
    """

    def read(self, size: Optional[int] = -1) -> bytes:
        """Return at most `size` bytes, and no more than are left; all that are left where it is negative."""
        left = max(0, os.fstat(self.fileno()).st_size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def _samples(shard: Path) -> List[Tuple[int, int, int]]:
    """Return offset and size of the image, and the label, of every sample of a shard."""
    found = []
    try:
        with _Bounded(shard.open("rb", buffering=0)) as headers, shard.open("rb") as stream:
            archive = tarfile.open(fileobj=headers, mode="r:")  # noqa: SIM115  # holds nothing of its own
            for key, members in _grouped(_members(archive, stream)):
                image = _one_of(members, IMAGES, key)
                label = _one_of(members, LABELS, key)
                stream.seek(label.offset)
                found.append((image.offset, image.size, _label(label, stream.read(label.size))))
    except (OSError, OverflowError, ValueError, EOFError, tarfile.TarError) as error:
        raise DataError(f"{shard} is no shard of samples: {brief(error)}; pack it again") from error
    return found


def _members(archive: tarfile.TarFile, stream: BinaryIO) -> Iterator[_Member]:
    """Yield the files of a shard that make up samples, and check that they lie within it and nothing follows them."""
    end, last = stream.seek(0, io.SEEK_END), 0
    for info in archive:
        last = info.offset_data + -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        if info.isdir():
            continue
        if not info.isreg() or info.issparse():
            raise ValueError(f"{info.name[:60]!r} is a link, device or sparse file")
        kind = _extension(info.name)
        if kind not in (*IMAGES, *LABELS):
            continue
        limit = MAX_IMAGE if kind in IMAGES else MAX_LABEL
        if not 0 <= info.size <= limit or info.offset_data + info.size > end:
            raise ValueError(
                f"{info.name[:60]!r} has {info.size} bytes, more than {limit} or than the shard holds"
            )
        yield _Member(info.name, info.offset_data, info.size)
    stream.seek(last)
    if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile takes a damaged header for the end
        raise ValueError(f"the header at byte {last} is damaged")


def _grouped(members: Iterator[_Member]) -> Iterator[Tuple[str, Dict[str, _Member]]]:
    """Yield each run of members with one key, by extension."""
    key = ""
    found: Dict[str, _Member] = {}
    for member in members:
        if found and _key(member.name) != key:
            yield key, found
            found = {}
        key, kind = _key(member.name), _extension(member.name)
        if kind in found:
            raise ValueError(f"sample {key[:60]!r} has two files .{kind}")
        found[kind] = member
    if found:
        yield key, found


def _one_of(members: Dict[str, _Member], kinds: Sequence[str], key: str) -> _Member:
    for kind in kinds:
        if kind in members:
            return members[kind]
    raise ValueError(f"sample {key[:60]!r} has no file .{' or .'.join(kinds)}")


def _label(member: _Member, raw: bytes) -> int:
    if _extension(member.name) == "cls":
        number: object = int(raw) if re.fullmatch(rb"\s*\d{1,9}\s*", raw) else None
    else:
        try:
            value = json.loads(raw)
        except RecursionError as error:
            raise ValueError(f"{member.name[:60]!r} is nested too deeply") from error
        number = value.get("label") if isinstance(value, dict) else None
    if type(number) is not int or not 0 <= number < 10**9:
        raise ValueError(f"{member.name[:60]!r} holds no label, a number from 0")
    return number


def _key(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _extension(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[2].lower()
