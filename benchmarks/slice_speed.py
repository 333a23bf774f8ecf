"""Variants a second, one thread: cut a dense ONNX graph for random widths, without and with serialising it.

python benchmarks/slice_speed.py [--network mobilenet_v1] [--variants 100] [--repeats 5]
"""

from __future__ import annotations

import argparse
from statistics import median
from time import perf_counter
from typing import Callable, List

import torch

from edgeecc.cost.design import Sampling
from edgeecc.graph.onnx_slice import SlicePlan
from edgeecc.graph.onnx_work import work
from edgeecc.graph.spec import Widths
from edgeecc.sources import open_network, trace_source


def rate(task: Callable[[Widths], object], variants: List[Widths]) -> float:
    """Return calls a second."""
    started = perf_counter()
    for widths in variants:
        task(widths)
    return len(variants) / (perf_counter() - started)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="mobilenet_v1")
    parser.add_argument("--variants", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, source = open_network(args.network, None, None)
    traced = trace_source(model, source)
    spec, graph = traced.spec, traced.graph
    started = perf_counter()
    plan = SlicePlan.build(graph, spec)
    print(
        f"{args.network}, {'x'.join(map(str, source.input_shape))}; plan built once in {perf_counter() - started:.2f} s"
    )
    sampling = Sampling(spec, seed=0, design="uniform", heldout=0.2)
    variants = [sampling.widths(number) for number in range(args.variants)]
    tasks = {
        "cut": lambda widths: plan.cut(spec.keep_first(widths)),
        "cut and serialise": lambda widths: plan.cut(spec.keep_first(widths)).SerializeToString(),
        "count the work only": lambda widths: work(plan, widths),
    }
    print(
        f"\n| task | variants a second: median of {args.repeats} | least | most |\n|---|---|---|---|"
    )
    for name, task in tasks.items():
        rates = [rate(task, variants) for _ in range(args.repeats)]
        print(f"| {name} | {median(rates):.0f} | {min(rates):.0f} | {max(rates):.0f} |")


if __name__ == "__main__":
    main()
