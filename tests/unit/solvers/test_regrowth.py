"""Units that come back: the dense network when all do, the pruned one while none is read, and what they are worth."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from edgeecc.errors import ConfigError
from edgeecc.graph.surgery import mask_, slim
from edgeecc.graph.trace import trace
from edgeecc.solvers.regrowth import Order, Worth, revive_
from edgeecc.solvers.units import copied
from edgeecc.training.dense import initialise_


class Net(nn.Module):
    """A stem, a depthwise layer with batch norm, a residual block, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.dw = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.a, self.b = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.dw(torch.relu(self.bn(self.stem(x)))))
        return self.fc((x + self.b(torch.relu(self.a(x)))).mean((2, 3)))


def networks(seed: int = 0) -> tuple:
    """Return a dense network, another with its shapes, pruned, their spec and the units kept."""
    generator = torch.Generator().manual_seed(seed)
    dense, pruned = Net().eval(), Net().eval()
    for place, model in enumerate((dense, pruned)):
        initialise_(model, 2 * seed + place)
        for layer in (model.stem, model.dw, model.a, model.b):  # nothing is at a kink
            layer.bias.data.normal_(generator=generator)
        model.bn.running_mean.normal_(generator=generator)
        model.bn.running_var.uniform_(0.5, 2.0, generator=generator)
    x = torch.randn(4, 1, 6, 6, generator=generator)
    spec = trace(dense, (x[:1],), network="net")
    keep = {g.name: np.sort(np.random.default_rng(seed).permutation(g.width)[:3]) for g in spec.prunable}  # fmt: skip
    mask_(pruned, spec, keep)
    return dense, pruned, spec, keep, x


def test_unread_they_change_nothing_and_all_together_with_none_kept_are_the_dense_network() -> None:
    dense, pruned, spec, keep, x = networks()
    whole = copy.deepcopy(pruned)
    revive_(whole, dense, spec, keep)
    masked = copy.deepcopy(whole)
    mask_(masked, spec, keep)
    torch.testing.assert_close(masked(x), pruned(x))
    torch.testing.assert_close(slim(masked, spec, keep)(x), pruned(x))
    assert not torch.allclose(whole(x), pruned(x))
    # What both a kept and a kept unit share is the pruned network's; everything else the dense one's.
    for name, value in whole.state_dict().items():
        both = [pruned.state_dict()[name], dense.state_dict()[name]]
        assert ((value == both[0]) | (value == both[1])).all(), name
    nobody = {name: units[:0] for name, units in keep.items()}
    for group in spec.prunable:
        nobody[group.name] = np.arange(0)
    rebuilt = copy.deepcopy(pruned)
    revive_(rebuilt, dense, spec, nobody)
    rebuilt.fc.bias.data.copy_(dense.fc.bias.data)  # belongs to no unit
    torch.testing.assert_close(rebuilt(x), dense(x))


def test_worth_is_the_squared_change_of_the_loss_to_first_order() -> None:
    """By central differences: scale what reads one unit by 1 + e, or bring e of it back."""
    dense, pruned, spec, keep, x = networks(1)
    pruned, dense = pruned.double(), dense.double()
    labels = torch.arange(4) % 5
    x = x.double()
    whole = copy.deepcopy(pruned)
    revive_(whole, dense, spec, keep)
    probe = copy.deepcopy(whole)
    mask_(probe, spec, keep)

    def loss(model: nn.Module) -> torch.Tensor:
        return nn.functional.cross_entropy(model(x), labels)

    hooks = Worth(spec, copied(whole), 1.5)
    loss(probe).backward()
    hooks.after_backward(probe)
    hooks.after_backward(probe)
    assert hooks.after_step(probe, None, 1, 1) == {"cost": 1.5}  # type: ignore[arg-type]
    found = hooks.arrays()
    step = 1e-5
    for group, values in zip(spec.prunable, found):
        for unit in range(group.width):
            losses = []
            for move in (step, -step):
                moved = copy.deepcopy(probe)
                for piece in group.slices:
                    if piece.role == "in":
                        at = torch.from_numpy(piece.indices(np.array([unit])).reshape(-1))
                        target = moved.state_dict()[piece.parameter]
                        source = whole.state_dict()[piece.parameter].index_select(piece.axis, at)
                        target.index_add_(piece.axis, at, move * source)
                losses.append(loss(moved).item())
            slope = (losses[0] - losses[1]) / (2.0 * step)
            assert values[unit] == pytest.approx(2.0 * slope**2, rel=1e-4, abs=1e-12)
    again = Worth(spec, copied(whole), 1.5)
    again.load_state(hooks.state())
    assert all((a == b).all() for a, b in zip(again.arrays(), found))


def test_a_weight_without_gradient_is_named() -> None:
    dense, pruned, spec, _, _ = networks()
    with pytest.raises(ConfigError, match="gets no gradient"):
        Worth(spec, copied(dense), 1.0).after_backward(pruned)


def test_those_kept_come_first_and_widths_are_nested() -> None:
    _, _, spec, keep, _ = networks(2)
    rng = np.random.default_rng(0)
    worth = [rng.random(group.width) for group in spec.prunable]
    order = Order.of(spec, worth, keep)
    for place, group in enumerate(spec.prunable):
        assert set(order.units[place][:3]) == set(keep[group.name])
        assert sorted(order.units[place]) == list(range(group.width))
        assert (np.diff(order.worth[place][:3]) <= 0).all()
        assert (np.diff(order.worth[place][3:]) <= 0).all()
        assert (worth[place][order.units[place]] == order.worth[place]).all()
    widths = spec.vector({group.name: 3 for group in spec.prunable})
    assert all((order.first(spec, widths)[name] == units).all() for name, units in keep.items())
    more = order.first(spec, widths + 1.0)
    assert all(set(units) < set(more[name]) for name, units in keep.items())
