"""Input masks: on any convolution, kept by magnitude over all layers, rounded, exported as they run."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from edgeecc.array_pricing import maskable
from edgeecc.cost.systolic import shapes_of
from edgeecc.errors import ConfigError
from edgeecc.graph.input_mask import attach, input_masks, sizes_in
from edgeecc.graph.outputs import tensors
from edgeecc.graph.to_onnx import to_onnx
from edgeecc.graph.trace import trace
from edgeecc.runtimes.onnxrt import OnnxRuntime
from edgeecc.solvers.masking import MaskHooks, keep_largest_
from tests import zoo


@pytest.mark.parametrize(
    "name",
    [
        "residual",
        "dense_concat",
        "grouped",
        "depthwise",
        "unet",
        "two_inputs",
        "two_outputs",
        "shuffle",
    ],
)
def test_a_mask_is_a_multiplication_before_the_layer(name: str) -> None:
    model, inputs = zoo.build(name)
    sizes = maskable(shapes_of(trace(model, inputs, network=name)))
    assert sizes
    with torch.no_grad():
        before = tensors(model(*inputs))
        masked = copy.deepcopy(model)
        attach(masked, sizes)
        for one, other in zip(before, tensors(masked(*inputs))):
            assert torch.equal(one, other)  # ones change nothing
        generator = torch.Generator().manual_seed(0)
        masks = input_masks(masked)
        assert sorted(masks) == sorted(sizes)
        assert not any(mask.requires_grad for mask in masks.values())
        for mask in masks.values():
            mask.copy_((torch.rand(mask.shape, generator=generator) < 0.7).float())
        by_hand = copy.deepcopy(model)
        for layer, mask in masks.items():
            by_hand.get_submodule(layer).register_forward_pre_hook(
                lambda module, args, mask=mask: (args[0] * mask,)
            )
        expected = tensors(by_hand(*inputs))
        for one, other in zip(tensors(copy.deepcopy(masked)(*inputs)), expected):
            assert torch.equal(one, other)
    with OnnxRuntime(to_onnx(masked, inputs)) as runtime:
        for one, other in zip(runtime.infer([x.numpy() for x in inputs]), expected):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-4, atol=1e-5)
    assert sizes_in(masked.state_dict()) == sizes


def test_the_largest_of_all_layers_stay() -> None:
    masks = [nn.Parameter(torch.tensor([0.9, 0.2, 0.5])), nn.Parameter(torch.tensor([[0.6, 0.5]]))]
    keep_largest_(masks, 0.6)
    assert [mask.tolist() for mask in masks] == [
        pytest.approx([0.9, 0.0, 0.5]), [pytest.approx([0.6, 0.0])]
    ]  # fmt: skip


def test_the_phase_clamps_projects_and_rounds() -> None:
    mask = nn.Parameter(torch.linspace(-1.0, 2.0, 10))
    hooks = MaskHooks({"c": mask}, 0.5, 1.0, interval=2)
    hooks.after_step(nn.Identity(), torch.optim.SGD([mask], lr=0.1), 1, 3)
    assert (mask.detach().min().item(), mask.detach().max().item()) == (0.0, 1.0)
    assert hooks.share() > 0.5
    hooks.after_step(nn.Identity(), torch.optim.SGD([mask], lr=0.1), 2, 3)
    assert int(mask.count_nonzero()) == 5
    numbers = hooks.after_step(nn.Identity(), torch.optim.SGD([mask], lr=0.1), 3, 3)
    assert set(mask.tolist()) <= {0.0, 1.0}
    assert numbers["share"] <= 0.5


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_a_share_of_nothing_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="cannot keep"):
        MaskHooks({"c": nn.Parameter(torch.ones(3))}, share, 1.0)
    with pytest.raises(ConfigError, match="of 0 masks"):
        MaskHooks({}, 0.5, 1.0)
