"""Data sets as `--data` names them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple

import torch
from torch import nn
from torch.nn import functional

from edgeecc.config import TaskName
from edgeecc.data.fashion_mnist import DEFAULT_FOLDER, load_fashion_mnist
from edgeecc.data.imagefolder import load_imagefolder
from edgeecc.data.splits import DatasetSplit, Split, TensorSplit
from edgeecc.errors import ConfigError, DataError
from edgeecc.plugins import call_own
from edgeecc.training.task import Task

KNOWN = "digits, fashion-mnist[:FOLDER], imagefolder:PATH, package.module:function"


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


def load(text: str, *, input_shape: Tuple[int, ...], seed: int = 0) -> DataBundle:
    """Load the data set that `--data` names.

    Args:
        text: `digits`, `fashion-mnist[:FOLDER]`, `imagefolder:PATH` or `package.module:function`.
        input_shape: of the network, for sets whose images are resized.
        seed: of random augmentation.
    Raises: DataError when it is absent or damaged; ConfigError for an unknown name.
    """
    name, _, rest = text.partition(":")
    if text == "digits":
        return _digits(input_shape)
    if name == "fashion-mnist":
        train, val = load_fashion_mnist(Path(rest) if rest else DEFAULT_FOLDER)
        return DataBundle(text, train, val, 10)
    if name == "imagefolder" and rest:
        train_set, val_set, classes = load_imagefolder(Path(rest), input_shape, seed)
        return DataBundle(text, train_set, val_set, classes)
    if rest:
        return _own(text)
    raise ConfigError(f"unknown data set {text!r}; known are {KNOWN}")


def _digits(input_shape: Tuple[int, ...]) -> DataBundle:
    """Return scikit-learn's 1,797 handwritten digits, 8x8 or enlarged to what the network takes, one in five held."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("the digits come with scikit-learn; pip install 'edgeecc[host]'") from error
    found = load_digits()
    images = torch.from_numpy(found.images).float().unsqueeze(1) / 8.0 - 1.0
    if len(input_shape) == 3 and min(input_shape[1:]) > images.shape[-1]:
        images = functional.interpolate(images, input_shape[1:], mode="bilinear")
    labels = torch.from_numpy(found.target).long()
    held = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(10):
        held[(labels == digit).nonzero().reshape(-1)[::5]] = True
    return DataBundle(
        "digits",
        TensorSplit(images[~held], labels[~held]),
        TensorSplit(images[held], labels[held]),
        10,
    )


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
