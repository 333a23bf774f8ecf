"""Fitting layers to fewer inputs, against least squares on the rows themselves, and on every kind of layer."""

from __future__ import annotations

from typing import Dict, List, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgeecc.graph.surgery import mask_tensors
from edgeecc.graph.trace import trace
from edgeecc.solvers.local_fit import RIDGE
from edgeecc.solvers.moments import grams
from edgeecc.solvers.recording import Seer, recorded
from edgeecc.solvers.refit import Nested, refitted
from edgeecc.solvers.sample import Sample
from edgeecc.solvers.thinned import Thinned
from edgeecc.solvers.unfold import columns, matrix
from edgeecc.solvers.units import keep_of
from tests import zoo

KINDS = [
    "residual", "inverted_residual", "depthwise", "grouped", "dense_concat", "flatten", "transposed_chain", "resnext",
    "shuffle_unit", "unet", "one_dimensional", "shared",
]  # fmt: skip


def case(seed: int, inputs: int, outs: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows of correlated inputs, (50, d), and weights (o, d)."""
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.normal(size=(50, inputs)) @ rng.normal(size=(inputs, inputs)), 0.0)
    return torch.from_numpy(x), torch.from_numpy(rng.normal(size=(outs, inputs)))


def by_rows(x: torch.Tensor, weight: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Solve with torch: the ridge is rows of its own that ask for the weights at hand."""
    root = float((RIDGE * x.square().sum() / x.shape[1]).sqrt())
    rows = torch.cat([x, root * torch.eye(x.shape[1], dtype=x.dtype)])
    fitted = torch.zeros_like(weight)
    fitted[:, kept] = torch.linalg.lstsq(rows[:, kept], rows @ weight.mT).solution.mT
    return fitted


@given(st.integers(0, 10**6), st.integers(1, 12))
def test_both_ways_are_least_squares_and_never_add_error(seed: int, inputs: int) -> None:
    x, weight = case(seed, inputs)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(inputs))
    nested = Nested.of(x.mT @ x, weight, order)
    last = torch.inf
    for count in range(1, inputs + 1):
        kept = torch.zeros(inputs, dtype=torch.bool)
        kept[order[:count]] = True
        wanted = by_rows(x, weight, kept)
        for got in (nested.weights(count), refitted(x.mT @ x, weight, kept)):
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
            error = (x @ (weight - got).mT).norm()
            assert error <= (x @ (weight * ~kept).mT).norm() + 1e-9
        assert error <= last + 0.02 * x.norm()  # but for the ridge
        last = error
    torch.testing.assert_close(nested.weights(inputs), weight)


def test_a_tiny_ridge_is_plain_least_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = case(4, 8)
    kept = torch.arange(8) < 5
    monkeypatch.setattr("edgeecc.solvers.refit.RIDGE", 1e-12)
    wanted = torch.linalg.lstsq(x[:, kept], x @ weight.mT).solution.mT
    torch.testing.assert_close(
        refitted(x.mT @ x, weight, kept)[:, kept], wanted, rtol=1e-6, atol=1e-7
    )


def test_inputs_that_are_never_other_than_zero_keep_their_weights() -> None:
    weight = torch.arange(6.0, dtype=torch.float64).reshape(2, 3)
    kept = torch.tensor([True, False, True])
    got = refitted(torch.zeros(3, 3, dtype=torch.float64), weight, kept)
    torch.testing.assert_close(got, weight * kept)


def thinned(name: str, share: float = 0.5) -> tuple:
    model, inputs = zoo.build(name)
    spec = trace(model, inputs, network=name)
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(6, *inputs[0].shape[1:], generator=generator)
    alive = [np.ones(group.width, dtype=bool) for group in spec.prunable]
    network = Thinned(spec, model, alive, Sample(images, 0))
    rng = np.random.default_rng(1)
    widths = np.maximum(1.0, np.floor(rng.uniform(share, 1.0, len(alive)) * network.available))
    return model, spec, images, network, widths


def reads(
    model: nn.Module, layers: Sequence[str], images: torch.Tensor
) -> Dict[str, List[torch.Tensor]]:
    found: Dict[str, List[torch.Tensor]] = {name: [] for name in layers}

    def seer(name: str) -> Seer:
        return lambda x, y: found[name].append(x.clone())

    with recorded(model, {name: seer(name) for name in layers}) as recorder:
        recorder.run(images, {})
    return found


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_layer_is_fitted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeecc.solvers.sample.POSITIONS", 10_000)  # all, as the errors below
    model, spec, images, network, widths = thinned(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    calls = reads(model, [layer.name for layer in spec.layers], images)
    network.apply_(widths)
    masks = mask_tensors(spec, keep_of(spec, network.alive(widths)))
    state = model.state_dict()
    for key, value in state.items():
        if key not in masks:
            assert torch.equal(value, before[key])
            continue
        assert not (value * (1 - masks[key])).any()
        layer = key.rpartition(".")[0]
        module = model.get_submodule(layer)
        x = torch.cat([columns(module, read).double() for read in calls[layer]], 1)
        lost = [
            matrix(module, (before[key] - now).double())
            for now in (before[key] * masks[key], value)
        ]
        masked, fitted = ((x @ change.mT).square().sum() for change in lost)
        assert fitted < masked or masked == 0.0
    network.apply_(network.available)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_units_that_are_read_most_strongly_stay() -> None:
    model, spec, _, network, widths = thinned("residual")
    place = [group.name for group in spec.prunable].index("c1")
    strength = model.c2.weight.detach().abs().sum((0, 2, 3)).numpy()
    kept = network.alive(widths)[place]
    assert strength[kept].min() >= strength[~kept].max()


def test_widths_before_do_not_matter_and_dead_units_stay_dead() -> None:
    model, spec, images, network, widths = thinned("residual")
    network.apply_(widths)
    once = {key: value.clone() for key, value in model.state_dict().items()}
    network.apply_(np.ones_like(widths))
    network.apply_(widths)
    assert all(torch.equal(value, once[key]) for key, value in model.state_dict().items())
    alive = network.alive(widths)
    later = Thinned(spec, model, alive, Sample(images, 0))
    np.testing.assert_array_equal(later.available, widths)
    thinner = later.alive(np.maximum(1.0, widths - 1.0))
    assert all((inner <= outer).all() for inner, outer in zip(thinner, alive))


def test_frozen_layers_are_only_cut() -> None:
    model, spec, images, *_ = thinned("residual")
    model.c2.weight.requires_grad_(False)
    before = model.c2.weight.detach().clone()
    alive = [np.ones(group.width, dtype=bool) for group in spec.prunable]
    network = Thinned(spec, model, alive, Sample(images, 0))
    widths = np.ceil(0.5 * network.available)
    network.apply_(widths)
    mask = mask_tensors(spec, keep_of(spec, network.alive(widths)))["c2.weight"]
    assert torch.equal(model.c2.weight, before * mask)


def test_moments_of_all_layers_in_one_pass_are_those_of_the_rows() -> None:
    model, inputs = zoo.build("residual")
    images = torch.randn(5, *inputs[0].shape[1:], generator=torch.Generator().manual_seed(0))
    found = grams(model, ["c2", "fc"], Sample(images, 0))
    x = columns(model.fc, reads(model, ["fc"], images)["fc"][0]).double()
    torch.testing.assert_close(found["fc"], x.mT @ x)
    assert found["c2"].shape[1:] == (model.c2.weight[0].numel(),) * 2
