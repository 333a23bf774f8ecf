"""The course of a solve, group by group, for the report: what histories of single numbers leave out."""

from __future__ import annotations

from typing import Dict, List, Mapping, Sequence

import numpy as np
import torch

from edgeecc.graph.spec import FloatArray

#: Rows of a course at most, but for the first and the last step: charts show no more (ours).
ROWS = 200
#: Digits that a row keeps.
_DIGITS = 6


class Course:
    """Bounds s and duals y of every group, at evenly spread steps.

    Args:
        groups: their names, in the order of the width vector.
    """

    def __init__(self, groups: Sequence[str]) -> None:
        self._groups = list(groups)
        self._steps: List[int] = []
        self._s: List[FloatArray] = []
        self._y: List[FloatArray] = []

    def take(self, step: int, steps: int, s: FloatArray, y: FloatArray) -> None:
        """Keep s and y, (G,), of a step, counted from 1, where it is one that is kept."""
        every = -(-steps // ROWS)
        if step == 1 or step == steps or step % every == 0:
            self._steps.append(step)
            self._s.append(s.copy())
            self._y.append(y.copy())

    def state(self) -> Dict[str, torch.Tensor]:
        """Return what must survive a kill."""
        shape = (len(self._steps), len(self._groups))
        return {
            "course.step": torch.tensor(self._steps, dtype=torch.int64),
            "course.s": torch.from_numpy(np.array(self._s, dtype=np.float64).reshape(shape)),
            "course.y": torch.from_numpy(np.array(self._y, dtype=np.float64).reshape(shape)),
        }

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` returned; checkpoints of earlier versions keep no course, it begins anew."""
        if "course.step" in state:
            self._steps = [int(step) for step in state["course.step"]]
            self._s = list(state["course.s"].numpy().copy())
            self._y = list(state["course.y"].numpy().copy())

    def to_json(self) -> Dict[str, object]:
        """Return it JSON-ready: the groups, the steps, and a row of numbers for each step."""
        return {
            "groups": self._groups,
            "step": self._steps,
            "s": [_rounded(row) for row in self._s],
            "y": [_rounded(row) for row in self._y],
        }


def _rounded(row: FloatArray) -> List[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in row]
