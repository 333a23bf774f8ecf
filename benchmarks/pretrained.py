"""Accuracy of public weights, recognised by their tensors alone, against what was measured when they were gathered.

python benchmarks/pretrained.py --data FOLDER [--weights NAME ...]

FOLDER holds `weights`, `imagenet_sample1000`, `cifar10` and `camvid`. One thread, float32.
"""

from __future__ import annotations

import argparse
import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Tuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from edgeecc.networks.table import info
from edgeecc.sources import open_network

#: Label of pixels that CamVid gives no class.
VOID = 11
#: Share of a photograph's short side that is kept.
KEPT = 0.875
Items = Iterator[Tuple[Image.Image, np.ndarray]]


@dataclass(frozen=True)
class Case:
    """A weights file, its data, the side of its images, and what was measured when the file was gathered."""

    file: str
    data: str
    side: int
    known: str


CASES = (
    Case("imagenet_mobilenet_v2_torchvision_b0353104.pt", "imagenet", 224, "82.6 / 95.9"),
    Case("imagenet_mobilenet_v1_0.5_160_dequant.pt", "imagenet", 160, "63.3"),
    Case("imagenet_mobilenet_v1_0.5_160_dequant.pt", "imagenet", 224, "70.1"),
    Case("imagenet_efficientnet_lite0.pt", "imagenet", 224, "86.5 / 96.8"),
    Case("cifar10_resnet20_akamaster.pt", "cifar10", 32, "81.03"),
    Case("cifar10_resnet32_akamaster.pt", "cifar10", 32, "82.56"),
    Case("cifar10_resnet44_akamaster.pt", "cifar10", 32, "82.67"),
    Case("cifar10_resnet56_akamaster.pt", "cifar10", 32, "83.20"),
    Case("camvid_espnet_p2q8.pth", "camvid", 360, "50.0"),
)


def imagenet(root: Path, side: int) -> Items:
    """Yield the thousand photographs, their centres cut out, with their classes."""
    with (root / "imagenet_sample1000" / "labels.csv").open(encoding="utf-8") as stream:
        labels = [int(row["class_index"]) for row in csv.DictReader(stream)]
    paths = sorted((root / "imagenet_sample1000" / "images").iterdir())
    for path, label in zip(paths, labels):
        image = Image.open(path).convert("RGB")
        scale = side / KEPT / min(image.size)
        width, height = (round(length * scale) for length in image.size)
        left, top = (width - side) // 2, (height - side) // 2
        centre = image.resize((width, height), Image.Resampling.BILINEAR)
        yield centre.crop((left, top, left + side, top + side)), np.array(label)


def cifar10(root: Path, side: int) -> Items:
    """Yield the test images with their classes."""
    del side
    with np.load(root / "cifar10" / "cifar10_test_jpeg.npz") as packed:
        data, ends, labels = packed["jpeg"].tobytes(), packed["offsets"], packed["labels"]
    for start, end, label in zip(ends, ends[1:], labels):
        yield Image.open(io.BytesIO(data[start:end])), label


def camvid(root: Path, side: int) -> Items:
    """Yield the test images with the classes of their pixels."""
    del side
    for path in sorted((root / "camvid" / "test").iterdir()):
        with Image.open(root / "camvid" / "testannot" / f"{path.stem}.png") as labels:
            yield Image.open(path), np.asarray(labels)


READERS: Dict[str, Callable[[Path, int], Items]] = {
    "imagenet": imagenet,
    "cifar10": cifar10,
    "camvid": camvid,
}


def outputs(
    model: nn.Module, network: str, items: Items
) -> Iterator[Tuple[torch.Tensor, torch.Tensor]]:
    """Yield logits of one image, (classes, ...), and its labels."""
    normalisation = info(network).normalisation
    assert normalisation is not None
    for image, label in items:
        pixels = np.array(image).transpose(2, 0, 1)
        values = np.empty(pixels.shape, dtype=np.float32)
        normalisation.apply(values, pixels)
        with torch.no_grad():
            yield model(torch.from_numpy(values)[None])[0], torch.from_numpy(np.array(label))


def accuracy(pairs: Iterator[Tuple[torch.Tensor, torch.Tensor]]) -> str:
    """Return top-1 and top-5 of images, or the mean intersection over union of pixels, in percent."""
    ranks: List[int] = []
    confusion = torch.zeros(VOID + 1, VOID + 1, dtype=torch.int64)
    for logits, label in pairs:
        if label.ndim:
            cells = label.long() * (VOID + 1) + logits.argmax(0)
            counted = torch.bincount(cells.flatten(), minlength=confusion.numel())
            confusion += counted.view_as(confusion)
        else:
            ranks.append(int((logits > logits[int(label)]).sum()))
    if ranks:
        top1, top5 = (100.0 * float(np.mean(np.array(ranks) < most)) for most in (1, 5))
        return f"{top1:.2f} / {top5:.2f}"
    everywhere = mean_iou(confusion)
    confusion[VOID] = 0
    return f"mIoU {mean_iou(confusion):.2f}; {everywhere:.2f} if void pixels count as told wrongly"


def mean_iou(confusion: torch.Tensor) -> float:
    """Return the mean over the classes, void left out, in percent; rows are labels, columns what was told."""
    met = confusion.diagonal().double()
    ratio = met / (confusion.sum(0) + confusion.sum(1) - met)
    return 100.0 * float(ratio[:VOID].mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", nargs="*", default=[""], help="parts of the files' names")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| weights | recognised as | images | gathered, % | measured, % |\n|---|---|---|---|---|")
    for case in CASES:
        path = args.data / "weights" / case.file
        if not any(part in case.file for part in args.weights) or not path.is_file():
            continue
        model, source = open_network(None, None, path)
        items = READERS[case.data](args.data, case.side)
        found = accuracy(outputs(model.eval(), source.reference, items))
        told = " ".join([source.reference, *(f"{k} {v}" for k, v in source.options.items())])
        print(f"| {case.file} | {told} | {case.data} {case.side} | {case.known} | {found} |")


if __name__ == "__main__":
    main()
