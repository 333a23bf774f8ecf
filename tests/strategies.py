"""Hypothesis strategies."""

from __future__ import annotations

from typing import Dict

import numpy as np
from hypothesis import strategies as st

from edgeecc.graph.spec import IntArray, NetworkSpec


@st.composite
def keeps(draw: st.DrawFn, spec: NetworkSpec) -> Dict[str, IntArray]:
    """Draw which units of every prunable group stay."""
    kept = {}
    for group in spec.prunable:
        units = draw(st.sets(st.integers(0, group.width - 1), min_size=1))
        kept[group.name] = np.array(sorted(units), dtype=np.int64)
    return kept
