"""Images a second that each kind of data gives, beside what a training step takes.

Each round measures everything once. "One core" takes images in the training thread and counts processor time;
"ahead" is the rate at which batches can be had, by the clock, from threads on all usable cores. A step is forward
and backward of MobileNetV1 0.5 at 160x160 in one thread. WebDataset shards and the folder of images are made in a
temporary folder.

python benchmarks/loading.py [--shared ../shared/data] [--batch 32] [--batches 6] [--repeats 5]
"""

from __future__ import annotations

import argparse
import io
import tarfile
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Callable, Dict, Sequence, Tuple

import torch
from torch.nn import functional as F

from edgeecc.data.prefetch import usable_cores
from edgeecc.data.sources import load
from edgeecc.data.splits import Batches, Split
from edgeecc.networks.table import build

STEP_SIDE = 160
#: Of one round, row -> the two figures of it.
Rates = Dict[str, Tuple[float, float]]


def lay_out(images: Path, root: Path) -> None:
    """Make a folder of images and shards of the sample, one class an image in ten classes."""
    files = sorted(images.iterdir())
    for part, chosen in (("train", files), ("val", files[:10])):
        with tarfile.open(root / f"{part}-0.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for index, file in enumerate(chosen):
                folder = root / "folder" / part / str(index % 10)
                folder.mkdir(parents=True, exist_ok=True)
                (folder / file.name).symlink_to(file.resolve())
                archive.add(file, f"{index:04}.jpg")
                label = tarfile.TarInfo(f"{index:04}.cls")
                label.size = 1
                archive.addfile(label, io.BytesIO(str(index % 10).encode()))


def splits(shared: Path, root: Path) -> Dict[str, Split]:
    """Return the training splits to measure, by their row in the table."""
    lay_out(shared / "imagenet_sample1000" / "images", root)
    wanted: Dict[str, Tuple[str, Tuple[int, int, int]]] = {
        "ImageNet JPEGs in folders, 224x224": (f"imagefolder:{root / 'folder'}", (3, 224, 224)),
        "ImageNet JPEGs in folders, 160x160": (f"imagefolder:{root / 'folder'}", (3, 160, 160)),
        "the same in WebDataset shards, 224x224": (f"webdataset:{root}", (3, 224, 224)),
        "CamVid with masks, 360x480": (f"camvid:{shared / 'camvid'}", (3, 360, 480)),
        "CIFAR-10, 32x32": (f"cifar10:{shared / 'cifar10'}", (3, 32, 32)),
        "Fashion-MNIST, 28x28": ("fashion-mnist", (1, 28, 28)),
    }
    return {name: load(text, input_shape=shape).train for name, (text, shape) in wanted.items()}


def load_rates(split: Split, size: int, count: int) -> Tuple[float, float]:
    """Return images a second of one core, and of the clock with threads ahead.

    Args:
        split: to take from.
        size: images per batch.
        count: of batches; fifty times as many of splits in memory, which take next to no time.
    """
    count *= 1 if getattr(split, "decodes", False) else 50
    alone = Batches(split, size, 0, 0)
    started = process_time()
    for step in range(count):
        alone.batch(step)
    core = size * count / (process_time() - started)
    ahead = Batches(split, size, 0)
    ahead.batch(0)
    started = perf_counter()
    for step in range(1, count + 1):
        ahead.batch(step)
    return core, size * count / (perf_counter() - started)


def step_rates(batch: Callable[[int], torch.Tensor], size: int, count: int) -> Tuple[float, float]:
    """Return images a second of training steps by the clock, and the share of it that they wait for images."""
    model = build("mobilenet_v1", width=0.5, classes=10)
    labels = torch.arange(size) % 10
    started, waited = perf_counter(), 0.0
    for step in range(count):
        asked = perf_counter()
        images = batch(step)
        waited += perf_counter() - asked
        F.cross_entropy(model(images), labels).backward()
    spent = perf_counter() - started
    return size * count / spent, waited / spent


def measure_loading(found: Dict[str, Split], size: int, count: int) -> Rates:
    """Return one round of loading."""
    return {name: load_rates(split, size, count) for name, split in found.items()}


def measure_steps(split: Split, size: int, count: int) -> Rates:
    """Return one round of training steps."""
    fixed = split.take(range(size))[0]
    alone, ahead = Batches(split, size, 0, 0), Batches(split, size, 0)
    ways: Dict[str, Callable[[int], torch.Tensor]] = {
        "from memory": lambda step: fixed,
        "taken in the training thread": lambda step: alone.batch(step)[0],
        "taken ahead": lambda step: ahead.batch(step)[0],
    }
    return {name: step_rates(batch, size, count) for name, batch in ways.items()}


def spread(values: Sequence[float]) -> str:
    """Return median, least and most as cells."""
    return f"{median(values):.0f} | {min(values):.0f} | {max(values):.0f}"


def main() -> None:
    """Print the two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        found = splits(args.shared, Path(root))
        split = found[f"ImageNet JPEGs in folders, {STEP_SIDE}x{STEP_SIDE}"]
        measure_loading(found, args.batch, 1)
        loading, steps = [], []
        for _ in range(args.repeats):
            loading.append(measure_loading(found, args.batch, args.batches))
            steps.append(measure_steps(split, args.batch, args.batches))
    print(
        f"| data | images a second of one core: median of {args.repeats} | least | most "
        f"| ahead, {usable_cores()} cores, by the clock |\n|---|---|---|---|---|"
    )
    for name in loading[0]:
        clock = median(rates[name][1] for rates in loading)
        print(f"| {name} | {spread([rates[name][0] for rates in loading])} | {clock:.0f} |")
    print(
        f"\n| images of the training step | images a second: median of {args.repeats} | least | most "
        "| waiting for images |\n|---|---|---|---|---|"
    )
    for name in steps[0]:
        waiting = median(rates[name][1] for rates in steps)
        print(f"| {name} | {spread([rates[name][0] for rates in steps])} | {waiting:.1%} |")


if __name__ == "__main__":
    main()
