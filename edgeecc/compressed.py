"""Tensors with many zeros, stored small: one bit for every place, and the values that are not zero.

In a safetensors file the tensor NAME becomes NAME.bits (uint8, places in row-major order, eight a byte) and
NAME.values, and the metadata NAME.shape. Tensors that would not shrink stay as they are.
"""

from __future__ import annotations

import math
from typing import Dict, Mapping, Tuple

import numpy as np
import numpy.typing as npt

from edgeecc.artifacts import Tensors
from edgeecc.errors import ArtifactError

Array = npt.NDArray[np.generic]
#: Most elements of a tensor that is unpacked: twice the largest layer of VGG-16.
MAX_ELEMENTS = 2**28


def pack(tensors: Mapping[str, Array]) -> Tuple[Tensors, Dict[str, str]]:
    """Return the tensors to store, and the metadata that tells their shapes."""
    packed: Dict[str, Array] = {}
    shapes: Dict[str, str] = {}
    for name, value in tensors.items():
        nonzero = value.reshape(-1) != 0
        small = nonzero.size / 8.0 + np.count_nonzero(nonzero) * value.itemsize < value.nbytes
        if not small:
            packed[name] = value
            continue
        packed[f"{name}.bits"] = np.packbits(nonzero)
        packed[f"{name}.values"] = value.reshape(-1)[nonzero]
        shapes[f"{name}.shape"] = ",".join(map(str, value.shape))
    return packed, shapes


def unpack(packed: Mapping[str, Array], shapes: Mapping[str, str]) -> Dict[str, Array]:
    """Return what was packed.

    Raises: ArtifactError when parts are missing or do not fit together.
    """
    tensors = {name: value for name, value in packed.items() if f"{name}.shape" not in shapes}
    for key, text in shapes.items():
        name = key[: -len(".shape")]
        if not key.endswith(".shape"):
            continue
        bits, values = tensors.pop(f"{name}.bits", None), tensors.pop(f"{name}.values", None)
        shape = _shape(text, name)
        if bits is None or values is None:
            raise ArtifactError(
                f"the compressed tensor {name!r} lacks its bits or values; copy the file again"
            )
        size = math.prod(shape)
        if bits.dtype != np.uint8 or bits.shape != ((size + 7) // 8,) or values.ndim != 1:
            raise ArtifactError(
                f"the compressed tensor {name!r} does not fit its shape {shape}; copy the file again"
            )
        nonzero = np.unpackbits(bits.astype(np.uint8), count=size).astype(np.bool_)
        if int(np.count_nonzero(nonzero)) != len(values):
            raise ArtifactError(
                f"the compressed tensor {name!r} has {len(values)} values for other places; copy the file again"
            )
        whole = np.zeros(size, dtype=values.dtype)
        whole[nonzero] = values
        tensors[name] = whole.reshape(shape)
    return tensors


def _shape(text: str, name: str) -> Tuple[int, ...]:
    parts = text.split(",") if text else []
    if len(parts) > 8 or not all(part.isdigit() and len(part) < 12 for part in parts):
        raise ArtifactError(
            f"the compressed tensor {name!r} has no shape but {text[:40]!r}; copy the file again"
        )
    shape = tuple(int(part) for part in parts)
    if math.prod(shape) > MAX_ELEMENTS:
        raise ArtifactError(
            f"the compressed tensor {name!r} of {text} is too large; is it the right file?"
        )
    return shape
