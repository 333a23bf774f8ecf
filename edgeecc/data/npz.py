"""Read arrays of an .npz archive that nobody vouches for: no objects, nothing larger than is allowed."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, Dict, Mapping, Tuple

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from edgeecc.errors import DataError, brief

#: Largest header of an array, bytes; those of plain arrays take 128.
MAX_HEADER = 4096
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
#: What the readers of an archive, of a packed entry and of an array's header raise beside Python's usual errors.
_BROKEN = (zipfile.BadZipFile, zlib.error, SyntaxError, TokenError, MemoryError)
READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(
    path: Path, wanted: Mapping[str, str], max_bytes: int
) -> Dict[str, npt.NDArray[Any]]:  # the dtypes are values
    """Read one-dimensional arrays of an archive; each has the dtype that was wanted.

    Args:
        path: of the .npz.
        wanted: name of the array -> its dtype, such as "uint8".
        max_bytes: that an array may have.
    Raises: DataError when the archive is damaged, lacks an array, or holds it in another form or too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: _read(archive, name, dtype, max_bytes) for name, dtype in wanted.items()}
    except KeyError as error:
        raise DataError(f"{path} lacks an array: {error.args[0]}; copy it again") from error
    except (OSError, EOFError, ValueError, RuntimeError, *_BROKEN) as error:
        raise DataError(f"{path} is damaged: {brief(error)}; copy it again") from error


def _read(
    archive: zipfile.ZipFile, name: str, dtype: str, max_bytes: int
) -> npt.NDArray[Any]:  # the dtype is a value
    if archive.getinfo(f"{name}.npy").compress_type not in PACKINGS:
        raise ValueError(f"{name} is packed in another way than numpy packs")
    with archive.open(f"{name}.npy") as stream:
        shape, found = _header(stream)
        size = math.prod(shape) * found.itemsize
        if found != np.dtype(dtype) or len(shape) != 1 or not 0 <= size <= max_bytes:
            raise ValueError(
                f"{name} is {found} {shape}, not {dtype} in one row of at most {max_bytes} bytes"
            )
        raw = stream.read(size + 1)
    if len(raw) != size:
        raise ValueError(
            f"{name} promises {size} bytes and holds {'less' if len(raw) < size else 'more'}"
        )
    return np.frombuffer(raw, dtype=found)


def _header(stream: IO[bytes]) -> Tuple[Tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(stream)
    if version not in READERS:
        raise ValueError(f"array format {version} is unknown")
    shape, _, dtype = READERS[version](stream, max_header_size=MAX_HEADER)
    return shape, dtype
