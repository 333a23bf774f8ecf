"""Seconds and memory of one projection of AlexNet's 61 million weights, beside sorting them.

python benchmarks/projection_speed.py [--share 0.2] [--repeats 5]
"""

from __future__ import annotations

import argparse
import tracemalloc
from statistics import median
from time import perf_counter
from typing import Callable, List

import numpy as np

from edgeecc.cost.hardware import EYERISS
from edgeecc.cost.systolic import network_energy, shapes_of, weight_cost
from edgeecc.solvers.projection import LayerCost, project
from edgeecc.sources import open_network, trace_source


def seconds(task: Callable[[], object], repeats: int) -> List[float]:
    """Return the wall time of each run."""
    times = []
    for _ in range(repeats):
        started = perf_counter()
        task()
        times.append(perf_counter() - started)
    return times


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--share", type=float, default=0.2, help="budget, share of dense")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    model, source = open_network("alexnet", None, None)
    shapes = shapes_of(trace_source(model, source).spec)
    parameters = dict(model.named_parameters())
    weights = [parameters[f"{shape.name}.weight"].detach().numpy() for shape in shapes]
    costs = [LayerCost(*weight_cost(shape, EYERISS), EYERISS.weight_words) for shape in shapes]
    energies = network_energy(shapes, EYERISS, exact=False)
    dense, floor = (sum(getattr(e, part) for e in energies) for part in ("total", "inputs"))
    budget = args.share * dense - floor
    count = sum(values.size for values in weights)
    result = project(weights, costs, budget)
    patterns = {shape.name: keep for shape, keep in zip(shapes, result.keep)}
    reached = [
        sum(
            energy.total
            for energy in network_energy(shapes, EYERISS, weights=patterns, exact=exact)
        )
        / dense
        for exact in (False, True)
    ]
    print(f"{count:,} fresh weights, budget {args.share:.0%} of dense (relaxed)")
    print(
        f"reached {reached[0]:.6%} relaxed, {reached[1]:.6%} exact; gap to the optimum at most {result.gap:.1e}\n"
    )
    tracemalloc.start()
    project(weights, costs, budget)
    most = tracemalloc.get_traced_memory()[1] / (4 * count)
    tracemalloc.stop()
    print("| task | seconds: median | least | most |\n|---|---|---|---|")
    tasks = {
        "project": lambda: project(weights, costs, budget),
        "argsort the squares, the first step of the published way": lambda: np.argsort(
            np.concatenate([np.square(values).ravel() for values in weights])
        ),
    }
    for name, task in tasks.items():
        times = seconds(task, args.repeats)
        print(f"| {name} | {median(times):.2f} | {min(times):.2f} | {max(times):.2f} |")
    print(f"\nworking memory at most {most:.2f} of the network's")
    times = seconds(lambda: network_energy(shapes, EYERISS), args.repeats)
    print(f"energy of the dense network in {1e3 * median(times):.1f} ms")


if __name__ == "__main__":
    main()
