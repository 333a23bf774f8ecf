"""How the engines of a run are built: what int8 finds its ranges on, sparse kernels, where engines are kept.

calib.safetensors in the run folder holds the training images that export chose. Runs that were exported before there
was one take check images, which are not scored then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, Optional, Tuple

import numpy as np
import numpy.typing as npt

from edgeecc.artifacts import read_json, read_tensors
from edgeecc.check_set import CheckSet
from edgeecc.config import VerifyConfig
from edgeecc.device_names import DeviceName
from edgeecc.errors import ArtifactError
from edgeecc.loaders import Engines, engine_cache
from edgeecc.pattern import pattern_of
from edgeecc.run_folder import RESULT_SCHEMA, RunFolder
from edgeecc.runtimes.base import Array

NAME = "calib.safetensors"


@dataclass(frozen=True)
class Ranges:
    """The images on which int8 finds its ranges.

    Args:
        images: float32 (n, ...), as the network takes them; none for other precisions.
        split: of the data set: "train", or "check" where they are check images that are not scored.
    """

    images: npt.NDArray[np.float32]
    split: str

    @property
    def batches(self) -> Tuple[Array, ...]:
        """The images one by one."""
        return tuple(image[None] for image in self.images)

    def told(self) -> Optional[Dict[str, object]]:
        """Return them as results tell them; None where there are none."""
        return {"images": len(self.images), "split": self.split} if len(self.images) else None


#: Where nothing is quantised.
NO_RANGES = Ranges(np.zeros((0, 1), np.float32), "")


def write_ranges(folder: RunFolder, images: npt.NDArray[np.float32]) -> None:
    """Write calib.safetensors: training images, float32 (n, ...), as the network takes them."""
    folder.write_tensors(NAME, {"input": images}, {"split": "train"})


def read_ranges(folder: RunFolder) -> Optional[Ranges]:
    """Return what `write_ranges` wrote, None where the run has none.

    Raises: ArtifactError when it is damaged.
    """
    if not folder.has(NAME):
        return None
    images = read_tensors(folder.file(NAME))[0].get("input", np.zeros(0))
    if images.ndim < 2 or not len(images) or images.dtype != np.float32:
        raise ArtifactError(
            f"{folder.file(NAME)} is damaged: {images.dtype}{list(images.shape)} are no images; run edgeecc export "
            "again"
        )
    return Ranges(
        images[: VerifyConfig().calibration_images].astype(np.float32, copy=False), "train"
    )


def ranges_for(folder: RunFolder, name: DeviceName, check: CheckSet) -> Tuple[Ranges, CheckSet]:
    """Return the images on which an engine's ranges are found, and those that it is scored on: never the same.

    Raises: ArtifactError when the file of training images is damaged, or there is one check image alone.
    """
    if name.precision != "int8":
        return NO_RANGES, check
    found = read_ranges(folder)
    return (found, check) if found is not None else _taken_from(check)


def run_engines(folder: RunFolder, name: DeviceName, ranges: Optional[Ranges] = None) -> Engines:
    """Return how engines of a run are built and kept.

    Args:
        folder: of the run.
        name: of the device.
        ranges: see `ranges_for`; None takes the run's training images, else random ones, which tell no accuracy.
    Raises: ArtifactError when the file of training images or the run's result is damaged.
    """
    if ranges is None and name.precision == "int8":
        ranges = read_ranges(folder)
    batches = () if ranges is None else ranges.batches
    cache = engine_cache(cache_folder(folder), name)
    return Engines(folder.path, None, batches, cache, sparse=_has_pattern(folder))


def _has_pattern(folder: RunFolder) -> bool:
    source = folder.file("result.json")
    return source.is_file() and pattern_of(read_json(source, RESULT_SCHEMA), source) is not None


def cache_folder(folder: RunFolder) -> Path:
    """Return where engines are kept: cache/engines of the workspace, or of the run where it lies in none."""
    path = folder.path.resolve()
    home = path.parent.parent if path.parent.name == "runs" else path
    return home / "cache" / "engines"


def _taken_from(check: CheckSet) -> Tuple[Ranges, CheckSet]:
    """Return check images spread over the set, at most half of it, and the set without them; its first stays."""
    whole = len(check.images)
    count = min(VerifyConfig().calibration_images, whole // 2)
    if not count:
        raise ArtifactError(
            "one check image cannot both give int8 its ranges and be scored; run edgeecc export again, where torch is"
        )
    taken = np.zeros(whole, dtype=bool)
    taken[np.linspace(1, whole - 1, count).astype(np.int64)] = True
    left = replace(
        check,
        images=check.images[~taken],
        labels=check.labels[~taken],
        reference=check.reference[~taken[: len(check.reference)]],
    )
    return Ranges(check.images[taken], "check"), left
