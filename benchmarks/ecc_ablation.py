"""What each part of ECC does: accuracy with one part taken out, exchanged or added, against ECC as it is.

Network, data, energy, steps and dense networks are those of a case of `methods.py`; the learning rate is one for all.
Differences are taken seed by seed. Results are kept in benchmarks/results as they come, a second call goes on;
calls with other --seeds may run beside each other once the dense networks are there. `--set` varies the ECC that all
are held against.

    python benchmarks/ecc_ablation.py --case fashion --lr 4e-2 --budget 20% --out runs/methods
    python benchmarks/ecc_ablation.py --case fashion --lr 4e-2 --budget 12% --set level=0 least=1
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Dict, List, Tuple, get_args

import kept
import torch
from ablations import VARIANTS
from methods import CASES, RESULTS, request_of

from edgeecc.config import EccConfig, Precision
from edgeecc.peer_config import with_settings
from edgeecc.prune import prune
from edgeecc.run_request import PruneRequest
from edgeecc.units import Metric, parse_budget

Row = Dict[str, Any]


def run(name: str, template: PruneRequest, seed: int, *, lr: float, folder: Path) -> Row:
    """Prune and fine-tune once; return the figures."""
    variant = VARIANTS[name]
    request = replace(
        template,
        weights=Path(str(template.weights).format(seed=seed)),
        run=folder,
        force=True,
        pruning=replace(template.pruning, checkpoint_s=1e9),
        ecc=with_settings(template.ecc, variant.settings),
        training=replace(template.training, lr=lr, seed=seed, rise=variant.rise),
    )
    with variant.running():
        result: Any = prune(request)
    shutil.rmtree(folder)
    return {
        "variant": name,
        "seed": seed,
        "dense": result["dense"]["accuracy"],
        "before": result["pruned_accuracy"],
        "accuracy": result["accuracy"],
        "cost": result["cost"],
        "widths": result["widths"],
        "steps": [result["steps"], result["finetune_steps"]],
        "seconds": result["seconds"],
    }


def table(rows: List[Row]) -> str:
    """Return mean ± standard deviation over seeds, and the difference to ECC seed by seed, in points."""
    lines = [
        "| variant | top-1 before fine-tuning | top-1 | less ECC, points | seeds |",
        "|---|---|---|---|---|",
    ]
    whole = {row["seed"]: row["accuracy"] for row in rows if row["variant"] == "ECC"}
    for name in VARIANTS:
        found = [row for row in rows if row["variant"] == name and row["seed"] in whole]
        if found:
            less = [100.0 * (row["accuracy"] - whole[row["seed"]]) for row in found]
            before, after = ([row[key] for row in found] for key in ("before", "accuracy"))
            lines.append(
                f"| {name} | {_spread(before, '.4f')} | {_spread(after, '.4f')} | "
                f"{'' if name == 'ECC' else _spread(less, '+.2f')} | {len(found)} |"
            )
    return "\n".join(lines)


def _spread(values: List[float], form: str) -> str:
    deviation = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):{form}} ± {deviation:{form.lstrip('+')}}"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=sorted(CASES), required=True)
    parser.add_argument("--lr", type=float, required=True, help="the one found for ECC")
    parser.add_argument("--budget", default="20%")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the shared data")
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="of ECC as it is"
    )
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32")
    parser.add_argument("--kept", type=Path, default=RESULTS, help="folder of what has finished")
    args = parser.parse_args()
    out = args.out / args.case
    kept.restore_dense(args.kept / args.case, out)
    template = replace(
        request_of(CASES[args.case], args.data, out, args.seeds, args.precision),
        budget=parse_budget(args.budget, Metric.ENERGY),
        ecc=with_settings(EccConfig(), args.set),
    )
    settings = [args.budget, args.lr, args.precision, asdict(template.ecc)]
    kept.keep_dense(out, args.kept / args.case)
    results = args.kept / args.case / "ablation.jsonl"

    def known() -> Dict[Tuple[str, int], Row]:
        """Return one row a run, also where two calls made the same."""
        rows = (row for row in kept.lines_of(results) if row["settings"] == settings)
        return {(row["variant"], row["seed"]): row for row in rows}

    for seed in args.seeds:
        for name in args.variants:
            if (name, seed) in known():
                continue
            folder = out / f"ablation-{seed}"
            row = {"settings": settings, **run(name, template, seed, lr=args.lr, folder=folder)}
            kept.add(results, row)
    print(table(list(known().values())))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
