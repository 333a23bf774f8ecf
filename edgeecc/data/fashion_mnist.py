"""Fashion-MNIST from its four gzipped IDX files, as Debian's dataset-fashion-mnist installs them."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from edgeecc.data.request import DataRequest, Loaded
from edgeecc.data.splits import TensorSplit
from edgeecc.errors import DataError
from edgeecc.normalisation import Normalisation

DEFAULT_FOLDER = Path("/usr/share/datasets/fashion-mnist")
#: Of the training pixels.
NORMALISATION = Normalisation((0.2860,), (0.3530,))
#: Largest number of bytes that an IDX file may unpack to; the training images take 47 MB.
MAX_BYTES = 2**26


def load_fashion_mnist(rest: str, request: DataRequest) -> Loaded:
    """Return the 60,000 training and 10,000 test images, 1x28x28, normalised, and the number of classes.

    Args:
        rest: folder of the four files; empty: where Debian installs them.
        request: what the network wants.
    Raises: DataError when a file is absent or damaged.
    """
    folder = Path(rest) if rest else DEFAULT_FOLDER
    normalisation = request.normalisation(NORMALISATION, 1)
    return _load(folder, "train", normalisation), _load(folder, "t10k", normalisation), 10


def _load(folder: Path, part: str, normalisation: Normalisation) -> TensorSplit:
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    if images.ndim != 3 or labels.shape != images.shape[:1] or labels.max(initial=0) > 9:
        raise DataError(
            f"images and labels of {part} in {folder} do not belong together; copy them again"
        )
    pixels = torch.from_numpy(images).float().div_(255.0)
    pixels = (pixels - normalisation.mean[0]) / normalisation.deviation[0]
    return TensorSplit(pixels.unsqueeze(1), torch.from_numpy(labels).long())


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes: magic 0 0 8 rank, big-endian sizes, data.

    Raises: DataError when it is absent, damaged, or of another kind.
    """
    if not path.is_file():
        raise DataError(
            f"no {path}; apt-get install dataset-fashion-mnist, or give --data fashion-mnist:FOLDER"
        )
    try:
        with gzip.open(path, "rb") as stream:
            raw = stream.read(MAX_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}; copy it again") from error
    rank = raw[3] if len(raw) > 3 else 0
    start = 4 + 4 * rank
    if raw[:3] != b"\0\0\x08" or not 1 <= rank <= 4 or len(raw) < start:
        raise DataError(f"{path} is no IDX file of bytes; copy it again")
    sizes = np.frombuffer(raw, dtype=">u4", count=rank, offset=4).tolist()
    if len(raw) - start != math.prod(sizes):  # Python's integers: a product of sizes may pass 2^64
        raise DataError(
            f"{path} promises {'x'.join(map(str, sizes))} bytes and holds {len(raw) - start}; copy it again"
        )
    values: npt.NDArray[np.uint8] = (
        np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(tuple(sizes)).copy()
    )
    return values
