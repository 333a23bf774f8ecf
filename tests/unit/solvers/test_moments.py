"""Moments of many layers: few looks at the images, no further than needed, and what was read when it was read."""

from __future__ import annotations

import copy
from typing import Dict, List, Tuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgeecc.solvers import moments as module
from edgeecc.solvers.local_fit import Moments
from edgeecc.solvers.moments import grams, mean_squares, moments, moments_in_turn
from edgeecc.solvers.recording import recorded
from edgeecc.solvers.reference import Reference
from edgeecc.solvers.sample import Sample
from edgeecc.training.dense import initialise_

LAYERS = ("first", "twice", "last")


class Net(nn.Module):
    """Writes over what its layers read and gave, calls one layer twice, and catches errors."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.twice = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.last = nn.Linear(4, 3)
        self.unread = nn.Linear(4, 3)
        self.looks: List[str] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.looks.append("first")
        x = F.relu(self.first(x), inplace=True)
        for _ in range(2):
            try:
                y = self.twice(x)
            except Exception:  # as a user's network may
                y = x
            x += F.relu(y, inplace=True)
        self.looks.append("last")
        return self.last(x.mean((2, 3)))


@pytest.fixture
def nets() -> Tuple[Net, Net, Sample]:
    generator = torch.Generator().manual_seed(0)
    dense = Net()
    initialise_(dense, 0)
    model = copy.deepcopy(dense)
    with torch.no_grad():
        model.twice.weight[:, :2] = 0.0
        model.first.bias.add_(0.3)
    return model, dense, Sample(torch.randn(70, 2, 5, 5, generator=generator), 3)


def rows(net: Net, images: torch.Tensor) -> Dict[str, Tuple[torch.Tensor, torch.Tensor]]:
    """Return what layers read and gave at every position, written down by hand."""
    with torch.no_grad():
        first = net.first(images)
        a = first.relu()
        b = net.twice(a)
        c = a + b.relu()
        d = net.twice(c)
        pooled = (c + d.relu()).mean((2, 3))
        unfolded = [
            F.unfold(x, 3, padding=1).mT.reshape(-1, 9 * x.shape[1]) for x in (images, a, c)
        ]
        given = [y.flatten(2).mT.reshape(-1, 4) for y in (first, b, d)]
        return {
            "first": (unfolded[0], given[0]),
            "twice": (torch.cat(unfolded[1:]), torch.cat(given[1:])),
            "last": (pooled, net.last(pooled)),
        }


def close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return found[0].shape == wanted.shape and torch.allclose(found[0], wanted, rtol=1e-5, atol=1e-4)


def same(a: Moments, b: Moments) -> bool:
    pairs = ((a.gram, b.gram), (a.cross, b.cross), (a.energy, b.energy))
    return all(torch.equal(x, y) for x, y in pairs)


def test_moments_are_of_the_tensors_as_they_were_when_read(
    nets: Tuple[Net, Net, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeecc.solvers.sample.POSITIONS", 25)
    model, dense, sample = nets
    now, then = rows(model, sample.images), rows(dense, sample.images)
    found = moments(model, Reference(dense, LAYERS, sample), LAYERS)
    squares, products = mean_squares(model, LAYERS, sample), grams(model, LAYERS, sample)
    for name in LAYERS:
        x, y = now[name][0].double(), then[name][1].double()
        bias = model.get_submodule(name).bias
        y = y if bias is None else y - bias.detach()
        assert close(found[name].gram, x.mT @ x)
        assert close(found[name].cross, x.mT @ y)
        assert close(found[name].energy, y.square().sum(0))
        assert close(products[name], x.mT @ x)
        assert close(squares[name], x.square().mean(0, keepdim=True))


def test_one_look_finds_what_a_look_for_each_does(
    nets: Tuple[Net, Net, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, dense, sample = nets
    names = [*LAYERS, "unread", "first"]
    reference = Reference(dense, names, sample)
    single = {name: moments(model, Reference(dense, [name], sample), [name]) for name in LAYERS}
    model.looks.clear()
    in_turn = list(moments_in_turn(model, reference, names))
    assert model.looks.count("first") == 2  # two chunks of images, once each
    assert in_turn[3] is None
    for name, found in zip(names, in_turn):
        assert found is None or same(found, single[name][name])
    monkeypatch.setattr(module, "TOGETHER", 1)
    model.looks.clear()
    one_by_one = list(moments_in_turn(model, reference, names))
    assert model.looks.count("first") == 2 * 4  # the layer that never runs takes no look
    assert all(a is b or same(a, b) for a, b in zip(in_turn, one_by_one))


@pytest.mark.parametrize("kept", [0, 20_000, 2**29])
def test_the_reference_runs_once_as_far_as_it_may_keep(
    nets: Tuple[Net, Net, Sample], monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    model, dense, sample = nets
    wanted = moments(model, Reference(dense, LAYERS, sample), LAYERS)
    monkeypatch.setattr("edgeecc.solvers.reference.KEPT", kept)
    reference = Reference(dense, LAYERS, sample)
    dense.looks.clear()
    for _ in range(3):
        for name in LAYERS:
            assert same(moments(model, reference, [name])[name], wanted[name])
    again = {0: 3, 20_000: 1, 2**29: 0}[kept]  # layers that it looks for anew each time
    assert dense.looks.count("first") == 2 + 3 * again * 2
    assert dense.looks.count("last") == 2 + (3 * 2 if kept == 0 else 0)


def test_a_look_ends_with_the_last_call_that_is_wanted(nets: Tuple[Net, Net, Sample]) -> None:
    model, dense, sample = nets
    reference = Reference(dense, LAYERS, sample)
    for name, whole in (("first", 0), ("twice", 0), ("last", 2)):
        model.looks.clear()
        moments(model, reference, [name])
        assert (model.looks.count("first"), model.looks.count("last")) == (2, whole)
    model.looks.clear()
    assert moments(model, reference, ["unread"]) == {}
    assert not model.looks


def test_modes_and_hooks_are_as_before(nets: Tuple[Net, Net, Sample]) -> None:
    model, dense, sample = nets
    model.train()
    model.twice.eval()
    moments(model, Reference(dense, LAYERS, sample), ["first"])
    with pytest.raises(RuntimeError), recorded(model, {"first": lambda x, y: None}) as recorder:
        recorder.run(torch.zeros(1, 3, 5, 5), {"first": 1})
    assert (model.training, model.first.training, model.twice.training) == (True, True, False)
    assert not any(layer._forward_hooks for net in (model, dense) for layer in net.modules())
