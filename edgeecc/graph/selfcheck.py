"""The proof that a group may be pruned: cutting it out gives what masking it gives, on a network at random.

The check runs on a copy with random, lively parameters, so that dead channels or zero weights in the user's
network cannot hide a mistake, and in float64, so that rounding cannot either.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Dict, List, Sequence, Tuple

import numpy as np
import torch
from torch import nn

from edgeecc.errors import GraphError
from edgeecc.graph.spec import IntArray, NetworkSpec
from edgeecc.graph.surgery import mask_, slim

#: Relative to the largest output; float64 rounding stays near 1e-14.
TOLERANCE = 1e-8


def prove(
    model: nn.Module, example_inputs: Tuple[torch.Tensor, ...], spec: NetworkSpec
) -> Dict[str, str]:
    """Return the groups that fail, with the reason; empty when slim equals mask for all at once.

    Raises: GraphError when groups that pass alone fail together.
    """
    lively, inputs = (
        _lively(model),
        tuple(x.double() if x.is_floating_point() else x for x in example_inputs),
    )
    if not _fault(lively, inputs, spec, _random_keep(spec)):
        return {}
    failures: Dict[str, str] = {}
    everything = [group.name for group in spec.prunable]
    suspects = [everything[: len(everything) // 2], everything[len(everything) // 2 :]]
    while (
        suspects
    ):  # halve what fails until single groups are left: few fail, and a forward may take seconds
        names = suspects.pop()
        part = _only(spec, names)
        fault = _fault(lively, inputs, part, _random_keep(part))
        if fault and len(names) == 1:
            failures[names[0]] = fault
        elif fault:
            half = len(names) // 2
            suspects += [names[half:], names[:half]]
    rest = _without(spec, failures)
    fault = _fault(lively, inputs, rest, _random_keep(rest))
    if fault:
        raise GraphError(
            f"{spec.network or 'the network'} cannot be slimmed: {fault}; report it with the network"
        )
    return failures


def _fault(
    model: nn.Module, inputs: Tuple[torch.Tensor, ...], spec: NetworkSpec, keep: Dict[str, IntArray]
) -> str:
    """Return what goes wrong when the kept units are cut out, or nothing."""
    if not spec.prunable:
        return ""
    masked = copy.deepcopy(model)
    mask_(masked, spec, keep)
    with torch.no_grad():
        expected = tensors(masked(*inputs))
        try:
            found = tensors(slim(model, spec, keep)(*inputs))
        except Exception as error:  # anything that forward may raise is a reason
            detail = " ".join(str(error).split())[:160]
            return f"forward fails without its channels ({type(error).__name__}: {detail})"
    if [x.shape for x in expected] != [x.shape for x in found]:
        return "its channels are an output of the network"
    for one, other in zip(expected, found):
        scale = float(one.abs().max()) + 1e-30
        if not float((one - other).abs().max()) <= TOLERANCE * scale:
            return "removing its channels changes the function"
    return ""


def tensors(output: object) -> List[torch.Tensor]:
    """Return the tensors of a forward result, which may be nested in tuples, lists and dicts."""
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, (list, tuple)):
        return [tensor for item in output for tensor in tensors(item)]
    return []


def _lively(model: nn.Module) -> nn.Module:
    """Return a float64 copy in eval mode with random parameters in which no channel is dead."""
    generator = torch.Generator().manual_seed(1)
    lively = copy.deepcopy(model).cpu().double().eval()
    with torch.no_grad():
        for name, value in [*lively.named_parameters(), *lively.named_buffers()]:
            if not value.is_floating_point():
                continue
            if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.ndim >= 2:
                value.normal_(0.0, 1.0 / max(1, value[0].numel()) ** 0.5, generator=generator)
            else:
                value.normal_(0.0, 0.1, generator=generator)
    return lively


def _random_keep(spec: NetworkSpec) -> Dict[str, IntArray]:
    """Return a random half of every group, so that order and place of the kept units matter."""
    generator = np.random.default_rng(0)
    return {
        group.name: np.sort(generator.choice(group.width, max(1, group.width // 2), replace=False))
        for group in spec.prunable
    }


def _only(spec: NetworkSpec, names: Sequence[str]) -> NetworkSpec:
    return replace(
        spec, groups=tuple(replace(g, prunable=g.prunable and g.name in names) for g in spec.groups)
    )


def _without(spec: NetworkSpec, failures: Dict[str, str]) -> NetworkSpec:
    groups = tuple(
        replace(g, prunable=False, reason=failures[g.name]) if g.name in failures else g
        for g in spec.groups
    )
    return replace(spec, groups=groups)
