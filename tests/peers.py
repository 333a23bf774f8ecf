"""A small problem for solvers that search: networks of the zoo, random images, several limits, and a kill."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Dict, Tuple

import torch
from torch import nn

from edgeecc.config import TrainConfig
from edgeecc.cost.exact import mac_cost, size_cost
from edgeecc.data.splits import TensorSplit
from edgeecc.graph.spec import FloatArray, NetworkSpec
from edgeecc.graph.surgery import mask_tensors
from edgeecc.graph.trace import trace
from edgeecc.solvers.base import Limit, Problem, Solution, Solver
from edgeecc.training.loop import TorchTrainer
from tests import zoo


class Killed(BaseException):
    """Stands for kill -9: not an Exception, so nothing may catch it."""


@lru_cache(maxsize=None)
def traced(name: str) -> Tuple[nn.Module, NetworkSpec]:
    """Return a zoo network, always the same, and its spec; not to be changed."""
    model, inputs = zoo.build(name)
    return model, trace(model, inputs, network=name)


def dense(name: str) -> nn.Module:
    """Return a copy of that network."""
    return copy.deepcopy(traced(name)[0])


def fresh(name: str) -> Tuple[nn.Module, NetworkSpec]:
    """Return a copy of that network, which may be changed, and its spec."""
    return dense(name), traced(name)[1]


def problem_of(spec: NetworkSpec, *shares: float) -> Problem:
    """Return a problem that leaves these shares of the MACs and, where there is a second, of the size."""
    dense = spec.vector(spec.dense_widths())
    costs = (mac_cost(spec), size_cost(spec))
    limits = (Limit(cost, share * cost.predict(dense)) for cost, share in zip(costs, shares))
    return Problem(spec, tuple(limits), 0)


def images(classes: int, count: int = 120) -> TensorSplit:
    """Return random images, the labels of which can be told from the brightness of a channel."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn((count, 3, 8, 8), generator=generator)
    bright = pixels[:, 0].mean((1, 2)).argsort().argsort()
    return TensorSplit(pixels, bright * classes // count)


def noise() -> TensorSplit:
    """Return random images with random labels of five classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn((160, 3, 8, 8), generator=generator)
    return TensorSplit(pixels, torch.randint(0, 5, (160,), generator=generator))


def solved(
    solver: Solver, name: str, problem: Problem, steps: int, **trainer: object
) -> Tuple[nn.Module, Solution]:
    """Return a copy of a zoo network that was pruned, and the solution."""
    model = dense(name)
    with torch.no_grad():
        split = images(model(torch.zeros(1, 3, 8, 8)).shape[1])
    loop = TorchTrainer(
        model,
        split,
        split,
        config=TrainConfig(batch_size=16, lr=1e-3),
        **{"held_out": 40, **trainer},
    )
    return model, solver.solve(problem, loop, steps)


def check_solution(model: nn.Module, problem: Problem, solution: Solution) -> Dict[str, int]:
    """Check that the limits hold and nothing that went is read; return the widths."""
    spec = problem.spec
    keep = spec.checked_keep(solution.keep)
    widths = {name: len(units) for name, units in keep.items()}
    assert problem.fits(spec.vector(widths))
    for name, mask in mask_tensors(spec, keep).items():
        assert not (model.state_dict()[name] * (1 - mask)).any()
    return widths


def widths_of(problem: Problem, solution: Solution) -> FloatArray:
    """Return the widths of a solution, (G,)."""
    kept = problem.spec.checked_keep(solution.keep)
    return problem.spec.vector({name: len(units) for name, units in kept.items()})


def check_same(one: Tuple[nn.Module, Solution], other: Tuple[nn.Module, Solution]) -> None:
    """Check that two solves ended alike, in weights, units and history."""
    pairs = zip(one[0].state_dict().values(), other[0].state_dict().values())
    assert all(torch.equal(a, b) for a, b in pairs)
    assert {k: v.tolist() for k, v in one[1].keep.items()} == {
        k: v.tolist() for k, v in other[1].keep.items()
    }
    assert one[1].history == other[1].history
