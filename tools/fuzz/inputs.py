"""What targets do with an input before and around its reader."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Sequence

import numpy as np

from edgeecc.errors import EdgeeccError
from edgeecc.graph.spec import FloatArray
from tools.fuzz import forms


def attempt(*readers: Callable[[], object]) -> None:
    """Try several readers of one input; each may refuse it, in a printable line."""
    for reader in readers:
        try:
            reader()
        except EdgeeccError as error:
            if not str(error).isprintable():
                raise


def written(path: Path, data: bytes) -> Path:
    """Write an input to a file and return its path."""
    path.write_bytes(data)
    return path


def unpacked(data: bytes, folder: Path) -> None:
    """Put the entries of a zip into a folder, those whose names are plain."""
    for name, content in forms.unzipped(data).items():
        if name and "/" not in name and "\0" not in name and name not in (".", ".."):
            (folder / name).write_bytes(content)


def floats(values: Sequence[int]) -> FloatArray:
    """Return widths as cost models take them."""
    return np.array(values, dtype=np.float64)
