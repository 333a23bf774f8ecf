"""What a unit is worth to a layer that reads it: importance between units of loss and shares of the layer's own (ours).

First-order terms tell what a unit is worth now. Fine-tuning makes up for much of what goes, and for more where a layer
reads many units that tell little each: what is left of a loss after it is more alike among layers than the loss
itself. What a unit is worth to a layer, over a power of what the layer's units were worth to it before any went, stands
between the two. By layers and not by groups: what a residual sum carries is read by many layers, and is worth that
much more.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np

from edgeecc.graph.spec import FloatArray


def levels(squares: Sequence[FloatArray], power: float) -> FloatArray:
    """Return the factor on the squared terms of each reading, (n,): one over their mean to a power.

    A factor on all squares is one on all results, so that widths do not change with it.

    Args:
        squares: per reading, of its units, at least 0, before any unit went.
        power: 0 leaves units of loss, 1 makes the readings alike.
    """
    means = np.array([values.mean() for values in squares], dtype=np.float64)
    return np.asarray((means + 1e-300) ** -power, dtype=np.float64)
