"""How often a measurement is under the bound that is held off a budget: said and observed, over calibrations.

A calibration of `--samples` variants is made on each device of few_samples.py, and its upper bounds (split conformal,
cost.conformal) are held against the readings of 500 other variants. Mean and standard deviation over `--repeats`
calibrations of the share that is under the bound; the second is what so few held-out samples cost.

    python benchmarks/coverage.py --data ../shared/data
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, stdev
from typing import Dict, List

import numpy as np
from few_samples import Device, devices
from real_devices import HELD_OUT, predictor

from edgeecc.cost.choose import Recipe
from edgeecc.cost.conformal import upper_ratio
from edgeecc.cost.design import place
from edgeecc.cost.forms import Form

SAID = (0.9, 0.95)
HELD_SHARE = 0.2
#: One recipe for all: coverage does not hang on the model.
RECIPE = Recipe(Form(linear=True), "work")


def observed(device: Device, samples: int, seed: int) -> Dict[float, float]:
    """Return for each confidence the share of other readings that are under their bound."""
    widths = device.draw(samples + HELD_OUT, seed)
    values = device.read(widths, seed)
    held = np.array([place(number, HELD_SHARE)[0] for number in range(samples)])
    predict = predictor(device.spec)
    told = predict(RECIPE, widths[:samples][~held], values[:samples][~held], widths)
    ratios = values / told
    known, others = ratios[:samples][held], ratios[samples:]
    return {share: float(np.mean(others <= upper_ratio(known, share))) for share in SAID}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the shared data")
    parser.add_argument("--samples", type=int, nargs="+", default=[60, 300])
    parser.add_argument("--repeats", type=int, default=50)
    args = parser.parse_args()
    columns = [f"{share:.0%} of {samples}" for samples in args.samples for share in SAID]
    print(f"| network, device | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for device in devices(args.data):
        cells: List[str] = []
        for samples in args.samples:
            found = [observed(device, samples, seed) for seed in range(args.repeats)]
            for share in SAID:
                shares = [one[share] for one in found]
                cells.append(f"{mean(shares):.1%} ± {stdev(shares):.1%}")
        print(f"| {device.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
