"""Methods that remove single weights, at equal energy and equal steps: accuracy, mean and spread over seeds.

The energy is that of `systolic:eyeriss` (analytic), counted exactly in the result; budgets are shares of the dense
network's relaxed energy. All methods get the same dense network, batches, distillation and number of steps, two
halves: removing and fine-tuning. Rounds of masks divide the first half among their phases, so that they train no
longer. Results are kept as they come, a second call goes on.

    python benchmarks/single_weights.py --out runs/single_weights --case lenet5-fashion
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Dict, List, Tuple

from edgeecc.artifacts import write_tensors
from edgeecc.config import PruneConfig, TrainConfig, WspConfig
from edgeecc.data.sources import load
from edgeecc.errors import BudgetInfeasibleError
from edgeecc.networks.table import build, info
from edgeecc.run_request import PruneRequest, tensors_of
from edgeecc.sparsify import sparsify
from edgeecc.training.dense import initialise_, train_dense_
from edgeecc.units import Metric, parse_budget

BATCH, DENSE_BATCH = 128, 128


@dataclass(frozen=True)
class Case:
    """A network on a data set: steps and rate of the dense training, steps of each half of pruning."""

    network: str
    data: str
    dense_steps: int
    dense_lr: float
    steps: int


CASES = {
    "lenet5-digits": Case("lenet5", "digits", 1100, 3e-3, 600),
    "lenet5-fashion": Case("lenet5", "fashion-mnist", 5616, 2e-3, 600),
    "mobilenet-fashion": Case("fashion_mobilenet", "fashion-mnist", 5616, 4e-3, 300),
}
#: Published schedule: weights, masks, weights, masks, weights.
ROUNDS = 3
PUBLISHED = WspConfig(metric="magnitude", ramp=1.0, mask_schedule="rounds", rounds=ROUNDS)
#: Name -> method, its settings, and whether inputs are masked.
METHODS: Dict[str, Tuple[PruneConfig, WspConfig]] = {
    "magnitude": (PruneConfig(method="magnitude"), WspConfig()),
    "EAP": (PruneConfig(method="eap"), WspConfig()),
    "WSP as published": (PruneConfig(method="wsp"), PUBLISHED),
    "WSP": (PruneConfig(method="wsp"), WspConfig()),
    "WSP + masks as published": (PruneConfig(method="wsp", input_mask=True), PUBLISHED),
    "WSP + masks": (PruneConfig(method="wsp", input_mask=True), WspConfig()),
}
VARIANTS: Dict[str, Tuple[PruneConfig, WspConfig]] = {
    "WSP 2:4": (PruneConfig(method="wsp", pattern="2:4"), WspConfig()),
    "WSP, ramp 1": (PruneConfig(method="wsp"), WspConfig(ramp=1.0)),
    "EAP, 4 sweeps": (PruneConfig(method="eap"), WspConfig(sweeps=4)),
}


def dense_weights(case: Case, seed: int, folder: Path) -> Path:
    """Return the file of a dense network, trained when it is not there."""
    path = folder / f"dense-{case.network}-{case.data}-{case.dense_steps}-{seed}.safetensors"
    if not path.is_file():
        data = load(case.data, input_shape=info(case.network).input_shape)
        model = build(case.network)
        initialise_(model, seed)
        train_dense_(
            model, data.train, steps=case.dense_steps, batch_size=DENSE_BATCH, lr=case.dense_lr, seed=seed
        )  # fmt: skip
        write_tensors(path, tensors_of(model), {})
    return path


def run(
    name: str, budget: str, seed: int, *, case: Case, args: argparse.Namespace
) -> Dict[str, Any]:
    """Prune and fine-tune once; return the figures, or why it cannot be."""
    pruning, wsp = {**METHODS, **VARIANTS}[name]
    rounds = pruning.input_mask and wsp.mask_schedule == "rounds"
    steps = case.steps // (2 * ROUNDS - 1) if rounds else case.steps
    folder = args.out / f"{args.case}-{name}-{budget.rstrip('%')}-{seed}".replace(" ", "_")
    request = PruneRequest(
        weights=dense_weights(case, seed, args.out),
        budget=parse_budget(budget, Metric.ENERGY),
        data=case.data,
        network=case.network,
        run=folder,
        force=True,
        pruning=replace(pruning, steps=steps, finetune_steps=case.steps, checkpoint_s=1e9),
        wsp=wsp,
        training=TrainConfig(
            batch_size=BATCH, lr=args.lr, seed=seed, optimizer=args.optimizer, rise=0.0
        ),
    )
    row: Dict[str, Any] = {"case": args.case, "method": name, "budget": budget, "seed": seed}
    row["settings"] = [args.lr, args.optimizer]
    try:
        result: Any = sparsify(request)
    except BudgetInfeasibleError as error:
        return {**row, "infeasible": str(error)}
    return {
        **row,
        "dense": result["dense"]["accuracy"],
        "accuracy": result["accuracy"],
        "cost": result["cost"] / result["dense"]["cost"],
        "steps": [steps * max(1, 2 * len(result["rounds"]) - 1), case.steps],
        "density": result["density"],
        "mask_density": result["mask_density"],
        "seconds": result["seconds"],
    }


def table(rows: List[Dict[str, Any]], budgets: List[str], names: List[str]) -> str:
    """Return accuracies as a markdown table: mean ± standard deviation over seeds."""
    lines = [f"| method | {' | '.join(budgets)} |", f"|---|{'---|' * len(budgets)}"]
    for name in names:
        cells = []
        for budget in budgets:
            found = [row for row in rows if (row["method"], row["budget"]) == (name, budget)]
            cells.append(_cell(found))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(found: List[Dict[str, Any]]) -> str:
    if any("infeasible" in row for row in found):
        return "infeasible"
    values = [row["accuracy"] for row in found]
    if not values:
        return ""
    return f"{mean(values):.4f} ± {stdev(values) if len(values) > 1 else 0.0:.4f}"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/single_weights"))
    parser.add_argument("--case", choices=sorted(CASES), default="lenet5-fashion")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budgets", nargs="+", default=["30%", "20%", "10%"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--optimizer", default="adam")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out / f"{args.case}.jsonl"
    lines = results.read_text().splitlines() if results.is_file() else []
    rows = [json.loads(line) for line in lines]
    rows = [row for row in rows if row["settings"] == [args.lr, args.optimizer]]
    done = {(row["method"], row["budget"], row["seed"]) for row in rows}
    for seed in args.seeds:
        for budget in args.budgets:
            for name in args.methods:
                if (name, budget, seed) in done:
                    continue
                row = run(name, budget, seed, case=CASES[args.case], args=args)
                with results.open("a") as stream:
                    stream.write(json.dumps(row) + "\n")
                rows.append(row)
                print(json.dumps(row), flush=True)
    dense = {row["seed"]: row["dense"] for row in rows if "dense" in row}
    counts = {tuple(row["steps"]) for row in rows if "steps" in row}
    shares = [row["cost"] / _share(row) for row in rows if "cost" in row]
    print(f"\n{args.case}: dense {_cell([{'accuracy': value} for value in dense.values()])}")
    held = sum(share <= 1.0 for share in shares)
    print(f"steps {sorted(counts)}")
    print(
        f"exact cost within the budget in {held} of {len(shares)} runs, at {min(shares):.4f} of it or more\n"
    )
    print(table(rows, args.budgets, args.methods))


def _share(row: Dict[str, Any]) -> float:
    return float(str(row["budget"]).rstrip("%")) / 100.0


if __name__ == "__main__":
    main()
