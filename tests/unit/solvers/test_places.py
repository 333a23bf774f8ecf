"""Inputs chosen together with weights, and how sharply the loss answers to each."""

from __future__ import annotations

from typing import Dict

import numpy as np
import pytest
import torch
from torch import nn

from edgeecc.array_pricing import ArrayPricing, maskable
from edgeecc.cost.hardware import EYERISS
from edgeecc.cost.systolic import network_energy, place_cost, shapes_of
from edgeecc.graph.input_mask import attach, input_masks
from edgeecc.graph.trace import trace
from edgeecc.solvers.places import Places
from edgeecc.solvers.projection import LayerCost
from edgeecc.solvers.sensitivity import DECAY, EPSILON, Sensitivity
from edgeecc.solvers.sparse import SparseLayer, SparseProblem
from tests import zoo


def test_sensitivity_is_a_running_mean_of_squared_gradients() -> None:
    model = nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    found = Sensitivity(("weight", "bias"))
    expected = torch.zeros(1, 2)
    for step in range(1, 5):
        model.weight.grad = torch.tensor([[float(step), -2.0]])
        found.observe(model)
        expected = DECAY * expected + (1.0 - DECAY) * model.weight.grad**2
    root = found.root("weight", model.weight)
    torch.testing.assert_close(root, expected.sqrt() + EPSILON)
    average = float(expected.mean()) ** 0.5 + EPSILON  # the bias is frozen
    torch.testing.assert_close(found.root("bias", model.bias), torch.tensor([average]))
    again = Sensitivity(("weight", "bias"))
    again.load_state(found.state())
    assert torch.equal(again.root("weight", model.weight), root)


def test_nothing_is_lost_for_want_of_a_gradient() -> None:
    found = Sensitivity(("weight",))
    assert float(found.root("weight", torch.zeros(3)).min()) > 0.0


@pytest.mark.parametrize("name", ["plain", "grouped", "depthwise", "dilated", "unet", "residual"])
def test_a_place_costs_what_masking_it_saves(name: str) -> None:
    model, inputs = zoo.build(name)
    shapes = shapes_of(trace(model, inputs, network=name))
    generator = np.random.default_rng(0)
    by_name = {shape.name: shape for shape in shapes}
    whole = {layer: np.ones(size, dtype=bool) for layer, size in maskable(shapes).items()}
    before = sum(e.inputs for e in network_energy(shapes, EYERISS, masks=whole, exact=False))
    for layer, mask in whole.items():
        place = tuple(int(generator.integers(size)) for size in mask.shape)
        mask[place] = False
        after = sum(e.inputs for e in network_energy(shapes, EYERISS, masks=whole, exact=False))
        mask[place] = True
        assert before - after == pytest.approx(place_cost(by_name[layer], EYERISS)[place])


def two_masks() -> tuple[Places, Dict[str, nn.Parameter], nn.Module]:
    """Return two masks of four places, of 1 and 3 a place, beside one weight layer of four at 1 each."""
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 1.0, 1.0, 1.0]]))
    masks = {name: nn.Parameter(torch.ones(1, 2, 2)) for name in ("a", "b")}
    for name, mask in masks.items():
        model.register_parameter(name, mask)
    costs = {"a": np.full((1, 2, 2), 1.0), "b": np.full((1, 2, 2), 3.0)}

    def problem() -> SparseProblem:
        moved = sum(
            float((costs[name] * mask.detach().numpy()).sum()) for name, mask in masks.items()
        )
        layer = SparseLayer("weight", LayerCost(1.0, 1.0, 4))
        return SparseProblem((layer,), 10.0 + moved, 0.0, 0)

    return Places(masks, costs, problem), masks, model


def observed(model: nn.Module, masks: Dict[str, nn.Parameter]) -> Sensitivity:
    """Return a sensitivity after gradients 4, 3, 2, 1 on the weights and on the places of both masks."""
    found = Sensitivity(("weight", *masks))
    model.weight.grad = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    for mask in masks.values():
        mask.grad = torch.tensor([[[4.0, 3.0], [2.0, 1.0]]])
    found.observe(model)
    return found


def test_weights_and_places_go_by_what_they_lose_for_what_they_cost() -> None:
    places, masks, model = two_masks()
    # density: weights and a 16 9 4 1, b 16/3 9/3 4/3 1/3; 10 + 2 weights + 2 of a + 1 of b fit 17
    places.choose_(model, 17.0, observed(model, masks), 1.0)
    assert masks["a"].detach().reshape(-1).tolist() == [1, 1, 0, 0]
    assert masks["b"].detach().reshape(-1).tolist() == [1, 0, 0, 0]
    assert places.share() == 3 / 8


def test_a_place_that_went_stays_away() -> None:
    places, masks, model = two_masks()
    sensitivity = observed(model, masks)
    places.choose_(model, 17.0, sensitivity, 1.0)
    places.choose_(model, 1000.0, sensitivity, 1.0)
    assert places.share() == 3 / 8


def test_the_optimiser_does_not_move_masks() -> None:
    places, masks, model = two_masks()
    places.choose_(model, 17.0, observed(model, masks), 1.0)
    with torch.no_grad():
        masks["a"].add_(0.25)
    places.hold_()
    assert set(masks["a"].detach().reshape(-1).tolist()) == {0.0, 1.0}
    with torch.no_grad():
        masks["a"].zero_()
    places.resume_()
    assert places.share() == 1 / 8


@pytest.mark.parametrize("budget", [11.0, 11.5, 12.0, 14.0, 20.0, 29.0])
def test_a_weight_of_each_layer_is_always_left_room(budget: float) -> None:
    places, masks, model = two_masks()
    with torch.no_grad():
        model.weight.mul_(1e-6)  # places are worth more
    places.choose_(model, budget, observed(model, masks), 1.0)
    kept = sum(cost * float(mask.detach().sum()) for cost, mask in zip((1.0, 3.0), masks.values()))
    assert 10.0 + kept + 1.0 <= budget


def test_budget_of_a_real_network_holds_with_masks() -> None:
    model, inputs = zoo.build("residual")
    shapes = shapes_of(trace(model, inputs, network="residual"))
    attach(model, maskable(shapes))
    total = sum(e.total for e in network_energy(shapes, EYERISS))
    for share in (0.9, 0.5, 0.3):
        pricing = ArrayPricing(model, shapes, EYERISS, share * total, 0)
        places = pricing.places()
        for mask in input_masks(model).values():
            mask.requires_grad_(True)
        model(*inputs).square().sum().backward()
        sensitivity = Sensitivity(tuple(name for name, _ in model.named_parameters()))
        sensitivity.observe(model)
        places.choose_(model, pricing.bound, sensitivity, 1.0)
        problem = pricing.problem()
        fit = problem.fit(model, pricing.bound)
        assert fit.cost <= pricing.bound
        all_stay = all(keep.all() for keep in fit.projection.keep)
        assert all_stay or fit.cost >= 0.9 * pricing.bound
        assert fit.slack >= 1.0
