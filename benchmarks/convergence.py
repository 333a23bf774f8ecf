"""The residuals that ECC ends with, by the number of its rounds, on the digits.

Printed, the largest of all seeds: the move of a bound in the last round beyond a single channel, as a share of its
group, and the gap that groups leave, as a share of all importance. The dense network is the one of `processes.py`, a
`digits_mobilenet` of a quarter of the width; each budget is a share of its multiply-accumulates.

    python benchmarks/convergence.py
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any, Tuple

import torch
from processes import BATCH, QUARTER, SHAPE, train

from edgeecc.artifacts import read_json
from edgeecc.config import ComputeConfig, EccConfig, PruneConfig, TrainConfig
from edgeecc.prune import prune
from edgeecc.run_folder import HISTORY_SCHEMA
from edgeecc.run_request import PruneRequest
from edgeecc.units import Metric, parse_budget

BUDGETS, ROUNDS = ("50%", "20%"), (1, 5, 100)

#: Last move, gap, status, and top-1 before fine-tuning.
Ends = Tuple[float, float, str, float]


def ends(weights: Path, budget: str, rounds: int, seed: int, steps: int) -> Ends:
    """Return the last move, the gap, the status, and top-1 before fine-tuning of one solve."""
    run = weights.parent / f"{budget}-{rounds}-{seed}"
    result: Any = prune(
        PruneRequest(
            weights=weights,
            budget=parse_budget(budget, Metric.MACS),
            data="digits",
            network=QUARTER.network,
            input_shape=SHAPE,
            run=run,
            pruning=PruneConfig(steps=steps, finetune_steps=1, checkpoint_s=1e9),
            training=TrainConfig(batch_size=BATCH, lr=2e-3, seed=seed),
            ecc=EccConfig(rounds=rounds, ramp=1.0),
            compute=ComputeConfig(accelerator="cpu"),
        )
    )
    history: Any = read_json(run / "history.json", HISTORY_SCHEMA)
    last = history["prune"][-1]["values"]
    return last["dual"], last["gap"], result["status"], result["pruned_accuracy"]


def main() -> None:
    """Solve all and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=150, help="of pruning")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| budget | rounds | last move | gap | status | top-1 before fine-tuning, mean | seeds |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as home:
        weights = Path(home, "dense.safetensors")
        train(QUARTER, weights)
        for budget in BUDGETS:
            for rounds in ROUNDS:
                found = [ends(weights, budget, rounds, seed, args.steps) for seed in args.seeds]  # fmt: skip
                moves, gaps, statuses, scores = zip(*found)
                ended = ", ".join(sorted(set(statuses)))
                print(
                    f"| {budget} | {rounds} | {max(moves):.2f} | {max(gaps):.1e} | {ended} | "
                    f"{mean(scores):.3f} | {len(found)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
