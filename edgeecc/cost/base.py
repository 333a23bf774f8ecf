"""What every cost model offers.

A cost model predicts one metric of the network, in SI, from the vector of widths of the prunable groups in
the order of `NetworkSpec.prunable`. Solvers see nothing else of a device.
"""

from __future__ import annotations

from typing import Dict, Protocol, Tuple

from edgeecc.graph.spec import FloatArray
from edgeecc.units import Metric


class CostModel(Protocol):
    """Cost of a network as a function of its widths."""

    @property
    def metric(self) -> Metric:
        """What is predicted."""

    @property
    def meter(self) -> str:
        """Where the numbers come from, as it must be printed beside them ("model of virtual:tx2", "exact count")."""

    @property
    def dense(self) -> Tuple[int, ...]:
        """Dense widths, in the order of the width vector."""

    @property
    def tile(self) -> int:
        """Channels that the device mostly works in together, so that fewer cost no less; 1 where each has its cost."""

    def predict(self, widths: FloatArray) -> float:
        """Return the cost at `widths`, shape (G,), real-valued within 1..c_g."""

    def gradient(self, widths: FloatArray) -> FloatArray:
        """Return d cost / d width at `widths`, shape (G,), cost unit per channel."""

    def to_json(self) -> Dict[str, object]:
        """Return the model as JSON-ready values."""
