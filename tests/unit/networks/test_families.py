"""Every family, small: traced, slimmed, exported and cut, it stays the same function."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgeecc.graph.lively import lively_trial
from edgeecc.graph.onnx_slice import SlicePlan
from edgeecc.graph.settle import settle
from edgeecc.graph.surgery import mask_, slim
from edgeecc.graph.to_onnx import to_onnx
from edgeecc.graph.trace import trace
from edgeecc.networks import efficientnet_lite, mobilenet_v2
from edgeecc.networks.efficientnet_lite import EfficientNetLite
from edgeecc.networks.espnet import ESPNet
from edgeecc.networks.mobilenet_tf import MobileNetTf
from edgeecc.networks.mobilenet_v2 import MobileNetV2
from edgeecc.networks.resnet import BasicBlock, Bottleneck, ResNet
from edgeecc.networks.resnet_cifar import CifarBlock, CifarResNet
from edgeecc.networks.same_padding import SamePad
from edgeecc.networks.squeezenet import squeezenet1_0
from edgeecc.networks.table import build
from edgeecc.runtimes.onnxrt import OnnxRuntime

#: Stages enough for every kind of block.
SHORT = {
    efficientnet_lite: ((1, 16, 1, 1, 3), (6, 24, 2, 2, 5), (6, 40, 1, 2, 3)),
    mobilenet_v2: ((1, 16, 1, 1), (6, 24, 2, 2)),
}
#: Builder, sides of the image, and groups: prunable of all.
FAMILIES = {
    "basic blocks": (partial(ResNet, BasicBlock, (1, 1, 1, 1), 5, 8), (32, 32), (8, 9)),
    "bottlenecks": (partial(ResNet, Bottleneck, (1, 1, 1, 1), 5, 4), (32, 32), (13, 14)),
    "cifar": (partial(CifarResNet, 8, 4), (16, 16), (3, 5)),
    "squeezenet": (partial(squeezenet1_0, 5), (32, 32), (25, 26)),
    "efficientnet_lite": (partial(EfficientNetLite, 0.1, 5), (37, 32), (8, 9)),
    "mobilenet_v2": (partial(MobileNetV2, 0.1, 5), (32, 32), (5, 6)),
    "mobilenet_v1_tf": (partial(MobileNetTf, 0.1, 5), (33, 32), (14, 15)),
    "espnet": (partial(ESPNet, 6, 1, 1), (16, 24), (13, 18)),
}


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_masked_slim_and_cut_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, stages in SHORT.items():
        monkeypatch.setattr(module, "_STAGES", stages)
    builder, sides, groups = FAMILIES[name]
    generator = torch.Generator().manual_seed(3)
    image = torch.randn((1, 3, *sides), generator=generator)
    model = lively_trial(builder(), (image,), 0).model.float()
    spec, graph = trace(model, (image,), network=name), to_onnx(model, (image,))
    assert (len(spec.prunable), len(spec.groups)) == groups
    assert settle(spec, graph) == spec
    keep = {
        group.name: sorted(
            torch.randperm(group.width, generator=generator)[: -(-group.width // 2)].tolist()
        )
        for group in spec.prunable
    }
    small = slim(model, spec, keep)
    masked = copy.deepcopy(model).double()
    mask_(masked, spec, keep)
    with torch.no_grad():
        expected = masked(image.double())
        found = copy.deepcopy(small).double()(image.double())
        dense = model(image).double()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert float((dense - expected).abs().max()) > 1e-2
    with OnnxRuntime(SlicePlan.build(graph, spec).cut(keep)) as runtime:
        np.testing.assert_allclose(
            runtime.infer([image.numpy()])[0], expected.numpy(), rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", range(4, 12))
def test_same_padding_puts_the_odd_row_behind(kernel: int, size: int) -> None:
    weight = torch.arange(1.0, kernel + 1)[None, None, None, :].expand(1, 1, kernel, kernel)
    image = torch.arange(float(size * size)).reshape(1, 1, size, size)
    found = functional.conv2d(SamePad(kernel, 2)(image), weight, stride=2)
    # Of an even total half is on either side, of an odd one the larger half is behind: padding by the larger
    # half on both sides and starting one later is the same.
    total = max((-(-size // 2) - 1) * 2 + kernel - size, 0)
    behind = total - total // 2
    wide = functional.pad(image, (behind,) * 4)[:, :, behind - total // 2 :, behind - total // 2 :]
    assert torch.equal(found, functional.conv2d(wide, weight, stride=2))
    assert found.shape[-1] == -(-size // 2)


def test_styles_of_mobilenet_v1_differ_where_their_sources_do() -> None:
    torch_, relu, tensorflow = (
        build("mobilenet_v1", width=0.05, style=style) for style in ("torch", "relu", "tensorflow")
    )
    assert set(torch_.state_dict()) == set(relu.state_dict()) == set(tensorflow.state_dict())
    assert isinstance(relu.stem.relu, nn.ReLU)
    assert isinstance(tensorflow.dw[1].pad, SamePad)
    assert tensorflow.dw[1].conv.padding == (0, 0)
    assert tensorflow.dw[0].conv.padding == (1, 1)
    assert (torch_.stem.bn.eps, tensorflow.stem.bn.eps) == (1e-5, 1e-3)


def test_a_padded_shortcut_keeps_the_old_channels_in_the_middle() -> None:
    block = CifarBlock(2, 6).eval()
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    image = torch.rand(1, 2, 4, 4)
    out = block(image)
    assert torch.equal(out[:, 2:4], image[:, :, ::2, ::2])
    assert not out[:, (0, 1, 4, 5)].any()
