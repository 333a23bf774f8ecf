"""Data sets as `--data` names them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Callable, Optional, Tuple, cast

import numpy as np
import torch
from torch import nn

from edgeecc.config import TaskName
from edgeecc.data.request import DataRequest, Loaded
from edgeecc.data.splits import DatasetSplit, Split
from edgeecc.data.table import KNOWN, SOURCES
from edgeecc.errors import ConfigError, DataError
from edgeecc.normalisation import Normalisation
from edgeecc.plugins import call_own, resolve
from edgeecc.training.task import Task

#: Images of each split that its digest looks at, evenly from all of them (ours: many enough to notice another set).
DIGEST_IMAGES = 16


@dataclass(frozen=True)
class DataBundle:
    """A data set.

    Args:
        name: as the user named it.
        train, val: splits.
        classes: number of classes; None when only the labels tell.
        task: what the labels ask for, a label an image or a label a pixel.
    """

    name: str
    train: Split
    val: Split
    classes: Optional[int]
    task: TaskName = "classification"

    def check_fits(self, model: nn.Module, example: Tuple[torch.Tensor, ...], task: Task) -> None:
        """Check that the network takes these images and tells these classes apart.

        Args:
            model: runs on one image.
            example: inputs of the shape that it takes.
            task: of this data set.
        Raises: DataError naming both shapes or both numbers of classes.
        """
        images, labels = self.val.take([0])
        wanted, found = tuple(example[0].shape[1:]), tuple(images.shape[1:])
        if wanted != found:
            raise DataError(
                f"images of {self.name} are {_by(found)}, the network takes {_by(wanted)}; see --input"
            )
        with torch.no_grad():
            output = task.output_of(model.eval()(images))
        task.check(output, labels)


def load(
    text: str,
    *,
    input_shape: Tuple[int, ...],
    seed: int = 0,
    normalisation: Optional[Normalisation] = None,
) -> DataBundle:
    """Load the data set that `--data` names.

    Args:
        text: a name of `edgeecc.data.table`, with what follows it, or `package.module:function`.
        input_shape: of the network, for sets whose images are resized.
        seed: of random augmentation.
        normalisation: that the network was trained with; None: the data set's. A function of the user's own
            normalises by itself.
    Raises: DataError when it is absent or damaged; ConfigError for an unknown name.
    """
    name, _, rest = text.partition(":")
    if name not in SOURCES:
        if rest:
            return _own(text)
        raise ConfigError(f"unknown data set {text!r}; known are {KNOWN}")
    source = SOURCES[name]
    if not source.takes(rest):
        raise ConfigError(f"data set {text!r} cannot be had; write {name}{source.rest}")
    loader = cast(Callable[[str, DataRequest], Loaded], resolve(source.loader))
    train, val, classes = loader(rest, DataRequest(input_shape, seed, normalisation))
    return DataBundle(
        text, train, val, classes, "segmentation" if source.pixels else "classification"
    )


def digest_of(data: DataBundle) -> str:
    """Return the hex digest of what tells a data set from another one: its sizes, and some images and their labels.

    Of a function of the user's own only labels count: its images may be altered at random.
    """
    found = hashlib.sha256()
    is_known = data.name.partition(":")[0] in SOURCES
    for split in (data.train, data.val):
        found.update(f"{len(split)}".encode())
        places = np.linspace(0, len(split) - 1, min(len(split), DIGEST_IMAGES))
        for place in places.astype(np.int64).tolist():  # one by one: maps of pixels are large
            image, label = split.take([place])
            found.update(f"{tuple(label.shape)}".encode() + label.numpy().tobytes())
            if is_known:
                found.update(f"{tuple(image.shape)}".encode() + image.numpy().tobytes())
    return found.hexdigest()


def _own(text: str) -> DataBundle:
    made = call_own(text)
    if not isinstance(made, (tuple, list)) or len(made) != 2:
        raise DataError(
            f"{text}() must return (train, validation) datasets, got {type(made).__name__}"
        )
    train, val = DatasetSplit(made[0], text), DatasetSplit(made[1], text)
    return DataBundle(text, train, val, None, _task_of(text, train, val))


def _task_of(name: str, train: Split, val: Split) -> TaskName:
    """Return what the labels ask for, by the first of each split: a number an image, or a map.

    Raises: DataError when the splits differ.
    """
    mapped = [split.take([0])[1].ndim == 3 for split in (train, val)]
    if mapped[0] != mapped[1]:
        raise DataError(
            f"one split of {name} has a label an image and the other a label a pixel; give both alike"
        )
    return "segmentation" if mapped[0] else "classification"


def _by(shape: Tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
