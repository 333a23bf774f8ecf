"""Data sets as `--data` names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Literal, Optional, Sequence, Tuple, cast

import torch
from torch import nn

from edgeecc.data.request import DataRequest, Loaded, Normalization
from edgeecc.data.splits import DatasetSplit, Split
from edgeecc.data.table import KNOWN, SOURCES
from edgeecc.errors import ConfigError, DataError
from edgeecc.plugins import call_own, resolve

TaskName = Literal["classification", "segmentation"]


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

    def check_fits(self, model: nn.Module, example: Tuple[torch.Tensor, ...]) -> None:
        """Check that the network takes these images and tells these classes apart.

        Raises: DataError naming both shapes or both numbers of classes.
        """
        images, labels = self.val.take([0])
        wanted, found = tuple(example[0].shape[1:]), tuple(images.shape[1:])
        if wanted != found:
            raise DataError(
                f"images of {self.name} are {_by(found)}, the network takes {_by(wanted)}; see --input"
            )
        with torch.no_grad():
            output = model.eval()(images)
        if not isinstance(output, torch.Tensor) or output.ndim != 2:
            raise DataError(
                "the network does not return logits (N, classes); edgeecc trains classifiers"
            )
        classes = max(self.classes or 0, int(labels.max()) + 1)
        if output.shape[1] < classes:
            raise DataError(
                f"{self.name} has {classes} classes, the network {output.shape[1]}; use its own data"
            )


def load(
    text: str,
    *,
    input_shape: Tuple[int, ...],
    seed: int = 0,
    mean: Optional[Sequence[float]] = None,
    deviation: Optional[Sequence[float]] = None,
) -> DataBundle:
    """Load the data set that `--data` names.

    Args:
        text: a name of `edgeecc.data.table`, with what follows it, or `package.module:function`.
        input_shape: of the network, for sets whose images are resized.
        seed: of random augmentation.
        mean, deviation: of the network's training pixels, 0..1, a number for each channel; None: the data set's. A
            function of the user's own normalises by itself.
    Raises: DataError when it is absent or damaged; ConfigError for an unknown name, or a normalisation that is none.
    """
    if (mean is None) != (deviation is None):
        raise ConfigError("a mean without a deviation does not normalise; give both or neither")
    name, _, rest = text.partition(":")
    if name not in SOURCES:
        if rest:
            return _own(text)
        raise ConfigError(f"unknown data set {text!r}; known are {KNOWN}")
    source = SOURCES[name]
    if not source.takes(rest):
        raise ConfigError(f"data set {text!r} cannot be had; write {name}{source.rest}")
    given = None
    if mean is not None and deviation is not None:
        given = Normalization(tuple(mean), tuple(deviation))
    loader = cast(Callable[[str, DataRequest], Loaded], resolve(source.loader))
    train, val, classes = loader(rest, DataRequest(input_shape, seed, given))
    return DataBundle(
        text, train, val, classes, "segmentation" if source.pixels else "classification"
    )


def _own(text: str) -> DataBundle:
    made = call_own(text)
    if not isinstance(made, (tuple, list)) or len(made) != 2:
        raise DataError(
            f"{text}() must return (train, validation) datasets, got {type(made).__name__}"
        )
    return DataBundle(text, DatasetSplit(made[0], text), DatasetSplit(made[1], text), None)


def _by(shape: Tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
