"""Time a training step in every precision and layout, side by side, on the CPU and on a GPU where there is one.

    python benchmarks/precision.py --network fashion_mobilenet --batch 128

A step is forward, distillation loss, backward and Adam on random images. The combinations take turns, so that what
else the machine does falls on all alike; printed are the median of the repeats, their quartiles, and the ratio to
float32 in torch's own layout.
"""

from __future__ import annotations

import argparse
import copy
from itertools import product
from time import perf_counter
from typing import Callable, Dict, List, Tuple

import numpy as np
import torch

from edgeecc.config import Precision
from edgeecc.networks.table import build, info
from edgeecc.training.classification import CLASSIFICATION
from edgeecc.training.compute import Compute
from edgeecc.training.dense import initialise_
from edgeecc.training.parallel import ALONE
from edgeecc.training.step import Stepper

#: Steps of each combination before the first that counts.
WARM_UP = 2
PRECISIONS: Dict[str, Tuple[Precision, ...]] = {
    "cpu": ("fp32", "bf16"),
    "cuda": ("fp32", "bf16", "fp16"),
}


def stepper(network: str, batch: int, compute: Compute) -> Callable[[], None]:
    """Return what makes one step on the same images each time."""
    model = build(network)
    initialise_(model, 0)
    teacher = copy.deepcopy(model).eval().to(compute.device)
    model.to(compute.device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((batch, *info(network).input_shape), generator=generator)
    with torch.no_grad():
        output = CLASSIFICATION.output_of(teacher(compute.placed(images[:1])))
    labels = torch.randint(0, output.shape[1], (batch,), generator=generator)
    work = Stepper(model, teacher, CLASSIFICATION, compute=compute, world=ALONE)
    work.start(images[:1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        work.gradients_(optimizer, (images, labels), 0.5, "a step")
        work.move_(optimizer)
        if compute.device.type == "cuda":
            torch.cuda.synchronize()

    return step


def measure(network: str, batch: int, repeats: int, device: str) -> None:
    """Print the table of one device."""
    choices = list(product(PRECISIONS[device], (False, True)))
    steps = [stepper(network, batch, Compute(torch.device(device), *choice)) for choice in choices]
    times: List[List[float]] = [[] for _ in choices]
    for turn in range(WARM_UP + repeats):
        for step, taken in zip(steps, times):
            start = perf_counter()
            step()
            if turn >= WARM_UP:
                taken.append(perf_counter() - start)
    base = float(np.median(times[0]))
    print(f"{network}, batch {batch}, {device}, {torch.get_num_threads()} threads, {repeats} steps")
    for (precision, last), taken in zip(choices, times):
        low, middle, high = np.quantile(taken, (0.25, 0.5, 0.75))
        layout = "channels last" if last else "channels first"
        print(
            f"  {precision}  {layout:<14}  {middle:8.4f} s  [{low:.4f}, {high:.4f}]  {middle / base:5.2f}"
        )


def main() -> None:
    """Read the options and measure on every device that is here."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="fashion_mobilenet")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        measure(options.network, options.batch, options.repeats, device)


if __name__ == "__main__":
    main()
