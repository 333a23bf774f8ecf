"""The width step of ECC under one to three budgets at once: what it keeps, whether all hold, and its milliseconds.

The groups are those of a network, importance is log-normal, and each budget is on a cost of its own: the network's
multiply-accumulates with every layer's coefficient times a number in [0.6, 1.4], which are costs as alike as energy
and latency are, and bounds within 3 % of each other, so that often none holds the others too. With --rounds the most
rounds over several duals are varied in the same run.

    python benchmarks/joint_budgets.py --network mobilenet_v1 --rounds 4 16 64
"""

from __future__ import annotations

import argparse
from statistics import mean, median
from time import perf_counter
from typing import Dict, List, Tuple

import numpy as np
import torch

from edgeecc.cost.exact import mac_cost
from edgeecc.cost.product import ProductModel
from edgeecc.graph.spec import FloatArray
from edgeecc.graph.trace import trace
from edgeecc.networks.table import build, info
from edgeecc.solvers import widthstep
from edgeecc.solvers.base import Limit

Row = Dict[str, float]


def drawn(
    macs: ProductModel, dense: FloatArray, count: int, seed: int
) -> Tuple[List[FloatArray], List[Limit]]:
    """Return falling importance per group and `count` limits on costs that are alike."""
    generator = np.random.default_rng(seed)
    ranked = [np.sort(generator.lognormal(0.0, 1.0, int(width)))[::-1].copy() for width in dense]
    share = generator.uniform(0.2, 0.5)
    limits = []
    for _ in range(count):
        scaled = macs.coefficients * generator.uniform(0.6, 1.4, len(macs.coefficients))
        cost = ProductModel(
            macs.metric, "a model: MACs times random coefficients", groups=macs.groups, terms=macs.terms,
            coefficients=scaled, constant=0.0,
        )  # fmt: skip
        limits.append(Limit(cost, share * generator.uniform(0.97, 1.03) * cost.predict(dense)))
    return ranked, limits


def measured(macs: ProductModel, dense: FloatArray, count: int, seed: int) -> Row:
    """Solve one width step from dense; return the figures."""
    ranked, limits = drawn(macs, dense, count, seed)
    started = perf_counter()
    widths, z = widthstep.solve(ranked, limits, start=dense, duals=np.zeros(count))
    seconds = perf_counter() - started
    kept = sum(values[: int(width)].sum() for values, width in zip(ranked, widths))
    return {
        "kept": float(kept / sum(values.sum() for values in ranked)),
        "load": max(limit.cost.predict(widths) / limit.bound for limit in limits),
        "prices": float((z > 0.0).sum()),
        "ms": 1e3 * seconds,
    }


def main() -> None:
    """Solve every draw under every number of budgets and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="mobilenet_v1")
    parser.add_argument("--seeds", type=int, default=20, help="draws of importance and costs")
    parser.add_argument("--rounds", type=int, nargs="+", default=[widthstep.ROUNDS])
    args = parser.parse_args()
    spec = trace(
        build(args.network), (torch.zeros(1, *info(args.network).input_shape),), network=args.network
    )  # fmt: skip
    macs, dense = mac_cost(spec), spec.vector(spec.dense_widths())
    print(f"{args.network}, {len(dense)} groups, {args.seeds} draws")
    print(
        "| budgets | rounds at most | with several prices | importance kept | largest load | ms, median | most |"
    )
    print("|---|---|---|---|---|---|---|")
    for count in (1, 2, 3):
        for rounds in args.rounds if count > 1 else args.rounds[:1]:
            widthstep.ROUNDS = rounds
            rows = [measured(macs, dense, count, seed) for seed in range(args.seeds)]
            several = sum(row["prices"] > 1.0 for row in rows)
            print(
                f"| {count} | {rounds if count > 1 else ''} | {several} | {mean(row['kept'] for row in rows):.5f} | "
                f"{max(row['load'] for row in rows):.5f} | {median(row['ms'] for row in rows):.0f} | "
                f"{max(row['ms'] for row in rows):.0f} |"
            )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
