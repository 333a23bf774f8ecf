"""Where tests of training compute: the CPU, and as many GPUs as a test needs, without which it skips."""

from __future__ import annotations

from typing import Any

import pytest
import torch


def gpus(count: int, *more: object) -> Any:
    """Return the parameter "cuda" of a test that needs so many GPUs, and more parameters behind it."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    reason = "no GPU" if count == 1 else f"fewer than {count} GPUs"
    needed = pytest.mark.skipif(found < count, reason=reason)
    return pytest.param("cuda", *more, marks=[pytest.mark.gpu, needed])


#: For tests in one process.
GPU = gpus(1)
#: For tests in two, each of which has its own.
TWO_GPUS = gpus(2)
