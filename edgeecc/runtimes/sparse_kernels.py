"""How many layers TensorRT could run by its sparse kernels and how many it does, as it says while it builds.

Up to release 8 it names the layers behind "eligible for sparse math" and "picked sparse implementation", which may be
none; later ones count them: "Found N layer(s) eligible", "Chose N layer(s)". Seen in the logs of NVIDIA/TensorRT issues
1340, 1403 and 4056, and in published logs of release 10.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, Optional

#: What every message about them begins with.
MARK = "(Sparsity)"
_NAMED = (
    r"Layers eligible for sparse math:(.*)",
    r"picked sparse implementation for layers:(.*)",
)
_COUNTED = (
    r"Found ([0-9]{1,6}) layer\(s\) eligible to use sparse tactics",
    r"Chose ([0-9]{1,6}) layer\(s\) using sparse tactics",
)


@dataclass(frozen=True)
class SparseKernels:
    """What came of the leave to use sparse kernels.

    Args:
        eligible: layers whose weights have the pattern.
        chosen: those that run by sparse kernels, which TensorRT takes where they are the faster ones.
    """

    eligible: int
    chosen: int

    def to_json(self) -> Dict[str, object]:
        """Return it JSON-ready."""
        return dict(vars(self))


def sparse_kernels(text: str) -> Optional[SparseKernels]:
    """Return what TensorRT's messages, one a line, tell last of sparse kernels; None where they do not."""
    counts = []
    for named, counted in zip(_NAMED, _COUNTED):
        found = None
        for line in text.splitlines():
            if MARK in line:
                by_name, by_number = re.search(named, line), re.search(counted, line)
                if by_number is not None:
                    found = int(by_number[1])
                elif by_name is not None:
                    found = len([name for name in by_name[1].split(",") if name.strip()])
        counts.append(found)
    eligible, chosen = counts
    return None if eligible is None or chosen is None else SparseKernels(eligible, chosen)
