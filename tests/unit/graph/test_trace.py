"""Every zoo network: what is prunable, why not, and that the spec is the network."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from edgeecc.errors import GraphError
from edgeecc.graph.spec_io import read_spec
from edgeecc.graph.trace import trace
from edgeecc.networks.table import NETWORKS, build, info
from tests import zoo


@pytest.fixture(scope="module")
def specs() -> dict:
    found = {}
    for name in zoo.ZOO:
        model, inputs = zoo.build(name)
        found[name] = trace(model, inputs, network=name)
    return found


@pytest.mark.parametrize("name", sorted(zoo.ZOO))
def test_prunable_groups(name: str, specs: dict) -> None:
    groups = {group.name: group for group in specs[name].groups}
    for group, prunable in zoo.PRUNABLE.get(name, {}).items():
        assert groups[group].prunable is prunable, groups[group]
    assert all(bool(group.reason) is not group.prunable for group in groups.values())


@pytest.mark.parametrize("name", sorted(zoo.ZOO))
def test_the_spec_survives_json(name: str, specs: dict) -> None:
    spec = specs[name]
    assert read_spec(spec.to_json()) == spec
    assert read_spec(spec.to_json()).fingerprint() == spec.fingerprint()


@pytest.mark.parametrize("name", sorted(zoo.ZOO))
def test_every_parameter_is_listed_at_its_dense_shape(name: str, specs: dict) -> None:
    model, _ = zoo.build(name)
    spec = specs[name]
    listed = {parameter.name: parameter for parameter in spec.parameters}
    for parameter_name, value in model.state_dict().items():
        if value.is_floating_point():
            forms = spec.parameter_form(listed[parameter_name])
            assert tuple(form.at(spec.dense_widths()) for form in forms) == tuple(value.shape)


def test_tracing_leaves_the_model_alone() -> None:
    model, inputs = zoo.build("residual")
    model.train()
    model.c1.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    trace(model, inputs)
    assert model.training
    assert not model.c1.weight.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_shared_modules_count_every_call(specs: dict) -> None:
    layer = next(layer for layer in specs["shared"].layers if layer.name == "c")
    assert layer.calls == 2
    assert layer.dense_macs == 2 * 64 * 9 * 6 * 6


def test_a_flattened_channel_owns_a_block(specs: dict) -> None:
    group = next(group for group in specs["flatten"].groups if group.name == "c1")
    piece = next(piece for piece in group.slices if piece.role == "in")
    assert (piece.parameter, piece.axis, piece.step, piece.block) == ("f1.weight", 1, 16, 16)


@pytest.mark.parametrize(
    ("name", "macs", "params"),
    [
        ("mobilenet_v1", 568_740_352, 4_231_976),
        ("alexnet", 714_188_480, 61_100_840),
        ("lenet5", 416_520, 61_706),
    ],
)
def test_dense_counts_of_known_networks(name: str, macs: int, params: int) -> None:
    spec = trace(build(name), (torch.zeros(1, *info(name).input_shape),), network=name)
    assert sum(layer.dense_macs for layer in spec.layers) == macs
    assert sum(math.prod(p.shape) for p in spec.parameters if p.trained) == params
    assert (len(spec.prunable), len(spec.groups)) == info(name).groups


def test_erfnet_prunes_the_inside_of_its_blocks_and_its_residual_streams() -> None:
    spec = trace(build("erfnet"), (torch.zeros(1, 3, 32, 64),), network="erfnet")
    inner = [
        group.name for group in spec.prunable if ".conv" in group.name and "layers" in group.name
    ]
    assert sum(name.endswith(("conv3x1_1", "conv1x3_1", "conv3x1_2")) for name in inner) == 51


def test_every_table_network_has_a_shape() -> None:
    assert all(len(info(name).input_shape) == 3 for name in NETWORKS)


def test_a_wrong_input_names_the_module_and_the_shape() -> None:
    model, _ = zoo.build("plain")
    with pytest.raises(GraphError, match=r"forward failed in module c1 with input \(1, 4, 8, 8\)"):
        trace(model, (torch.zeros(1, 4, 8, 8),))


def test_a_batch_is_refused() -> None:
    model, _ = zoo.build("plain")
    with pytest.raises(GraphError, match="batch 1"):
        trace(model, (torch.zeros(2, 3, 8, 8),))


def test_a_network_without_layers_is_refused() -> None:
    with pytest.raises(GraphError, match="nothing to prune"):
        trace(nn.ReLU(), (torch.zeros(1, 3),))


def test_three_dimensional_convolutions_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Conv3d(3, 4, 1), nn.Conv3d(4, 2, 1))
    with pytest.raises(GraphError, match=r"module 0 is a Conv3d"):
        trace(model, (torch.zeros(1, 3, 4, 4, 4),))


def test_damaged_specs_are_refused(specs: dict) -> None:
    good = specs["plain"].to_json()
    for damage in (
        lambda d: d.pop("groups"),
        lambda d: d["groups"][0].update(width=-1),
        lambda d: d["groups"][0]["slices"][0].update(parameter="nothing"),
        lambda d: d["groups"][0]["slices"][0].update(start=10**6),
        lambda d: d["groups"][0]["slices"][0].update(role="both"),
        lambda d: d["layers"][0].update(kind="magic"),
        lambda d: d["layers"][0].update(kernel=[1, 2, 3]),
        lambda d: d["layers"][0]["output"].update(terms=[["nowhere", 1]]),
        lambda d: d.update(groups=d["groups"] * 2),
        lambda d: d.update(network=3),
    ):
        broken = copy.deepcopy(good)
        damage(broken)
        with pytest.raises(GraphError):
            read_spec(broken)
