"""What a forward returns, as a flat list of tensors."""

from __future__ import annotations

from typing import List, Mapping

import torch

from edgeecc.errors import GraphError


def tensors(output: object) -> List[torch.Tensor]:
    """Return the tensors of a forward result, which may be nested in tuples, lists and dicts.

    None and plain numbers are passed over: they hold no channels.

    Raises: GraphError for anything else, because tensors inside it would escape every check.
    """
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, (list, tuple)):
        return [tensor for item in output for tensor in tensors(item)]
    if output is None or isinstance(output, (bool, int, float, str)):
        return []
    raise GraphError(
        f"forward returns a {type(output).__name__}; return tensors in a tuple, list or dict"
    )
