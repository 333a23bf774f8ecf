"""Scores of the tasks, from exact counts: what export and verification judge by, free of torch."""

from __future__ import annotations

import math
from typing import Callable, Dict, Optional, Tuple

import numpy as np

from edgeecc.config import IGNORE_LABEL
from edgeecc.errors import ConfigError, DataError
from edgeecc.training.task import Array, Scores

#: The second score of classification counts a label among so many first ones, where there are more classes.
TOP = 5


class TopK:
    """Images whose label has the largest logit (top-1), or one of the five largest (top-5).

    Of equal logits the earlier class counts as larger, as argmax has it. What is not a number is never right.

    Args:
        classes: of the data set; None takes as many as the network tells.
    """

    def __init__(self, classes: Optional[int] = None) -> None:
        self._classes = classes
        self._right: Dict[str, int] = {}
        self._images = 0

    def check(self, shape: Tuple[int, ...], labels: Array) -> None:
        """Check logits (n, classes) against labels (n,); see `Scores.check`."""
        if len(shape) != 2 or labels.shape != shape[:1]:
            raise DataError(
                f"the network does not return logits (N, classes) for labels {labels.shape}, it returns {shape}; "
                "classification takes one label an image, segmentation one a pixel"
            )
        _check_classes(self._classes, shape[1])
        _check_labels(labels, shape[1])

    def add(self, output: Array, labels: Array) -> None:
        """Count a batch of logits (n, classes) and labels (n,); see `Scores.add`."""
        self.check(output.shape, labels)
        own = output[np.arange(len(labels)), labels][:, None]
        earlier = np.arange(output.shape[1]) < labels[:, None]
        rank = np.sum(~((output < own) | ((output == own) & ~earlier)), axis=1)
        for most in (1, TOP) if output.shape[1] > TOP else (1,):
            name = f"top-{most}"
            self._right[name] = self._right.get(name, 0) + int(np.sum(rank < most))
        self._images += len(labels)

    def counts(self) -> Array:
        """Return images, then the right ones of each score; see `Scores.counts`."""
        return np.array(
            [self._images, *self._right.values()] if self._images else [], dtype=np.int64
        )

    def put(self, counts: Array) -> None:
        """Go on from counts; see `Scores.put`."""
        images, *right = (int(count) for count in counts) if len(counts) else (0,)
        self._images, self._right = images, dict(zip(("top-1", f"top-{TOP}"), right))

    def result(self) -> Dict[str, float]:
        """Return the shares of images; see `Scores.result`."""
        if not self._images:
            raise DataError("no image was scored; give validation images")
        return {name: right / self._images for name, right in self._right.items()}


class Confusion:
    """Pixels by label and prediction: the mean over classes of TP / (TP + FP + FN), and the share of right ones.

    Pixels labelled `IGNORE_LABEL` do not count. A class that is neither labelled nor predicted is left out of
    the mean; a class beyond the data set's is wrong where it is predicted, and no class of the mean (as
    ERFNet's evaluation has it). Logits of a smaller grid are enlarged, see `enlarged`.

    Args:
        classes: of the data set; None takes as many as the network tells.
    """

    def __init__(self, classes: Optional[int] = None) -> None:
        self._classes = classes
        self._counts = np.zeros((0, 0), dtype=np.int64)

    def check(self, shape: Tuple[int, ...], labels: Array) -> None:
        """Check logits (n, classes, h, w) against labels (n, H, W); see `Scores.check`."""
        if len(shape) != 4 or labels.ndim != 3 or shape[0] != len(labels):
            raise DataError(
                f"the network does not return logits (N, classes, H, W) for labels {labels.shape}, it returns {shape}; "
                "segmentation takes one label a pixel, classification one an image"
            )
        enlargement(shape[2:], labels.shape[1:])
        if shape[1] > IGNORE_LABEL:
            raise DataError(
                f"the network tells {shape[1]} classes, segmentation takes at most {IGNORE_LABEL}: label "
                f"{IGNORE_LABEL} means none; merge some"
            )
        _check_classes(self._classes, shape[1])
        _check_labels(labels[labels != IGNORE_LABEL], shape[1])

    def add(self, output: Array, labels: Array) -> None:
        """Count a batch of logits (n, classes, h, w) and labels (n, H, W); see `Scores.add`."""
        self.check(output.shape, labels)
        told = output.shape[1]
        valid = labels != IGNORE_LABEL
        predicted = enlarged(output, labels.shape[1:]).argmax(1)[valid]
        pairs = labels[valid].astype(np.int64) * told + predicted
        counts = np.bincount(pairs, minlength=told * told).reshape(told, told)
        self._counts = counts + self._counts if self._counts.size else counts

    def counts(self) -> Array:
        """Return the pixels of each label and prediction; see `Scores.counts`."""
        return self._counts.reshape(-1)

    def put(self, counts: Array) -> None:
        """Go on from counts; see `Scores.put`."""
        told = math.isqrt(len(counts))
        self._counts = np.asarray(counts, dtype=np.int64).reshape(told, told)

    def result(self) -> Dict[str, float]:
        """Return the mean IoU and the pixel accuracy; see `Scores.result`."""
        pixels = int(self._counts.sum())
        if not pixels:
            raise DataError(
                f"no pixel of the validation images has a label, all are {IGNORE_LABEL}; check the label maps"
            )
        right = np.diag(self._counts)
        union = (self._counts.sum(0) + self._counts.sum(1) - right)[: self._classes]
        seen = union > 0
        shares = right[: self._classes][seen] / union[seen]
        return {"mean IoU": float(shares.mean()), "pixel accuracy": float(right.sum() / pixels)}


#: Task -> its scores.
SCORES: Dict[str, Callable[[Optional[int]], Scores]] = {
    "classification": TopK,
    "segmentation": Confusion,
}


def make_scores(task: str, classes: Optional[int]) -> Scores:
    """Return the counts of a task, at zero.

    Raises: ConfigError for an unknown task.
    """
    if task not in SCORES:
        raise ConfigError(f"unknown task {task!r}; known are {', '.join(sorted(SCORES))}")
    return SCORES[task](classes)


def enlargement(small: Tuple[int, ...], large: Tuple[int, ...]) -> int:
    """Return how many times a grid (h, w) fits another in both directions, 1 where they are equal.

    Raises: DataError when it does not.
    """
    times = large[0] // small[0] if small[0] else 0
    if times < 1 or (small[0] * times, small[1] * times) != large:
        raise DataError(
            f"the network returns {_by(small)} logits for labels of {_by(large)}; return the labels' size, or a whole "
            "fraction of it"
        )
    return times


def enlarged(logits: Array, size: Tuple[int, ...]) -> Array:
    """Return logits (n, c, h, w) enlarged bilinearly to `size`, as torch does it with corners not aligned.

    Raises: DataError when `size` is not a whole multiple of the logits', see `enlargement`.
    """
    times = enlargement(logits.shape[2:], size)
    if times == 1:
        return logits
    down, across = (_interpolation(count, times, logits.dtype) for count in logits.shape[2:])
    larger: Array = down @ logits @ across.T
    return larger


def _interpolation(count: int, times: int, dtype: np.dtype[np.generic]) -> Array:
    """Return the (count * times, count) matrix of linear interpolation between pixel centres."""
    places = np.clip((np.arange(count * times) + 0.5) / times - 0.5, 0, count - 1)
    return np.clip(1.0 - np.abs(places[:, None] - np.arange(count)), 0, None).astype(dtype)


def _check_classes(wanted: Optional[int], told: int) -> None:
    if wanted is not None and told < wanted:
        raise DataError(
            f"the data set has {wanted} classes, the network {told}; use the data it was trained on"
        )


def _check_labels(labels: Array, told: int) -> None:
    """Check that labels of any shape lie in 0..told-1."""
    wrong = labels[(labels < 0) | (labels >= told)]
    if wrong.size:
        raise DataError(
            f"the data holds label {int(wrong[0])}, the network tells 0..{told - 1}; use its own data"
        )


def _by(size: Tuple[int, ...]) -> str:
    return "x".join(map(str, size))
