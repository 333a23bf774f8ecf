"""Other settings of each peer than its defaults, to see whether one is weakened by what it was given.

The conditions are those of the trials of `methods.py`: their dense network, their seed, and the training images that
judge them; the score on these is what is printed, never one on validation data. A method takes the rate that was found
for it at the budget, times each of `--factors`, and one text of SETTINGS or of `--settings`. One run a row, so a
difference of a point or two may be chance.

    python benchmarks/peer_settings.py --case fashion --budgets 12% 20% --methods halp netadapt
"""

from __future__ import annotations

import argparse
import shutil
from itertools import product
from pathlib import Path
from typing import Any, Dict, List, Tuple, get_args

import kept
import torch
from methods import CASES, LAW, RESULTS, TRIALS, found_rates, request_of, search_of

from edgeecc.comparison.plan import Planner, survey
from edgeecc.comparison.rates import RateSearch
from edgeecc.comparison.request import CompareRequest
from edgeecc.config import Precision
from edgeecc.prune import prune
from edgeecc.run_request import PruneRequest
from edgeecc.units import Budget, Metric, parse_budget

Row = Dict[str, Any]
#: Method -> settings that are tried one text at a time, beside the defaults.
SETTINGS: Dict[str, Tuple[str, ...]] = {
    "amc": ("alternations=1", "alternations=2", "lower_bound=0.02", "images=1000"),
    "eap-channels": ("sweeps=2", "sweeps=4", "beyond=0", "images=3000"),
    "halp": ("rounds=10", "rounds=5", "ramp=0.25", "ramp=0.75", "course=reducible", "pace=300"),
    "lcp": ("tau=0", "form=shift", "evaluations=200", "protected=0", "recalibrate=2048"),
    "netadapt": (
        "recalibrate=0", "decay=0.98", "decay=0.9", "rate=0.3", "select=ratio", "scarce=coarsen",
        "least_steps=4", "carry=true",
    ),
}  # fmt: skip


def run(  # noqa: PLR0913  # keyword-only, what differs by method and budget
    template: PruneRequest, name: str, budget: Budget, setting: str, *, search: RateSearch, rate: float, folder: Path
) -> Row:  # fmt: skip
    """Prune and fine-tune once as a trial of the search does; return the figures."""
    request = CompareRequest(
        template, methods=(name,), budgets=(budget,), seeds=(TRIALS,),
        settings={name: tuple(setting.split())} if setting else {}, rates={(name, budget.text): rate},
    )  # fmt: skip
    ground = survey(request)
    planner = Planner(request, ground, folder.parent / LAW)
    judged = planner.judged(search)
    cell = planner.cell(folder, name, budget, seed=TRIALS, rate=rate, judged=judged)
    result: Any = prune(cell.request)
    shutil.rmtree(folder)
    return {
        "judged_score": result["judged_score"],
        "before": result["pruned_accuracy"],
        "widths": result["widths"],
        "cost": result["cost"],
        "seconds": result["seconds"],
    }


def table(rows: List[Row]) -> str:
    """Return the scores by method, budget and setting."""
    lines = [
        "| method | budget | setting | rate | top-1 of the judging images |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        setting = row["setting"] or "as it is"
        lines.append(
            f"| {row['method']} | {row['budget']} | {setting} | {row['rate']:g} | {row['judged_score']:.4f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=sorted(CASES), required=True)
    parser.add_argument("--budgets", nargs="+", required=True)
    parser.add_argument("--methods", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument(
        "--settings",
        nargs="+",
        metavar="TEXT",
        help='in place of those: "NAME=VALUE NAME=VALUE..." each',
    )
    parser.add_argument("--factors", type=float, nargs="+", default=[1.0], help="on the rate found")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the shared data")
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32")
    parser.add_argument("--kept", type=Path, default=RESULTS, help="folder of what has finished")
    args = parser.parse_args()
    out, case = args.out / args.case, CASES[args.case]
    kept.restore_dense(args.kept / args.case, out)
    template = request_of(case, args.data, out, [TRIALS], args.precision)
    kept.keep_dense(out, args.kept / args.case)
    results = args.kept / args.case / "settings.jsonl"
    rates = found_rates(case.searched_in or args.case, args.kept, args.methods, args.budgets)

    def known() -> List[Row]:
        return [row for row in kept.lines_of(results) if row["precision"] == args.precision]

    for name, text, factor in product(args.methods, args.budgets, args.factors):
        for setting in ("", *(args.settings or SETTINGS[name])):
            place = {
                "method": name,
                "budget": text,
                "setting": setting,
                "rate": factor * rates[name][text],
            }
            if any(place.items() <= row.items() for row in known()):
                continue
            folder = out / f"settings-{name}"
            shutil.rmtree(folder, ignore_errors=True)
            figures = run(
                template, name, parse_budget(text, Metric.ENERGY), setting, search=search_of(case, [text]),
                rate=place["rate"], folder=folder,
            )  # fmt: skip
            kept.add(results, {**place, "precision": args.precision, **figures})
    print(table(known()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
