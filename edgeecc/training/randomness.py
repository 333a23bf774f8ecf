"""The random state of dropout and its like.

It is a function of seed, batch and process, so that a resumed run has the same.
"""

from __future__ import annotations

import contextlib
from typing import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def own_random_state(device: torch.device) -> Iterator[None]:
    """Put the caller's random state back in the end."""
    before = torch.get_rng_state()
    on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        torch.set_rng_state(before)
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu, device)


def seed_(device: torch.device, *key: int) -> None:
    """Set the random state of the CPU and of the device from whole numbers >= 0."""
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
    if device.type == "cuda":
        state = torch.Generator(device).manual_seed(seed).get_state()
        torch.cuda.set_rng_state(state, device)
