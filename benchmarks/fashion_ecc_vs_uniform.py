"""ECC against uniform width on Fashion-MNIST at equal training steps: accuracy, mean and spread over seeds.

The network has 16-32-64-64-128-128-128 channels. Its energy is a tenth fixed and nine tenths in proportion to
each layer's multiply-accumulates, dense = 1. Both methods get the same batches, the
same distillation from the same dense network and the same number of steps; uniform spends all of them on
fine-tuning. Results are kept as they come, a second call goes on.

    python benchmarks/fashion_ecc_vs_uniform.py --out runs/fashion
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter
from typing import Dict, List, Tuple

import numpy as np
import torch
from torch import nn

from edgeecc.artifacts import read_tensors, write_tensors
from edgeecc.config import EccConfig, TrainConfig
from edgeecc.cost.exact import mac_cost
from edgeecc.cost.product import ProductModel
from edgeecc.data.sources import DataBundle, load
from edgeecc.graph.spec import NetworkSpec
from edgeecc.graph.surgery import mask_
from edgeecc.graph.trace import trace
from edgeecc.networks.table import build, info
from edgeecc.solvers.base import Limit, Problem
from edgeecc.solvers.finetune import FixedPattern
from edgeecc.solvers.table import make_solver
from edgeecc.training.dense import initialise_, train_dense_
from edgeecc.training.evaluate import top1
from edgeecc.training.loop import TorchTrainer

NETWORK = "fashion_mobilenet"
DENSE_LR, BATCH = 4e-3, 128


def energy_model(spec: NetworkSpec) -> ProductModel:
    """Return the normalised energy: 0.1 fixed, 0.9 in proportion to MACs."""
    macs = mac_cost(spec)
    share = 0.9 * macs.coefficients / macs.coefficients.sum()
    return ProductModel(
        macs.metric,
        "share of dense MACs + 10 %",
        groups=macs.groups,
        terms=macs.terms,
        coefficients=share,
        constant=0.1,
    )


def dense_network(seed: int, data: DataBundle, folder: Path, passes: int) -> nn.Module:
    """Return the dense network of a seed after so many passes, from its file when it is there."""
    model = build(NETWORK)
    path = folder / f"dense-{passes}-{seed}.safetensors"
    if path.is_file():
        model.load_state_dict(
            {name: torch.from_numpy(value.copy()) for name, value in read_tensors(path)[0].items()}
        )
        return model
    initialise_(model, seed)
    steps = passes * (len(data.train) // BATCH)
    train_dense_(model, data.train, steps=steps, batch_size=BATCH, lr=DENSE_LR, seed=seed)
    write_tensors(path, {name: value.numpy() for name, value in model.state_dict().items()}, {})
    return model


def run(
    method: str,
    share: float,
    seed: int,
    *,
    dense: nn.Module,
    data: DataBundle,
    args: argparse.Namespace,
) -> Dict[str, object]:
    """Prune and fine-tune once; return the figures."""
    model = copy.deepcopy(dense)
    spec = trace(model, (torch.zeros(1, *info(NETWORK).input_shape),), network=NETWORK)
    cost = energy_model(spec)
    problem = Problem(spec, (Limit(cost, share),), seed)
    config = TrainConfig(batch_size=BATCH, lr=args.lr, seed=seed)
    trainer = TorchTrainer(model, data.train, data.val, config=config)
    started = perf_counter()
    ecc = EccConfig(metric=args.metric, importance_decay=args.decay, ramp=args.ramp)
    solution = make_solver(method, ecc if method == "ecc" else None).solve(
        problem, trainer, args.steps
    )
    mask_(model, spec, solution.keep)
    before = trainer.evaluate()
    spent = args.steps if method == "ecc" else 0
    trainer.train(
        "finetune", args.steps + args.finetune_steps - spent, FixedPattern(problem, solution.keep)
    )
    widths = [len(units) for units in solution.keep.values()]
    return {
        "method": method,
        "budget": share,
        "seed": seed,
        "dense": top1(dense, data.val),
        "before": before,
        "after": trainer.evaluate(),
        "cost": cost.predict(np.array(widths, dtype=np.float64)),
        "widths": widths,
        "seconds": perf_counter() - started,
        "settings": settings(args),
    }


def settings(args: argparse.Namespace) -> List[object]:
    """Return what a row depends on beside its method, budget and seed; rows of other settings are not mixed in."""
    pruning = [args.steps, args.finetune_steps, args.lr, args.metric, args.decay, args.ramp]
    return [*pruning, args.dense_passes]


def table(rows: List[Dict[str, object]], budgets: List[float]) -> str:
    """Return the rows as a markdown table: mean ± standard deviation over seeds."""
    lines = [
        "| budget | method | cost | top-1 before fine-tuning | top-1 | runs |",
        "|---|---|---|---|---|---|",
    ]
    for budget in budgets:
        for method in ("uniform", "ecc"):
            found = [row for row in rows if (row["budget"], row["method"]) == (budget, method)]
            if found:
                cells = [
                    _spread([float(str(row[key])) for row in found])
                    for key in ("cost", "before", "after")
                ]
                lines.append(f"| {budget:.0%} | {method} | {' | '.join(cells)} | {len(found)} |")
    return "\n".join(lines)


def _spread(values: List[float]) -> str:
    return f"{mean(values):.4f} ± {stdev(values) if len(values) > 1 else 0.0:.4f}"


def _read(path: Path, wanted: List[object]) -> List[Dict[str, object]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [row for row in rows if row["settings"] == wanted]


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/fashion"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--finetune-steps", type=int, default=469)
    parser.add_argument("--dense-passes", type=int, default=4, help="of the dense training")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--metric", default="taylor")
    parser.add_argument("--decay", type=float, default=EccConfig().importance_decay)
    parser.add_argument("--ramp", type=float, default=EccConfig().ramp)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.34, 0.2])
    parser.add_argument("--methods", nargs="+", default=["uniform", "ecc"])
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    data = load("fashion-mnist", input_shape=info(NETWORK).input_shape)
    results = args.out / "results.jsonl"
    rows = _read(results, settings(args))
    done = {_key(row) for row in rows}
    for seed in args.seeds:
        dense = dense_network(seed, data, args.out, args.dense_passes)
        for budget in args.budgets:
            for method in args.methods:
                if (method, budget, seed) in done:
                    continue
                row = run(method, budget, seed, dense=dense, data=data, args=args)
                with results.open("a") as stream:
                    stream.write(json.dumps(row) + "\n")
                rows.append(row)
                print(json.dumps(row), flush=True)
    dense_accuracy = {int(str(row["seed"])): float(str(row["dense"])) for row in rows}
    print(
        f"\ndense: {_spread(list(dense_accuracy.values()))} over seeds {sorted(dense_accuracy)}\n"
    )
    print(table(rows, args.budgets))


def _key(row: Dict[str, object]) -> Tuple[str, float, int]:
    return str(row["method"]), float(str(row["budget"])), int(str(row["seed"]))


if __name__ == "__main__":
    main()
