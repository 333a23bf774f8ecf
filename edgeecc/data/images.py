"""Decode images that nobody vouches for, crop them and bring them to a size."""

from __future__ import annotations

import contextlib
import io
import math
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, Tuple, Type, Union

import numpy as np

from edgeecc.errors import DataError, brief
from edgeecc.normalisation import PixelArray

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

#: Largest image that is decoded, pixels: above any camera, just below what Pillow refuses as a decompression bomb.
MAX_PIXELS = 178_000_000
#: Images up to so many pixels are decoded whatever they take on disk; larger ones must have a byte for so many pixels:
#: a flat image of 178 million pixels takes a kilobyte in some formats and a gigabyte in memory.
ANY_PIXELS, PIXELS_A_BYTE = 2**25, 256
#: First bytes of a file, and Pillow's class for it. Named here, because `Image.open` warns of large images through
#: the process's warning filters, which threads must not change, and tries formats that no data set needs.
FORMATS = (
    (b"\xff\xd8\xff", "PIL.JpegImagePlugin", "JpegImageFile"),
    (b"\x89PNG\r\n\x1a\n", "PIL.PngImagePlugin", "PngImageFile"),
    (b"RIFF", "PIL.WebPImagePlugin", "WebPImageFile"),
    (b"BM", "PIL.BmpImagePlugin", "BmpImageFile"),
)
#: A file, or the bytes of one.
Encoded = Union[Path, bytes]
#: left, top, right, bottom, pixels.
Box = Tuple[float, float, float, float]


@contextlib.contextmanager
def opened(name: str, encoded: Encoded) -> Iterator[Image]:
    """Open an image for a `with` block; its pixels are decoded when the block asks for them.

    Raises: DataError naming the image, for whatever goes wrong in the block.
    """
    try:
        with _stream(encoded) as stream:
            head = stream.read(8)
            stream.seek(0)
            image = _decoder(head)(stream)
            _check_pixels(image.width * image.height, encoded)
            yield image
    except Exception as error:  # decoders of damaged files raise whatever they trip over
        raise DataError(
            f"cannot decode {name}: {brief(error)}; take it out of the data set"
        ) from error


def _stream(encoded: Encoded) -> Union[io.BytesIO, io.BufferedReader]:
    return io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded.open("rb")


def _check_pixels(pixels: int, encoded: Encoded) -> None:
    size = len(encoded) if isinstance(encoded, bytes) else encoded.stat().st_size
    if pixels > MAX_PIXELS:
        raise ValueError(f"{pixels} pixels, more than {MAX_PIXELS}")
    if pixels > max(ANY_PIXELS, PIXELS_A_BYTE * size):
        raise ValueError(
            f"{pixels} pixels in {size} bytes would take far more memory than the file"
        )


def _decoder(head: bytes) -> Type[ImageFile]:
    for start, module, name in FORMATS:
        if head.startswith(start):
            found: Type[ImageFile] = getattr(import_module(module), name)
            return found
    raise ValueError("no JPEG, PNG, WebP or BMP image")


def rgb_crop(image: Image, box: Box, size: Tuple[int, int]) -> PixelArray:
    """Return a box of an opened image at another size, (H, W, 3), bilinear over all pixels that it covers.

    A JPEG of more than twice the resolution that is needed is decoded at a half, quarter or eighth.

    Args:
        image: as opened; its decoder may be set up here.
        box: within the image, pixels.
        size: (height, width).
    """
    from PIL.Image import Resampling

    height, width = size
    whole = image.size
    left, top, right, bottom = box
    image.draft(
        "RGB",
        (
            math.ceil(2 * width * whole[0] / (right - left)),
            math.ceil(2 * height * whole[1] / (bottom - top)),
        ),
    )
    x, y = image.width / whole[0], image.height / whole[1]
    scaled = (left * x, top * y, min(right * x, image.width), min(bottom * y, image.height))
    small = as_rgb(image).resize((width, height), Resampling.BILINEAR, box=scaled)
    return np.asarray(small)


def as_rgb(image: Image) -> Image:
    """Return the image in RGB, itself where it is."""
    return image if image.mode == "RGB" else image.convert("RGB")
