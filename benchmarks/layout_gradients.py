"""Gradients of convolutions on this CPU against float64, by precision and layout, with edgeecc's guard and without.

Each process draws thin convolutions of one kind from a seed (plain, transposed, channel by channel), leaves NaN in
freed memory before each backward pass, and compares the gradients of image and weights with those of float64. A
gradient is wrong where its error is over 1e-4 of its norm in fp32, 5e-2 in bf16. A process that writes where it must
not crashes sooner or later, or not at all.

    python benchmarks/layout_gradients.py --processes 4
    python benchmarks/layout_gradients.py --processes 4 --isa AVX2
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
from itertools import product
from typing import Dict, List, Optional, Tuple

import torch
from torch import nn

from edgeecc.config import Precision
from edgeecc.training.layout import plain_where_unsafe

CHANNELS = (2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 20, 24, 31, 32, 33, 40, 48, 50, 64)
KINDS = ("1x1, with a stride", "dilated", "others")
KERNELS = ((1, 1), (3, 3), (3, 1), (1, 3), (5, 5), (2, 2))
MAPS = ((8, 8), (14, 14), (23, 30), (32, 32), (45, 60))
DTYPES: Dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
WRONG: Dict[Precision, float] = {"fp32": 1e-4, "bf16": 5e-2}
ROWS: Tuple[Tuple[Precision, str, str], ...] = tuple(
    product(("fp32", "bf16"), ("channels first", "channels last", "channels last, guarded"), KINDS)
)


def drawn(rng: random.Random, kind: str) -> Tuple[nn.Module, torch.Tensor, str]:
    """Return a convolution, its images and what it is."""
    way = rng.choice(["plain", "transposed", "by channel"])
    inputs, outputs = rng.choice(CHANNELS), rng.choice(CHANNELS)
    kernel, stride, dilation = rng.choice(KERNELS), rng.choice([1, 2]), 1
    if kind == "dilated":
        dilation = rng.choice([2, 4, 8])
        way = "plain" if way == "transposed" else way
    if kind == KINDS[0]:
        kernel, stride = (1, 1), 2
    elif kernel == (1, 1):
        stride = 1
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
    images = torch.randn((rng.choice([1, 2, 4]), inputs, *rng.choice(MAPS)), generator=generator)
    if way == "transposed":
        layer: nn.Module = nn.ConvTranspose2d(
            inputs, outputs, kernel, stride, output_padding=stride - 1, bias=False
        )
    else:
        groups = inputs if way == "by channel" else 1
        outputs = inputs if way == "by channel" else outputs
        padding = tuple(dilation * (size // 2) for size in kernel)
        layer = nn.Conv2d(
            inputs, outputs, kernel, stride, padding, dilation, groups, bias=False
        )  # fmt: skip
    with torch.no_grad():
        next(layer.parameters()).normal_(generator=generator)
    what = f"{way}, {inputs} to {outputs} channels, kernel {kernel}, stride {stride}, dilation {dilation}"
    return layer, images, what


def gradients(
    layer: nn.Module, images: torch.Tensor, of_output: torch.Tensor, guard: Optional[Precision]
) -> List[torch.Tensor]:
    """Return the gradients of image and weights, float64."""
    layers = nn.Sequential(layer.to(images.dtype))
    images = images.detach().requires_grad_()
    weight = next(layers.parameters())
    weight.grad = None
    guarding = plain_where_unsafe(layers, guard) if guard else contextlib.nullcontext()
    with guarding:
        output = layers(images)
        for power in range(8, 22):
            filled = [torch.full((1 << power,), float("nan")) for _ in range(3)]
            del filled
        output.backward(of_output)
    return [x.grad.double() for x in (images, weight) if x.grad is not None]


def wrong(seed: int, count: int, precision: Precision, layout: str, kind: str) -> List[str]:
    """Return what of `count` convolutions has a wrong gradient."""
    rng = random.Random(seed)  # noqa: S311  # no secret
    found = []
    for _ in range(count):
        layer, images, what = drawn(rng, kind)
        with torch.no_grad():
            shape = layer(images).shape
        of_output = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        exact = gradients(layer, images.double(), of_output.double(), None)
        given = [tensor.to(DTYPES[precision]) for tensor in (images, of_output)]
        if layout != "channels first":
            given = [tensor.to(memory_format=torch.channels_last) for tensor in given]
        guard = precision if layout.endswith("guarded") else None
        got = gradients(layer, given[0], given[1], guard)
        errors = [float((a - b).norm() / b.norm()) for a, b in zip(got, exact)]
        if not all(error < WRONG[precision] for error in errors):
            found.append(what)
    return found


def main() -> None:
    """Print the table, and for each row some of what was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--processes", type=int, default=4, help="of each row, with seeds 0, 1, ..."
    )
    parser.add_argument("--count", type=int, default=150, help="convolutions of a process")
    parser.add_argument("--isa", help="the most that oneDNN may use, as AVX2; else all there is")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(wrong(int(args.one[0]), args.count, *args.one[1:])))
        return
    environment = {**os.environ, **({"ONEDNN_MAX_CPU_ISA": args.isa} if args.isa else {})}
    print("| precision | layout | kind | convolutions | wrong gradients | processes that crashed |")
    print("|---|---|---|---:|---:|---:|")
    seen: Dict[str, List[str]] = {}
    for precision, layout, kind in ROWS:
        bad: List[str] = []
        crashed = 0
        for seed in range(args.processes):
            one = ["--count", str(args.count), "--one", str(seed), precision, layout, kind]
            ended = subprocess.run(  # noqa: S603  # this script
                [sys.executable, __file__, *one], capture_output=True, text=True, check=False, env=environment
            )  # fmt: skip
            if ended.returncode < 0:
                crashed += 1
            elif ended.returncode:
                raise SystemExit(ended.stderr)
            else:
                bad += json.loads(ended.stdout)
        compared = args.count * (args.processes - crashed)
        print(
            f"| {precision} | {layout} | {kind} | {compared} | {len(bad)} | {crashed} of {args.processes} |",
            flush=True,
        )
        seen[f"{precision}, {layout}, {kind}"] = bad
    for row, bad in seen.items():
        for what in bad[:3]:
            print(f"wrong in {row}: {what}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
