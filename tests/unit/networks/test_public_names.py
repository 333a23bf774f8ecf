"""Public checkpoints whose names differ from ours load and compute; the user's own names are left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgeecc.errors import ArtifactError
from edgeecc.networks.mobilenet import BASE_WIDTHS
from edgeecc.networks.public_names import in_our_names
from edgeecc.networks.table import build, infer
from edgeecc.sources import open_network

STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


def stacked(widths: list[int], classes: int, *, padded: bool) -> nn.Module:
    """Return a MobileNetV1 as public repositories build it: blocks in one sequence, `model`.

    With `padded`, each block begins with a padding, as in hyang1990/energy_constrained_compression.
    """

    def spatial(inputs: int, outputs: int, stride: int, groups: int = 1) -> list[nn.Module]:
        pad = [nn.ZeroPad2d((0, 1, 0, 1) if stride == 2 else 1)] if padded else []
        conv = nn.Conv2d(inputs, outputs, 3, stride, 0 if padded else 1, groups=groups, bias=False)
        return [*pad, conv, *normed(outputs)]

    def normed(width: int) -> list[nn.Module]:
        epsilon, act = (1e-3, nn.ReLU6()) if padded else (1e-5, nn.ReLU())
        return [nn.BatchNorm2d(width, eps=epsilon), act]

    blocks = [nn.Sequential(*spatial(3, widths[0], 2))]
    for inputs, outputs, stride in zip(widths, widths[1:], STRIDES):
        pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        depthwise = spatial(inputs, inputs, stride, inputs)
        blocks.append(nn.Sequential(*depthwise, pointwise, *normed(outputs)))
    model = nn.Module()
    model.model = nn.Sequential(*blocks)
    model.fc = nn.Linear(widths[-1], classes)
    model.forward = lambda image: model.fc(model.model(image).mean((2, 3)))
    return model


@pytest.mark.parametrize(("padded", "style"), [(False, "relu"), (True, "tensorflow")])
def test_stacked_mobilenets_compute_as_their_source(
    tmp_path: Path, padded: bool, style: str
) -> None:
    generator = torch.Generator().manual_seed(5)
    theirs = stacked([round(0.05 * n) for n in BASE_WIDTHS["mobilenet_v1"]], 3, padded=padded)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=2.0, generator=generator)
    path = tmp_path / "theirs.pth"
    torch.save(theirs.state_dict(), path)
    image = torch.randn((2, 3, 64, 64), generator=generator)
    with torch.no_grad():
        expected = theirs.eval()(image)
    assert float(expected.std()) > 1e-3
    for network in (None, "mobilenet_v1"):
        ours, source = open_network(network, None, path)
        assert source.reference == "mobilenet_v1"
        assert source.options["style"] == style
        torch.testing.assert_close(ours.eval()(image).detach(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_encoders_own_head_of_erfnet_is_left_out(tmp_path: Path, prefix: str) -> None:
    model = build("erfnet", classes=7)
    public = {
        **model.state_dict(),
        "encoder.output_conv.weight": torch.zeros(7, 128, 1, 1),
        "encoder.output_conv.bias": torch.zeros(7),
    }
    path = tmp_path / "erfnet_pretrained.pth"
    torch.save({prefix + name: value for name, value in public.items()}, path)
    for network in (None, "erfnet"):
        loaded, source = open_network(network, (3, 32, 64), path)
        assert (source.reference, source.options) == ("erfnet", {"classes": 7})
        for name, value in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value)


def test_public_widths_and_classes_are_read() -> None:
    with torch.device("meta"):
        own = build("mobilenet_v1", width=0.5, classes=9).state_dict()
    public = {public_name(name): value for name, value in own.items()}
    assert infer(public) == ("mobilenet_v1", {"width": 0.5, "classes": 9, "style": "relu"})
    assert infer({**public, "model.14.0.weight": torch.zeros(1)}) is None


def public_name(name: str) -> str:
    """Return the name that marvis/pytorch-mobilenet has for a tensor of ours."""
    head, *rest = name.split(".")
    if head == "fc":
        return name
    pair = ["0"] if head == "stem" else [str(int(rest.pop(0)) + 1)]
    place = {"conv": 0, "bn": 1}[rest.pop(0)] + (3 if head == "pw" else 0)
    return ".".join(["model", *pair, str(place), *rest])


def test_other_names_are_left_alone() -> None:
    tensors = {"model.0.0.weight": 1, "encoder.output_conv.weight": 2}
    assert in_our_names("mine.nets:factory", tensors) == (tensors, {})
    assert in_our_names("mobilenet_v1", tensors) == (tensors, {})
    assert in_our_names("erfnet", tensors)[0] == {"model.0.0.weight": 1}


def test_a_named_network_reads_its_options_off_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "own.pth"
    torch.save(build("espnet", classes=12, p=1, q=2).state_dict(), path)
    for network, shape in (("espnet", (3, 512, 1024)), (None, (3, 360, 480))):
        _, source = open_network(network, None, path)
        assert source.reference == network or source.reference == "espnet_camvid"
        assert dict(source.options) == {"classes": 12, "p": 1, "q": 2, "with_image": False}
        assert source.input_shape == shape
    with pytest.raises(ArtifactError, match="is it the right network"):
        open_network("erfnet", None, path)


@pytest.mark.parametrize("width", [0.1, 0.35, 0.5, 0.75, 1.0, 1.3, 1.4])
def test_every_published_width_of_mobilenet_v2_is_read(width: float) -> None:
    with torch.device("meta"):
        state = build("mobilenet_v2", width=width, classes=4).state_dict()
        name, options = infer(state)
        same = build(name, **options).state_dict()
    assert (name, options["classes"]) == ("mobilenet_v2", 4)
    assert {key: value.shape for key, value in same.items()} == {
        key: value.shape for key, value in state.items()
    }


def test_foreign_tensors_of_the_new_families_are_nobodys() -> None:
    for shapes in (
        {"features.0.0.weight": (7, 3, 3, 3), "classifier.1.weight": (5, 1280)},
        {"encoder.classifier.conv.weight": (5, 256, 1, 1)},
        {"encoder.classifier.conv.weight": (), "encoder.level2.0.x": (1,)},
        {"conv0.weight": (3, 3, 3, 3), "fc.weight": (5, 3)},
        {"linear.weight": (10, 64)},
        {"_fc.weight": (0, 1280)},
    ):
        assert infer({name: torch.zeros(shape) for name, shape in shapes.items()}) is None
    with torch.device("meta"):
        state = build("mobilenet_v2", classes=4).state_dict()
        state["features.5.conv.2.weight"] = torch.empty(33, 192, 1, 1)
    assert infer(state) is None
