"""Methods that choose by a score take that of a slim copy, which computes what the masked network does."""

from __future__ import annotations

from typing import List

import pytest
import torch
from torch import nn

from edgeecc.graph.spec import Keep
from edgeecc.graph.surgery import slim
from edgeecc.peer_config import AmcConfig, LcpConfig, NetAdaptConfig
from edgeecc.solvers.amc import AmcSolver
from edgeecc.solvers.base import Solver
from edgeecc.solvers.lcp import LcpSolver
from edgeecc.solvers.netadapt import NetAdaptSolver
from tests.peers import problem_of, solved, traced

PEERS = [
    pytest.param(AmcSolver(AmcConfig(episodes=12, warmup=4)), id="amc"),
    pytest.param(
        LcpSolver(LcpConfig(evaluations=6, population=4, tournament=2, recalibrate=32)), id="lcp"
    ),
    pytest.param(NetAdaptSolver(NetAdaptConfig(decay=0.8)), id="netadapt"),
]


def weights(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("solver", PEERS)
@pytest.mark.parametrize("name", ["residual", "inverted_residual", "concat_twice"])
def test_the_slim_copy_that_is_scored_computes_what_the_network_does(
    solver: Solver, name: str
) -> None:
    spec = traced(name)[1]
    images = torch.randn((16, 3, 8, 8), generator=torch.Generator().manual_seed(2))
    sizes: List[float] = []

    def compared(model: nn.Module, keep: Keep) -> nn.Module:
        small = slim(model, spec, keep)
        with torch.no_grad():
            whole, found = model.eval()(images), small.eval()(images)
        assert torch.allclose(whole, found, atol=1e-4 * float(whole.abs().max()))
        sizes.append(weights(small) / weights(model))
        return small

    _, slimmed = solved(solver, name, problem_of(spec, 0.4), 12, slimmed=compared)
    assert min(sizes) < 0.8
    _, masked = solved(solver, name, problem_of(spec, 0.4), 12)
    assert {g: units.tolist() for g, units in slimmed.keep.items()} == {
        g: units.tolist() for g, units in masked.keep.items()
    }
