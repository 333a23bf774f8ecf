"""Images a second on one core by library: decode JPEG, random resized crop to 224, flip, normalise; then colour jitter.

Libraries that are not installed are left out: pip install kornia kornia-rs albumentations

python benchmarks/augmentation.py [--images ../shared/data/imagenet_sample1000/images] [--count 200] [--repeats 5]
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from pathlib import Path
from statistics import median
from time import process_time
from typing import Callable, Dict, List

import numpy as np
import torch
from PIL import Image, ImageEnhance

from edgeecc.data.encoded import EncodedSplit
from edgeecc.data.imagefolder import ImageFiles, images_in
from edgeecc.data.request import DataRequest
from edgeecc.normalisation import IMAGENET

SIDE = 224
#: Strength of brightness, contrast and saturation.
JITTER = 0.4
Task = Callable[[int], torch.Tensor]


def of_edgeecc(files: List[Path], jitter: bool) -> Task:
    """Return the loader of `--data imagefolder:`; jitter, which it lacks, by Pillow on its size."""
    split = EncodedSplit(
        ImageFiles([(file, 0) for file in files]), DataRequest((3, SIDE, SIDE)), augment=True
    )
    blank = Image.new("RGB", (SIDE, SIDE), (90, 120, 60))
    chance = np.random.default_rng(0)

    def one(index: int) -> torch.Tensor:
        if jitter:
            image = blank
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                image = enhance(image).enhance(chance.uniform(1 - JITTER, 1 + JITTER))
            np.asarray(image)
        return split.take([index])[0]

    return one


def of_kornia(files: List[Path], jitter: bool, *, rust: bool) -> Task:
    """Return kornia on one image at a time, decoded by Pillow or by kornia-rs."""
    from kornia import augmentation as k

    steps = [
        k.RandomResizedCrop((SIDE, SIDE), scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)),
        k.RandomHorizontalFlip(),
        *([k.ColorJitter(JITTER, JITTER, JITTER, 0.0, p=1.0)] if jitter else []),
        k.Normalize(torch.tensor(IMAGENET.mean), torch.tensor(IMAGENET.deviation)),
    ]
    pipeline = torch.nn.Sequential(*steps)

    def one(index: int) -> torch.Tensor:
        if rust:
            from kornia_rs.io import read_image

            pixels = np.asarray(read_image(str(files[index])))
        else:
            with Image.open(files[index]) as image:
                pixels = np.array(image.convert("RGB"))
        with torch.no_grad():
            return pipeline(torch.from_numpy(pixels).permute(2, 0, 1).float().div(255.0)[None])

    return one


def of_albumentations(files: List[Path], jitter: bool, *, area: bool) -> Task:
    """Return albumentations on OpenCV, shrinking by two pixels (its default) or by all that are covered."""
    import albumentations as a
    import cv2

    cv2.setNumThreads(1)
    way = cv2.INTER_AREA if area else cv2.INTER_LINEAR
    steps = [
        a.RandomResizedCrop((SIDE, SIDE), (0.08, 1.0), (3 / 4, 4 / 3), interpolation=way),
        a.HorizontalFlip(),
        *([a.ColorJitter(JITTER, JITTER, JITTER, 0.0, p=1.0)] if jitter else []),
        a.Normalize(),
    ]
    pipeline = a.Compose(steps)

    def one(index: int) -> torch.Tensor:
        pixels = cv2.cvtColor(cv2.imread(str(files[index])), cv2.COLOR_BGR2RGB)
        return torch.from_numpy(pipeline(image=pixels)["image"].transpose(2, 0, 1).copy())

    return one


def tasks(files: List[Path], jitter: bool) -> Dict[str, Task]:
    """Return what can be measured here."""
    found = {"edgeecc (Pillow)": of_edgeecc(files, jitter)}
    if importlib.util.find_spec("kornia"):
        found["kornia, decoded by Pillow"] = of_kornia(files, jitter, rust=False)
        found["kornia, decoded by kornia-rs"] = of_kornia(files, jitter, rust=True)
    if importlib.util.find_spec("albumentations"):
        found["albumentations (OpenCV), 2 pixels"] = of_albumentations(files, jitter, area=False)
        found["albumentations (OpenCV), area"] = of_albumentations(files, jitter, area=True)
    return found


def rate(task: Task, count: int) -> float:
    """Return images for a second of processor time."""
    started = process_time()
    for index in range(count):
        task(index)
    return count / (process_time() - started)


def main() -> None:
    """Print the table; each round measures every library once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path("../shared/data/imagenet_sample1000/images")
    parser.add_argument("--images", type=Path, default=default)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    files = images_in(args.images)[: args.count]
    print(f"| library | images a second: median of {args.repeats} | least | most | with jitter |")
    print("|---|---|---|---|---|")
    plain, jittered = tasks(files, False), tasks(files, True)
    rates: Dict[str, List[float]] = {name: [] for name in plain}
    jitter_rates: Dict[str, List[float]] = {name: [] for name in plain}
    for name in plain:
        rate(plain[name], len(files))
    for _ in range(args.repeats):
        for name in plain:
            rates[name].append(rate(plain[name], len(files)))
            jitter_rates[name].append(rate(jittered[name], len(files)))
    for name, found in rates.items():
        cells = f"{median(found):.0f} | {min(found):.0f} | {max(found):.0f}"
        print(f"| {name} | {cells} | {median(jitter_rates[name]):.0f} |")


if __name__ == "__main__":
    main()
