"""What a unit is worth to its group: importance between units of loss and shares of a group's own (ours).

First-order terms tell what a unit is worth now. Fine-tuning makes up for much of what goes, and for more where a group
is wide and has little to tell: what is left of a loss after it is more alike among groups than the loss itself.
Importance over a power of what its group's units were worth before any went stands between the two.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np

from edgeecc.graph.spec import FloatArray


def levels(importance: Sequence[FloatArray], power: float) -> FloatArray:
    """Return the factor on the importance of each group's units, (G,): one over their mean to a power.

    A factor on all importance is one on all results, so that widths do not change with it.

    Args:
        importance: per group, (c_g,), at least 0, before any unit went.
        power: 0 leaves units of loss, 1 makes the groups alike.
    """
    means = np.array([values.mean() for values in importance], dtype=np.float64)
    return np.asarray((means + 1e-300) ** -power, dtype=np.float64)
