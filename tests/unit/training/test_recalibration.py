"""Batch norms' statistics taken anew, in place and in what is scored."""

from __future__ import annotations

import copy
from typing import Dict

import pytest
import torch
from torch import nn

from edgeecc.config import TrainConfig
from edgeecc.data import splits
from edgeecc.data.splits import TensorSplit
from edgeecc.graph.spec import Keep
from edgeecc.graph.surgery import slim
from edgeecc.solvers.units import UnitTable, keep_of
from edgeecc.training import loop
from edgeecc.training.recalibration import recalibrate_
from tests.peers import fresh, noise


def test_recalibrated_norms_have_the_statistics_of_the_images() -> None:
    model, _ = fresh("plain")
    images = noise().take(range(100))[0]
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    recalibrate_(model, images)
    given = model.c1(images)
    torch.testing.assert_close(model.b1.running_mean, given.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.b1.running_var, given.var((0, 2, 3)), atol=1e-5, rtol=1e-4)
    assert not any(module.training for module in model.modules())
    assert model.b1.momentum == 0.1
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters()))
    before = model.b1.running_mean.clone()
    recalibrate_(model, images[:1])
    assert torch.equal(before, model.b1.running_mean)


def test_large_images_run_in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = fresh("plain")
    seen = []
    model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    images = noise().take(range(21))[0]
    for pixels, most in ((64 * 8, 8), (64, 3), (10**9, 21)):
        monkeypatch.setattr(splits, "PIXELS_TOGETHER", pixels)
        seen.clear()
        recalibrate_(model, images)
        assert sum(seen) == 21
        assert 2 <= max(seen) <= most  # of one image alone there is no variance to speak of


def test_a_network_without_batch_norms_is_left_alone() -> None:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(192, 5), nn.BatchNorm1d(5, track_running_stats=False)
    )
    before = copy.deepcopy(model.state_dict())
    recalibrate_(model, noise().take(range(8))[0])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("with_copies", [True, False])
def test_what_is_scored_has_the_statistics_and_the_network_keeps_its_own(
    monkeypatch: pytest.MonkeyPatch, with_copies: bool
) -> None:
    def output(model: nn.Module, split: TensorSplit, *_: object, **__: object) -> Dict[str, float]:
        with torch.no_grad():
            return {"largest": float(model.eval()(split.take(range(len(split)))[0]).max())}

    monkeypatch.setattr(loop, "evaluate", output)
    model, spec = fresh("residual")
    alive = [torch.arange(group.width).numpy() % 3 > 0 for group in spec.prunable]
    for name, mask in UnitTable(spec).masks(alive).items():
        model.state_dict()[name].mul_(mask)
    keep = keep_of(spec, alive)

    def slimmed(network: nn.Module, keep: Keep) -> nn.Module:
        return slim(network, spec, keep)

    trainer = loop.TorchTrainer(
        model, noise(), noise(), config=TrainConfig(batch_size=16), held_out=40,
        slimmed=slimmed if with_copies else None,
    )  # fmt: skip
    before = copy.deepcopy(model.state_dict())
    images = trainer.sample(64)
    plain, score = trainer.held_out(keep), trainer.held_out(keep, images)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    recalibrate_(model, images)
    assert score == pytest.approx(trainer.held_out(keep), rel=1e-4)
    assert abs(score - plain) > 0.01 * abs(plain)
