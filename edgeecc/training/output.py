"""What counts of a network's result."""

from __future__ import annotations

from typing import Mapping

import torch

from edgeecc.errors import DataError


def first_tensor(returned: object) -> torch.Tensor:
    """Return a network's result if it is a tensor, else the first entry of the tuple, list or dict.

    The first also is the first output of the exported graph. Segmentation networks of torchvision return their
    logits first ("out", then "aux").

    Raises: DataError where no tensor is first.
    """
    found = returned
    while isinstance(found, (Mapping, list, tuple)) and len(found):
        found = next(iter(found.values())) if isinstance(found, Mapping) else found[0]
    if not isinstance(found, torch.Tensor):
        raise DataError(
            f"the network does not return logits but {type(found).__name__}; return a tensor, or one first in a tuple, "
            "list or dict"
        )
    return found
