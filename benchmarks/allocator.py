"""What keeping freed memory is worth in training on a CPU: a training step and the scoring of images, side by side.

Each round starts two processes, one as the C library is and one that keeps what is freed, in turn first, and each
times steps (forward, distillation loss, backward, Adam) and scores images, in one thread and channels last. Printed
are medians over rounds, the ratio of the two with its least and most over rounds, and the largest peak memory.

    python benchmarks/allocator.py --networks fashion_mobilenet:128 nets:cifar_mobilenet_v2:128 --rounds 5
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import resource
import subprocess
import sys
from statistics import median
from time import perf_counter
from typing import Callable, Dict, List

import torch

from edgeecc.data.splits import TensorSplit
from edgeecc.networks.table import info
from edgeecc.sources import open_network
from edgeecc.training.allocator import freed_memory_kept
from edgeecc.training.classification import CLASSIFICATION
from edgeecc.training.compute import Compute
from edgeecc.training.dense import initialise_
from edgeecc.training.evaluate import evaluate
from edgeecc.training.parallel import ALONE
from edgeecc.training.step import Stepper

#: Calls of each before those that count, and those.
WARM_UP, COUNTED = 5, 8
#: Batches that are scored in a call.
SCORED = 4
CPU = Compute(channels_last=True)
#: Of the networks that the table of networks does not have.
SHAPE = (3, 32, 32)
WORK = ("a training step", "scoring")

Figures = Dict[str, float]


def seconds(call: Callable[[], object]) -> float:
    """Return the median of calls."""
    taken = []
    for turn in range(WARM_UP + COUNTED):
        start = perf_counter()
        call()
        if turn >= WARM_UP:
            taken.append(perf_counter() - start)
    return median(taken)


def figures(network: str, batch: int, kept: bool) -> Figures:
    """Return the seconds of each work, and the bytes of peak memory, in this process."""
    torch.set_num_threads(1)
    shape = SHAPE if network.startswith("nets:") else info(network).input_shape
    model, _ = open_network(network, shape, None)
    initialise_(model, 0)
    teacher = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((SCORED * batch, *shape), generator=generator)
    labels = torch.randint(0, 10, (len(images),), generator=generator)
    split = TensorSplit(images, labels)
    work = Stepper(model, teacher, CLASSIFICATION, compute=CPU, world=ALONE)
    work.start(images[:1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        work.gradients_(optimizer, (images[:batch], labels[:batch]), 0.5, "a step")
        work.move_(optimizer)

    with contextlib.ExitStack() as stack:
        if kept and not stack.enter_context(freed_memory_kept(CPU.device)):
            raise SystemExit("this C library or this environment does not let freed memory be kept")
        trained = seconds(step)
        scored = seconds(lambda: evaluate(teacher, split, CLASSIFICATION, compute=CPU))
    peak = 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {WORK[0]: trained, WORK[1]: scored, "peak": peak}


def in_a_process(network: str, batch: int, kept: bool) -> Figures:
    """Return the figures of a fresh process."""
    command = [
        sys.executable,
        __file__,
        "--one",
        f"{network}:{batch}",
        *(["--kept"] if kept else []),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)  # noqa: S603  # this script
    found: Figures = json.loads(done.stdout)
    return found


def rows(network: str, batch: int, rounds: int) -> List[str]:
    """Return the rows of a network."""
    found: Dict[bool, List[Figures]] = {False: [], True: []}
    for turn in range(rounds):
        for kept in (False, True) if turn % 2 == 0 else (True, False):
            found[kept].append(in_a_process(network, batch, kept))
    peaks = {kept: max(one["peak"] for one in each) / 1e6 for kept, each in found.items()}
    lines = []
    for work in WORK:
        times = {kept: [one[work] for one in each] for kept, each in found.items()}
        ratios = [after / before for before, after in zip(times[False], times[True])]
        middle = {kept: 1e3 * median(each) for kept, each in times.items()}
        lines.append(
            f"| {network.rpartition(':')[2]}, {batch if work == WORK[0] else SCORED * batch} | {work} | "
            f"{middle[False]:.0f} ms | {middle[True]:.0f} ms | {median(ratios):.2f} ({min(ratios):.2f} to "
            f"{max(ratios):.2f}) | {peaks[False]:.0f} MB | {peaks[True]:.0f} MB |"
        )
    return lines


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = ["fashion_mobilenet:128", "nets:cifar_mobilenet_v2:128", "nets:resnet20:128"]
    parser.add_argument("--networks", nargs="+", default=default, metavar="NETWORK:BATCH")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--kept", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        network, _, batch = args.one.rpartition(":")
        print(json.dumps(figures(network, int(batch), args.kept)))
        return
    print(
        "| network, images | work | as it is | freed memory kept | ratio, least to most | peak memory | kept |\n"
        "|---|---|---:|---:|---|---:|---:|"
    )
    for text in args.networks:
        network, _, batch = text.rpartition(":")
        print("\n".join(rows(network, int(batch), args.rounds)), flush=True)


if __name__ == "__main__":
    main()
