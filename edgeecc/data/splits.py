"""Splits of a data set, and batches as a pure function of seed and step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Iterator, List, Optional, Protocol, Sequence, Tuple

import numpy as np
import torch

from edgeecc.data.prefetch import Prefetch, usable_cores
from edgeecc.errors import DataError

Batch = Tuple[torch.Tensor, torch.Tensor]

#: Threads that take images at most: beyond, they wait for the interpreter, not for their decoders.
MOST_WORKERS = 8
#: Pass of training images that are scored: random augmentation leaves them as validation images are.
AS_VALIDATION = -1
#: Pixels that run through a network together without gradients at most: 83 images of 224x224, 8 of 512x1024 (ours).
PIXELS_TOGETHER = 2**22


class Split(Protocol):
    """Labelled images that can be indexed by a list.

    In classification an image has one label; in segmentation every pixel has one, or `config.IGNORE_LABEL`.
    """

    def __len__(self) -> int:
        """Return the number of images."""

    def take(self, indices: Sequence[int], turn: int = 0) -> Batch:
        """Return images, float32 (n, C, H, W), and labels, int64 (n,) or (n, H, W).

        Args:
            indices: of the images.
            turn: which pass over the data this is; random augmentation draws anew in each, and nothing in the pass
                `AS_VALIDATION`.
        """


@dataclass(frozen=True)
class TensorSplit:
    """Images in memory.

    Args:
        images: float32 (N, C, H, W), normalised.
        labels: int64 (N,) or (N, H, W).
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels) or not len(self.images):
            raise DataError(
                f"{len(self.images)} images and {len(self.labels)} labels make no data set"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Sequence[int], turn: int = 0) -> Batch:
        """Return the images and labels at `indices`."""
        del turn
        places = torch.as_tensor(list(indices), dtype=torch.int64)
        return self.images[places], self.labels[places]


class Part:
    """Some of the images of a split.

    Args:
        split: the whole.
        indices: of its images, in the order of this split; at least one.
        turn: pass that its images are always taken from; None takes the one that is asked for.
    """

    def __init__(self, split: Split, indices: Sequence[int], turn: Optional[int] = None) -> None:
        if not len(indices):
            raise DataError("a part of a data set needs at least one image")
        self._split = split
        self._indices = [int(index) for index in indices]
        self._turn = turn

    @property
    def decodes(self) -> bool:
        """Whether taking images is work for threads, see `usual_workers`."""
        return bool(getattr(self._split, "decodes", False))

    def __len__(self) -> int:
        return len(self._indices)

    def take(self, indices: Sequence[int], turn: int = 0) -> Batch:
        """Return the images and labels at `indices` of this part."""
        turn = turn if self._turn is None else self._turn
        return self._split.take([self._indices[index] for index in indices], turn)


def held_apart(split: Split, count: int, seed: int, *, what: str = "training") -> Tuple[Part, Part]:
    """Return a split in two parts: all but `count` images drawn at random, and those, as validation images are.

    Args:
        what: images these are, in words.
    Raises: DataError when fewer than half of the images would be left.
    """
    if not 0 < count <= len(split) // 2:
        raise DataError(
            f"{count} of {len(split)} {what} images cannot be held out; hold out 1 to {len(split) // 2}"
        )
    order = np.random.default_rng([seed, len(split)]).permutation(len(split))
    kept = Part(split, sorted(order[:count]), AS_VALIDATION)
    return Part(split, sorted(order[count:])), kept


class DatasetSplit:
    """A map-style torch dataset of (image, label) pairs, the user's own.

    A label is a whole number, or for segmentation a map (H, W) of them, as a tensor, array or image.
    """

    def __init__(self, dataset: Any, name: str) -> None:  # any object with __len__ and __getitem__
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise DataError(
                f"{name} must be map-style datasets with __len__ and __getitem__, got {type(dataset).__name__}"
            )
        if not len(dataset):
            raise DataError(f"{name} is empty; check the folder or function")
        self._dataset, self._name = dataset, name

    def __len__(self) -> int:
        return len(self._dataset)

    def take(self, indices: Sequence[int], turn: int = 0) -> Batch:
        """Return the images and labels at `indices`.

        Raises: DataError when an item cannot be had or is not an image tensor and a label.
        """
        del turn
        items = [self._item(int(index)) for index in indices]
        try:
            images = torch.stack([torch.as_tensor(image) for image, _ in items]).float()
            labels = torch.stack([_label(label) for _, label in items])
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(
                f"{self._name} must give (image, label) pairs of one shape: {error}"
            ) from error
        return images, labels

    def _item(self, index: int) -> Any:  # whatever the user's dataset gives
        try:
            return self._dataset[index]
        except Exception as error:
            raise DataError(
                f"image {index} of {self._name} failed: {type(error).__name__}: {error}; take it out or mend it"
            ) from error


def images_together(shape: Sequence[int], most: int) -> int:
    """Return how many images, at most `most`, run through a network together so that memory stays bounded.

    Args:
        shape: of images, (..., H, W).
        most: where images are small.
    """
    return max(1, min(most, PIXELS_TOGETHER // max(1, math.prod(shape[-2:]))))


def _label(label: Any) -> torch.Tensor:  # whatever the user's dataset gives
    """Return a label as int64, () or (H, W); a leading axis of one is dropped.

    Raises: TypeError or ValueError when it is neither.
    """
    values = label if isinstance(label, torch.Tensor) else torch.from_numpy(np.array(label))
    if values.ndim in (1, 3) and len(values) == 1:
        values = values[0]
    whole = values.to(torch.int64)
    if values.ndim not in (0, 2) or not torch.equal(whole.to(values), values):
        raise ValueError(
            f"a label of shape {tuple(values.shape)} and {values.dtype} is no whole number and no map of them"
        )
    return whole


class Batches:
    """Training batches: batch t is the same whenever and wherever it is asked for.

    Args:
        split: training images.
        size: images per batch; a smaller split gives itself whole.
        seed: of the order; every pass over the data has its own.
        workers: threads that take the next batches meanwhile; None: as many as `usual_workers` says.
        own: which images of each batch are given; default all.
    """

    def __init__(
        self,
        split: Split,
        size: int,
        seed: int,
        workers: Optional[int] = None,
        own: slice = slice(None),
    ) -> None:
        self._prefetch = Prefetch(
            _Parts(split, _Order(len(split), min(size, len(split)), seed, own)),
            usual_workers(split) if workers is None else workers,
        )

    def batch(self, step: int) -> Batch:
        """Return batch number `step`, counted from 0."""
        return _joined(self._prefetch.get(step))


def in_order(
    split: Split, size: int, workers: Optional[int] = None, *, every: int = 1, first: int = 0
) -> Iterator[Batch]:
    """Yield a whole split in its order, at most `size` images at a time, the next ones taken meanwhile.

    Args:
        split: the images.
        size: of a batch.
        workers: see `Batches`.
        every, first: only the batches first, first + every, and so on, counted from 0.
    """
    count = -(-len(split) // size)
    workers = usual_workers(split) if workers is None else workers

    def images_of(turn: int) -> Tuple[int, Sequence[int]]:
        return 0, range(len(split))[(first + turn * every) * size :][:size]

    prefetch = Prefetch(_Parts(split, images_of), workers)
    for turn in range(len(range(first, count, every))):
        yield _joined(prefetch.get(turn))


def usual_workers(split: Split) -> int:
    """Return the threads that taking images of a split is worth: none unless it says that it decodes them."""
    return min(MOST_WORKERS, usable_cores()) if getattr(split, "decodes", False) else 0


class _Order:
    """Which images a step shows: (pass, indices)."""

    def __init__(self, count: int, size: int, seed: int, own: slice) -> None:
        self._count, self._size, self._seed, self._own = count, size, seed, own
        self._per_pass = count // size
        self._order: Tuple[int, Optional[torch.Tensor]] = (-1, None)

    def __call__(self, step: int) -> Tuple[int, Sequence[int]]:
        turn, place = divmod(step, self._per_pass)
        if self._order[0] != turn:
            generator = torch.Generator().manual_seed((self._seed << 20) + turn)
            self._order = (turn, torch.randperm(self._count, generator=generator))
        order = self._order[1]
        assert order is not None  # noqa: S101  # for the type checker
        return turn, order[place * self._size : (place + 1) * self._size][self._own].tolist()


class _Parts:
    """The work of a step: its images in as many parts as there are to share out."""

    def __init__(self, split: Split, order: Callable[[int], Tuple[int, Sequence[int]]]) -> None:
        self._split, self._order = split, order

    def __call__(self, step: int, count: int) -> List[Callable[[], Batch]]:
        turn, indices = self._order(step)
        length = max(1, -(-len(indices) // count))
        return [
            partial(self._split.take, indices[start : start + length], turn)
            for start in range(0, len(indices), length)
        ]


def _joined(parts: List[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])
