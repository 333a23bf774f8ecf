"""Methods that choose by a score take that of a slim copy, which computes what the masked network does."""

from __future__ import annotations

from typing import List, Optional

import pytest
import torch
from torch import nn

from edgeecc.peer_config import AmcConfig, LcpConfig, NetAdaptConfig
from edgeecc.solvers.amc import AmcSolver
from edgeecc.solvers.base import Solver
from edgeecc.solvers.lcp import LcpSolver
from edgeecc.solvers.netadapt import NetAdaptSolver
from edgeecc.training.loop import TorchTrainer
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
    monkeypatch: pytest.MonkeyPatch, solver: Solver, name: str
) -> None:
    scored: List[float] = []
    images = torch.randn((16, 3, 8, 8), generator=torch.Generator().manual_seed(2))
    held_out = TorchTrainer.held_out

    def compared(self: TorchTrainer, model: Optional[nn.Module] = None) -> float:
        if model is not None:
            with torch.no_grad():
                whole, small = self.model.eval()(images), model.eval()(images)
            assert torch.allclose(whole, small, atol=1e-4 * float(whole.abs().max()))
            scored.append(weights(model) / weights(self.model))
        return held_out(self, model)

    monkeypatch.setattr(TorchTrainer, "held_out", compared)
    solved(solver, name, problem_of(traced(name)[1], 0.4), 12)
    assert min(scored) < 0.8
