"""Real public weights are told by their tensors, load, and know what they were trained on."""

from __future__ import annotations

import csv
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from edgeecc.networks.table import info
from edgeecc.sources import open_network

SHARED = Path(__file__).parents[3].parent / "shared" / "data"
FILES = {
    "camvid_espnet_p2q8.pth": ("espnet_camvid", {"classes": 12, "p": 2, "q": 8, "with_image": True}),
    "cityscapes_espnet_p2q8.pth": ("espnet", {"classes": 20, "p": 2, "q": 8, "with_image": False}),
    "cifar10_resnet20_akamaster.pt": ("resnet20", {"classes": 10}),
    "cifar10_resnet56_akamaster.pt": ("resnet56", {"classes": 10}),
    "imagenet_mobilenet_v1_0.5_160_dequant.pt": ("mobilenet_v1_tf", {"width": 0.5, "classes": 1000}),
    "imagenet_mobilenet_v2_torchvision_b0353104.pt": ("mobilenet_v2", {"width": 1.0, "classes": 1000}),
}  # fmt: skip
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="no shared weights and data here")


def told(model: nn.Module, network: str, image: Image.Image) -> torch.Tensor:
    pixels = np.array(image.convert("RGB")).transpose(2, 0, 1)
    values = np.empty(pixels.shape, dtype=np.float32)
    info(network).normalisation.apply(values, pixels)
    with torch.no_grad():
        return model.eval()(torch.from_numpy(values)[None])[0].argmax(0)


@pytest.mark.parametrize("file", sorted(FILES))
def test_weights_are_recognised_and_load(file: str) -> None:
    name, options = FILES[file]
    found, source = open_network(None, None, SHARED / "weights" / file)
    assert (source.reference, dict(source.options)) == (name, options)
    named, again = open_network(name, None, SHARED / "weights" / file)
    assert again == source
    for one, other in zip(found.state_dict().values(), named.state_dict().values()):
        assert torch.equal(one, other)


@pytest.mark.parametrize("file", [file for file in sorted(FILES) if file.startswith("imagenet")])
def test_photographs_are_told(file: str) -> None:
    model, source = open_network(None, None, SHARED / "weights" / file)
    with (SHARED / "imagenet_sample1000" / "labels.csv").open(encoding="utf-8") as stream:
        labels = [int(row["class_index"]) for row in csv.DictReader(stream)]
    images = sorted((SHARED / "imagenet_sample1000" / "images").iterdir())
    right = 0
    for place in range(0, 1000, 100):
        image = Image.open(images[place]).resize((224, 224))
        right += int(told(model, source.reference, image)) == labels[place]
    assert right >= 6


def test_cifar_images_are_told() -> None:
    model, source = open_network(None, None, SHARED / "weights" / "cifar10_resnet20_akamaster.pt")
    with np.load(SHARED / "cifar10" / "cifar10_test_jpeg.npz") as packed:
        data, ends, labels = packed["jpeg"].tobytes(), packed["offsets"], packed["labels"]
    right = sum(
        int(told(model, source.reference, Image.open(BytesIO(data[ends[place] : ends[place + 1]]))))
        == labels[place]
        for place in range(50)
    )
    assert right >= 35


def test_streets_are_told() -> None:
    model, source = open_network(None, None, SHARED / "weights" / "camvid_espnet_p2q8.pth")
    path = sorted((SHARED / "camvid" / "test").iterdir())[100]
    labels = torch.from_numpy(
        np.array(Image.open(SHARED / "camvid" / "testannot" / f"{path.stem}.png"))
    )
    right = told(model, source.reference, Image.open(path)) == labels
    assert float(right[labels < 11].float().mean()) > 0.8
