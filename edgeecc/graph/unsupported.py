"""Modules that edgeecc cannot trace, told apart before anything runs, so that the error names them."""

from __future__ import annotations

import torch
from torch import nn

from edgeecc.errors import GraphError


def check_modules(model: nn.Module) -> None:
    """Check that a network holds only modules that can be traced.

    Raises: GraphError naming the first that is compiled, quantised, recurrent or of complex numbers.
    """
    for name, module in model.named_modules():
        what = _fault(module)
        if what:
            raise GraphError(f"module {name or '(root)'} is {what}")
    for name, value in model.named_parameters():
        if value.is_complex():
            raise GraphError(
                f"{name} holds complex numbers; write the network with real and imaginary parts as channels"
            )


def _fault(module: nn.Module) -> str:
    """Return what a module is and what to do, or nothing."""
    kind = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        return "compiled by torch.jit; give the Python module that it was made from"
    if "quantized" in kind.__module__ or "quantizable" in kind.__module__:
        return f"quantised ({kind.__name__}); prune the float network and quantise the result"
    if isinstance(module, nn.RNNBase):
        return f"recurrent ({kind.__name__}); prune the convolutional part alone"
    return ""
