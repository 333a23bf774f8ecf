"""The N:M pattern of sparse matrix units: of every M consecutive input channels at most N weights are not zero.

Source of the rule: TensorRT 8.6 developer guide, section "Sparsity". In a kernel [K, C, R, S] with C a multiple of
four, and in a fully connected layer, every four input channels of each output channel and kernel place have at least
two zeros. The groups start at channel 0 and do not overlap. cuSPARSELt calls the same 50 % (`cusparseLtSparsity_t`:
2:4 for half, bfloat16 and int8; float32 would be 1:2), and so does "Accelerating Sparse Deep Neural Networks"
(arXiv 2104.08378).

Layers that stay free:
- an input that is no multiple of four, as of a first layer that reads one or three channels;
- grouped and depthwise convolutions, for which TensorRT considers no sparse kernel (NVIDIA/TensorRT issue 4054);
- transposed convolutions (ours): the guide names convolutions and fully connected layers only.

The pattern makes a layer eligible, no more: TensorRT takes a sparse kernel where it is the faster one, in FP16 or INT8,
mostly from 256 input and output channels on (NVIDIA/TensorRT issue 3849).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

import numpy as np
import numpy.typing as npt

from edgeecc.errors import ArtifactError, ConfigError

BoolArray = npt.NDArray[np.bool_]
#: Weights of any dtype.
Array = npt.NDArray[Any]

#: Consecutive weights that a sparse matrix unit looks at together, and how many of them it multiplies.
GROUP = 4
MOST = 2


@dataclass(frozen=True)
class Pattern:
    """At most `keep` of every `of` consecutive weights along the input channels are not zero.

    Args:
        keep: 1 or 2; fewer nonzero weights than the units take are as good to them.
        of: 4.
    """

    keep: int
    of: int

    def __post_init__(self) -> None:
        if self.of != GROUP or not 0 < self.keep <= MOST:
            raise ConfigError(
                f"pattern {self.text} is not served by sparse matrix units; give 2:4, or 1:4"
            )

    @property
    def text(self) -> str:
        """Return how the pattern is written, such as 2:4."""
        return f"{self.keep}:{self.of}"

    def applies(self, weight_shape: Sequence[int], *, groups: int, transposed: bool) -> bool:
        """Return whether a layer can have the pattern.

        Args:
            weight_shape: (outputs, inputs, ...) of a convolution or a matrix.
            groups: convolution groups, 1 for a matrix.
            transposed: whether it is a transposed convolution.
        """
        return groups == 1 and not transposed and weight_shape[1] % self.of == 0

    def keep_largest(self, weights: Array) -> BoolArray:
        """Return the weights of greatest magnitude in every group, in the shape of `weights`; of equal ones the first.

        Args:
            weights: (outputs, inputs, ...) of a layer to which the pattern applies, finite.
        """
        magnitude = np.abs(self._grouped(weights))
        behind = np.zeros(magnitude.shape, dtype=np.int8)  # of how many others in its group
        for one in range(self.of):
            for other in range(one + 1, self.of):
                first = magnitude[:, :, one] >= magnitude[:, :, other]
                behind[:, :, other] += first
                behind[:, :, one] += ~first
        kept: BoolArray = (behind < self.keep).reshape(weights.shape)
        return kept

    def restrict(self, weights: Array) -> Array:
        """Return weights with zeros outside the pattern; one that is not finite leaves a trace that is not finite."""
        with np.errstate(invalid="ignore"):  # infinity times zero
            restricted: Array = weights * self.keep_largest(weights)
        return restricted

    def holds(self, weights: Array) -> bool:
        """Return whether weights (outputs, inputs, ...) of a layer to which the pattern applies have it."""
        return bool((np.count_nonzero(self._grouped(weights), axis=2) <= self.keep).all())

    def _grouped(self, weights: Array) -> Array:
        """Return weights as (outputs, groups, places in a group, places of the kernel), without a copy if possible."""
        outputs, inputs = weights.shape[:2]
        return weights.reshape(outputs, inputs // self.of, self.of, -1)


def parse(text: str) -> Pattern:
    """Return the pattern that is written as N:M.

    Raises: ConfigError when it is written otherwise or no unit serves it.
    """
    numbers = re.fullmatch(r"(\d+):(\d+)", text, flags=re.ASCII)
    if numbers is None:
        raise ConfigError(f"pattern {text!r} is not written as N:M; give 2:4")
    return Pattern(int(numbers[1]), int(numbers[2]))


def pattern_of(result: Mapping[str, object], source: Path) -> Optional[Pattern]:
    """Return the pattern that a run was pruned to, from its result, None where it has none.

    Raises: ArtifactError when result.json names something else.
    """
    values = result.get("pattern")
    if values is None:
        return None
    try:
        return parse(str(values["text"]) if isinstance(values, dict) else "")
    except (KeyError, ConfigError) as error:
        raise ArtifactError(
            f"{source} is damaged: its pattern is {values!r}; run edgeecc prune again"
        ) from error
