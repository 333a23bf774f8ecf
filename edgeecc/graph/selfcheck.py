"""The proof that a group may be pruned: cutting it out gives what masking it gives, on a network at random.

Equality proves nothing where the group does not matter, so a group must also be seen to matter: masking it
has to move the outputs by far more than rounding does. What cannot be shown stays whole.
"""

from __future__ import annotations

import warnings
from typing import Dict, List, Sequence, Tuple

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from edgeecc.errors import GraphError, brief
from edgeecc.graph.lively import Trial, lively_trial
from edgeecc.graph.outputs import tensors
from edgeecc.graph.spec import IntArray, Keep, NetworkSpec
from edgeecc.graph.surgery import mask_tensors, slim

#: Random networks tried before a group that moves no output is given up.
SEEDS = (1, 2, 3)
#: Masking a group must move an output by this many times the rounding.
POWER = 100.0


def prove(
    model: nn.Module, example_inputs: Tuple[torch.Tensor, ...], spec: NetworkSpec
) -> Dict[str, str]:
    """Return the groups that are not proved, with the reason; empty when all pass together.

    Raises: GraphError when groups that pass alone fail together, or no random network runs.
    """
    if not spec.prunable:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a slim forward may warn of what is about to be refused
        trial, failures = _telling_trial(model, example_inputs, spec)
        for keep in _keeps(spec):
            failures.update(_failing(trial, spec.with_whole(failures), keep))
        rest = spec.with_whole(failures)
        faults = [_fault(trial, rest, keep) for keep in _keeps(spec) if failures]
    if any(faults):
        fault = next(fault for fault in faults if fault)
        raise GraphError(
            f"{spec.network or 'the network'} cannot be slimmed: {fault}; report it with the network"
        )
    return failures


def _telling_trial(
    model: nn.Module, example_inputs: Tuple[torch.Tensor, ...], spec: NetworkSpec
) -> Tuple[Trial, Dict[str, str]]:  # fmt: skip
    """Return the random network in which most groups matter, and the groups that do not even there."""
    best: Tuple[Trial, List[str]] = (lively_trial(model, example_inputs, SEEDS[0]), [])
    for seed in SEEDS:
        trial = best[0] if seed == SEEDS[0] else lively_trial(model, example_inputs, seed)
        idle = _idle(trial, spec)
        if seed == SEEDS[0] or len(idle) < len(best[1]):
            best = (trial, idle)
        if not idle:
            break
    reason = "its channels do not move the outputs, so nothing can be proved about them"
    return best[0], {name: reason for name in best[1]}


def _idle(trial: Trial, spec: NetworkSpec) -> List[str]:
    """Return the groups that can be masked without moving any output visibly.

    One backward pass tells most groups from dead ones; a forward without its units decides on the others.
    """
    keep = _keeps(spec)[0]
    moving = _first_order(trial, spec, keep)
    dense: List[torch.Tensor] = []
    idle = []
    for group in spec.prunable:
        if moving.get(group.name, 0.0) > POWER * trial.tolerance:
            continue
        dense = dense or trial.run(trial.model)
        masked = _masked(trial, _only(spec, [group.name]), keep)
        if all(_close(one, other, POWER * trial.tolerance) for one, other in zip(dense, masked)):
            idle.append(group.name)
    return idle


def _first_order(trial: Trial, spec: NetworkSpec, keep: Keep) -> Dict[str, float]:
    """Return how far masking each group moves a random projection of the outputs, to first order, relative.

    Empty where the network cannot be differentiated.
    """
    weights = dict(trial.model.named_parameters(remove_duplicate=False))
    generator = torch.Generator().manual_seed(0)
    try:
        outputs = [
            x for x in tensors(trial.model(*(x.clone() for x in trial.inputs))) if x.requires_grad
        ]
        projected = [
            (x * torch.randn(x.shape, generator=generator, dtype=x.dtype)).sum()
            / (float(x.detach().abs().max()) * x.numel() ** 0.5)
            for x in outputs
        ]
        gradients = torch.autograd.grad(sum(projected), list(weights.values()), allow_unused=True)
    except (RuntimeError, ZeroDivisionError):
        return {}
    slopes = {name: slope for name, slope in zip(weights, gradients) if slope is not None}
    moves = {}
    for group in spec.prunable:
        alone = _only(spec, [group.name])
        masks = mask_tensors(alone, _part(alone, keep))
        lost = [
            ((1 - mask.to(weights[name])) * weights[name].detach() * slopes[name]).sum()
            for name, mask in masks.items()
            if name in slopes
        ]
        moves[group.name] = abs(float(sum(lost)))
    return moves


def _failing(trial: Trial, spec: NetworkSpec, keep: Keep) -> Dict[str, str]:
    """Return the groups that fail, found by halving: few do, and a forward may take seconds."""
    failures: Dict[str, str] = {}
    suspects = [[group.name for group in spec.prunable]]
    while suspects:
        names = suspects.pop()
        fault = _fault(trial, _only(spec, names), keep)
        if fault and len(names) == 1:
            failures[names[0]] = fault
        elif fault:
            half = len(names) // 2
            suspects += [names[half:], names[:half]]
    return failures


def _fault(trial: Trial, spec: NetworkSpec, keep: Keep) -> str:
    """Return what goes wrong when all units that are not kept are cut out, or nothing."""
    try:
        found = trial.run(slim(trial.model, spec, _part(spec, keep)))
    except Exception as error:  # anything that forward may raise is a reason
        return f"forward fails without its channels ({type(error).__name__}: {brief(error)})"
    expected = _masked(trial, spec, keep)
    if [x.shape for x in expected] != [x.shape for x in found]:
        return "its channels are an output of the network"
    if not all(_close(one, other, trial.tolerance) for one, other in zip(expected, found)):
        return "removing its channels changes the function"
    return ""


def _masked(trial: Trial, spec: NetworkSpec, keep: Keep) -> List[torch.Tensor]:
    weights = dict(trial.model.named_parameters(remove_duplicate=False))
    masked = {
        name: weights[name].detach() * mask.to(weights[name])
        for name, mask in mask_tensors(spec, _part(spec, keep)).items()
    }
    with torch.no_grad():
        outputs = functional_call(trial.model, masked, tuple(x.clone() for x in trial.inputs))
    return tensors(outputs)


def _close(one: torch.Tensor, other: torch.Tensor, tolerance: float) -> bool:
    """Return whether two outputs are equal up to `tolerance` of the largest value; not a number never is."""
    one, other = one.double(), other.double()
    finite = one[one.isfinite()].abs()
    bound = tolerance * (float(finite.max()) if finite.numel() else 0.0)
    return bool(((one == other) | ((one - other).abs() <= bound)).all())


def _keeps(spec: NetworkSpec) -> Tuple[Dict[str, IntArray], ...]:
    """Return what to keep: a random half, the other half, and all but one.

    A maximum over channels sits in one of the halves, so it cannot survive both. All but one shares no
    factor with the width, so it does not fit where forward splits channels evenly.
    """
    generator = np.random.default_rng(0)
    half, other, most = {}, {}, {}
    for group in spec.prunable:
        order = generator.permutation(group.width)
        half[group.name] = np.sort(order[: group.width // 2])
        other[group.name] = np.sort(order[group.width // 2 :])
        most[group.name] = np.sort(order[1:])
    return half, other, most


def _part(spec: NetworkSpec, keep: Keep) -> Keep:
    return {group.name: keep[group.name] for group in spec.prunable}


def _only(spec: NetworkSpec, names: Sequence[str]) -> NetworkSpec:
    """Return the spec in which only these groups are prunable."""
    return spec.with_whole({g.name: "not tried" for g in spec.prunable if g.name not in names})
