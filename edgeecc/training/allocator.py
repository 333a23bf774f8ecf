"""Memory of training on a CPU: blocks that are freed stay with the process, to be given out again (ours).

The C library of Linux, glibc, maps blocks of 32 MB and more afresh each time, and returns what is free at the end of
its heap. The kernel then clears every page of them again, at every layer of every step: as long as many layers take.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Callable, Iterator, Optional

import torch

#: Parameters of mallopt, by glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
#: No block is mapped; the end of the heap is never returned (-1).
_KEEPING = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
#: Where glibc's thresholds end up by themselves once a large block was freed; the number of maps is its default.
_RETURNING = (
    (_MMAP_THRESHOLD, 32 * 2**20),
    (_TRIM_THRESHOLD, 64 * 2**20),
    (_MMAP_MAX, 65536),
)

Mallopt = Callable[[int, int], int]


@contextlib.contextmanager
def freed_memory_kept(device: torch.device) -> Iterator[bool]:
    """Keep what is freed while the context is open, and return it to the kernel at its end; gives whether it is kept.

    Results do not change. The process holds its peak of memory until the end. Nothing changes where a GPU computes,
    where the C library is not glibc, and where the environment sets glibc's allocator (`MALLOC_*_`, `GLIBC_TUNABLES`).

    Args:
        device: that computes.
    """
    mallopt = None if device.type != "cpu" or _is_set_by_the_user() else _mallopt()
    if mallopt is None or not all([mallopt(*setting) for setting in _KEEPING]):
        yield False
        return
    try:
        yield True
    finally:
        for setting in _RETURNING:
            mallopt(*setting)
        ctypes.CDLL(None).malloc_trim(0)


def _is_set_by_the_user() -> bool:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return "glibc.malloc" in tunables or any(
        name.startswith("MALLOC_") and name.endswith("_") for name in os.environ
    )


def _mallopt() -> Optional[Mallopt]:
    """Return glibc's mallopt, None where the C library is another."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # TypeError: no handle for None
        library = ctypes.CDLL(None)
        if hasattr(library, "gnu_get_libc_version"):
            return library.mallopt
    return None
