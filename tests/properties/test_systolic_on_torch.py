"""The systolic model on traced layers: torch itself counts the products of nonzeros."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgeecc.cost.hardware import EYERISS
from edgeecc.cost.systolic import layer_energy, network_energy, place_cost, shapes_of
from edgeecc.graph.trace import trace
from tests import zoo
from tests.zoo import Fn, pool

LAYERS = {
    "plain": nn.Conv2d(4, 6, 3),
    "padded": nn.Conv2d(4, 6, 5, padding=2),
    "strided": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "uneven": nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 2)),
    "same": nn.Conv2d(4, 6, (4, 2), padding="same"),
    "valid": nn.Conv2d(4, 6, 3, padding="valid"),
    "dilated": nn.Conv2d(4, 6, 3, dilation=2, padding=2),
    "grouped": nn.Conv2d(4, 6, 3, groups=2, padding=1),
    "depthwise": nn.Conv2d(4, 4, 3, groups=4, padding=1),
    "transposed": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
    "transposed_grouped": nn.ConvTranspose2d(4, 6, 4, stride=2, groups=2),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_products_are_those_of_a_convolution_of_ones(name: str) -> None:
    layer = LAYERS[name]
    model = Fn(
        lambda m, x: m.fc(pool(m.layer(x))), layer=layer, fc=nn.Linear(layer.out_channels, 3)
    )
    spec = trace(model, (torch.randn(1, 4, 9, 11),), network=name)
    shape = shapes_of(spec)[0]
    generator = np.random.default_rng(0)
    weights = generator.random(shape.weight_shape) < 0.6
    mask = generator.random((4, 9, 11)) < 0.5
    assert weights.shape == tuple(layer.weight.shape)
    call = F.conv_transpose2d if isinstance(layer, nn.ConvTranspose2d) else F.conv2d
    options = {
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
    }
    if isinstance(layer, nn.ConvTranspose2d):
        options["output_padding"] = layer.output_padding
    image = torch.from_numpy(mask).double()[None]
    products = call(image, torch.from_numpy(weights).double(), **options).sum()
    energy = layer_energy(shape, EYERISS, weights=weights, mask=mask)
    assert energy.mac == EYERISS.mac * float(products)
    unfolded = call(image, torch.ones(weights.shape).double(), **options).sum() / (
        shape.channels[1] // shape.groups
    )
    assert energy.input_register == pytest.approx(
        float(unfolded) * shape.channels[1] / shape.groups
    )


@pytest.mark.parametrize("name", sorted(zoo.ZOO))
def test_every_network_of_the_zoo_is_priced(name: str) -> None:
    model, inputs = zoo.build(name)
    shapes = shapes_of(trace(model, inputs, network=name))
    parameters = dict(model.named_parameters())
    energies = network_energy(shapes, EYERISS)
    for shape, energy in zip(shapes, energies):
        assert shape.weight_shape == tuple(parameters[f"{shape.name}.weight"].shape)
        assert energy.inputs > 0.0
        assert energy.mac > 0.0
    relaxed = network_energy(shapes, EYERISS, exact=False)
    assert all(one.total <= other.total for one, other in zip(energies, relaxed))


def test_one_axis_is_priced_as_two_with_one_row() -> None:
    def layers(kind: type[nn.Module], one: tuple[int, ...]) -> nn.Module:
        c1 = kind(4, 6, (*one, 5), padding=(*(0 for _ in one), 2))
        c2 = kind(6, 8, (*one, 3), stride=(*one, 2), groups=2)
        return Fn(
            lambda m, x: m.fc(m.c2(torch.relu(m.c1(x))).flatten(2).mean(2)),
            c1=c1,
            c2=c2,
            fc=nn.Linear(8, 3),
        )

    flat = shapes_of(trace(layers(nn.Conv1d, ()), (torch.randn(1, 4, 16),)))
    wide = shapes_of(trace(layers(nn.Conv2d, (1,)), (torch.randn(1, 4, 1, 16),)))
    generator = np.random.default_rng(0)
    for one, two in zip(flat[:2], wide[:2]):
        weights = generator.random(one.weight_shape) < 0.5
        mask = generator.random(one.input_shape) < 0.5
        assert layer_energy(one, EYERISS, weights=weights, mask=mask) == layer_energy(
            two,
            EYERISS,
            weights=weights.reshape(two.weight_shape),
            mask=mask.reshape(two.input_shape),
        )
        np.testing.assert_array_equal(
            place_cost(one, EYERISS).ravel(), place_cost(two, EYERISS).ravel()
        )
