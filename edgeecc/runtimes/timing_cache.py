"""Timings of kernels, kept between builds: they turn minutes of building a variant into seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from edgeecc.artifacts import write_bytes
from edgeecc.errors import ArtifactError

#: A larger file is no timing cache; those of whole model families take some tens of megabytes.
MAX_BYTES = 512 * 2**20


class TimingCache:
    """What TensorRT timed so far, shared by all builds of a calibration.

    TensorRT itself checks that it fits the device and the release; one that does not is replaced.

    Args:
        path: file that keeps it; None keeps it in memory.
    Raises: ArtifactError when the file is there and cannot be read.
    """

    def __init__(self, path: Optional[Path] = None) -> None:
        self._path = path
        self.data = b"" if path is None else _read(path)

    def keep(self, data: bytes) -> None:
        """Take what a build left; write it when it is new.

        Raises: ArtifactError when it cannot be written.
        """
        if data == self.data:
            return
        self.data = data
        if self._path is not None:
            write_bytes(self._path, data)


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ArtifactError(
                f"{path} is larger than {MAX_BYTES} bytes; this is no timing cache, move it away"
            )
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}; check the path") from error
