"""How far pruning and fine-tuning in two processes end from the same in one, through the command line, on the digits.

Two processes sum in another order than one: in float32 and bfloat16 close calls between channels may fall the other
way. Each setting is pruned with each seed in one process and by torchrun in several, on CPUs. Counted are channels, the
most of all seeds: by how many a group's width differs, and how many only one of the two keeps, beside how many one
process keeps; and top-1, its difference. Last, how far one process in bfloat16 is from one in float32: that has nothing
to do with the number of processes.

    python benchmarks/processes.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, Dict, FrozenSet, List, Tuple

import nets
import torch

from edgeecc.artifacts import write_tensors
from edgeecc.data.sources import load
from edgeecc.run_folder import RunFolder
from edgeecc.run_request import tensors_of
from edgeecc.sources import open_network
from edgeecc.training.dense import initialise_, train_dense_

SHAPE = (1, 8, 8)
BATCH, FINETUNE = 32, 10
#: Columns of `line`.
APART = "channels of a group | kept by one only | top-1, mean | top-1, most"
OURS = Path(nets.__file__).parent


@dataclass(frozen=True)
class Dense:
    """A network, how the table calls it, and how it is trained on the digits before it is pruned."""

    name: str
    network: str
    steps: int
    lr: float


@dataclass(frozen=True)
class Setting:
    """One line of the table.

    Args:
        budget: share of its MACs.
        steps: of pruning.
        seeds: of the batches.
    """

    dense: Dense
    precision: str
    budget: str
    steps: int
    seeds: Tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """What a run left: kept channels by group, its top-1, and that of the dense network."""

    keep: Dict[str, FrozenSet[int]]
    score: float
    dense: float


PLAIN = Dense("convolutions of 16, 32, 64", "nets:plain_digits", 200, 2e-3)
QUARTER = Dense("digits_mobilenet, a quarter of the width", "nets:quarter_digits_mobilenet", 600, 8e-3)  # fmt: skip
EARLY = replace(QUARTER, name="the same, trained for 120 steps", steps=120)
SETTINGS: Tuple[Setting, ...] = (
    Setting(PLAIN, "fp32", "50%", 20, (0, 1, 2, 3, 4)),
    Setting(PLAIN, "fp32", "50%", 100, (0, 1, 2)),
    Setting(PLAIN, "fp32", "25%", 20, (0, 1, 2)),
    Setting(PLAIN, "bf16", "50%", 20, (0, 1, 2, 3, 4)),
    Setting(PLAIN, "bf16", "50%", 100, (0, 1, 2)),
    Setting(PLAIN, "bf16", "25%", 20, (0, 1, 2)),
    Setting(QUARTER, "fp32", "50%", 20, (0, 1, 2)),
    Setting(QUARTER, "fp32", "50%", 100, (0, 1, 2)),
    Setting(EARLY, "fp32", "50%", 20, (0, 1, 2)),
)


def train(dense: Dense, path: Path) -> None:
    """Train a network on the digits from random weights and write it."""
    model, source = open_network(dense.network, SHAPE, None)
    initialise_(model, 0)
    train_dense_(
        model, load("digits", input_shape=SHAPE, seed=0).train, steps=dense.steps, batch_size=BATCH, lr=dense.lr,
        seed=0,
    )  # fmt: skip
    write_tensors(path, tensors_of(model), {"network": source.reference})


def prune(setting: Setting, seed: int, weights: Path, run: Path, processes: int) -> Run:
    """Prune by `edgeecc prune`, alone or under torchrun."""
    start = (
        ["-m", "edgeecc"]
        if processes == 1
        else ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", "-m", "--", "edgeecc"]
    )
    arguments = [
        "prune", weights, "--network", setting.dense.network, "--input", "1x8x8", "--data", "digits",
        "--budget", setting.budget, "--of", "macs", "--steps", setting.steps, "--finetune-steps", FINETUNE,
        "--batch-size", BATCH, "--precision", setting.precision, "--seed", seed, "--accelerator", "cpu",
        "--set", "ramp=1", "--lr", "2e-3", "--checkpoint-s", "1e9", "--run", run, "--json",
    ]  # fmt: skip
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(OURS), str(OURS.parent)])
    }  # fmt: skip
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, *start, *map(str, arguments)], env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    result: Any = json.loads(done.stdout)
    assert result["compute"]["processes"] == processes
    folder = RunFolder(run)
    keep = folder.read_keep(folder.read_spec())
    return Run(
        {name: frozenset(units.tolist()) for name, units in keep.items()},
        result["accuracy"],
        result["dense"]["accuracy"],
    )


def line(first: List[Run], second: List[Run]) -> str:
    """Return the largest differences over seeds and groups, as columns of the table."""
    pairs = list(zip(first, second))
    width = max(
        abs(len(one.keep[name]) - len(other.keep[name]))
        for one, other in pairs
        for name in one.keep
    )
    apart, kept = max(
        (
            sum(len(one.keep[name] ^ other.keep[name]) for name in one.keep),
            sum(map(len, one.keep.values())),
        )
        for one, other in pairs
    )
    scores = [abs(one.score - other.score) for one, other in pairs]
    return f"{width} | {apart} of {kept:,} | {mean(scores):.4f} | {max(scores):.4f}"


def main() -> None:
    """Run all settings and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    alone: Dict[Setting, List[Run]] = {}
    print(f"| network | dense top-1 | precision | budget | pruning steps | seeds | {APART} |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as home:
        weights = {
            dense: Path(home, f"{number}.safetensors")
            for number, dense in enumerate((PLAIN, QUARTER, EARLY))
        }
        for dense, path in weights.items():
            train(dense, path)
        for number, setting in enumerate(SETTINGS):
            runs = [
                [
                    prune(setting, seed, weights[setting.dense], Path(home, f"{number}-{seed}-{count}"), count)
                    for seed in setting.seeds
                ]
                for count in (1, args.processes)
            ]  # fmt: skip
            alone[setting] = runs[0]
            print(
                f"| {setting.dense.name} | {runs[0][0].dense:.4f} | {setting.precision} | {setting.budget} | "
                f"{setting.steps} | {len(setting.seeds)} | {line(*runs)} |",
                flush=True,
            )
    print("\nOne process in bf16 beside one in fp32:\n")
    print(f"| network | budget | pruning steps | seeds | {APART} |")
    print("|---|---|---|---|---|---|---|---|")
    for setting, found in alone.items():
        exact = alone.get(replace(setting, precision="fp32"))
        if setting.precision == "bf16" and exact is not None:
            print(
                f"| {setting.dense.name} | {setting.budget} | {setting.steps} | {len(setting.seeds)} | "
                f"{line(exact, found)} |"
            )


if __name__ == "__main__":
    main()
