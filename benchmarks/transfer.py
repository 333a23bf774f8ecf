"""How many samples a cost model takes that is fitted towards another device's, as by `edgeecc calibrate --like`.

Pairs of devices on which the same network was measured (real_devices.py), and virtual:tx2 with other prices. The first
is calibrated with 800 uniform samples, the second as in few_samples.py, without the first and with it. Fitted samples
until the mean error on 500 other variants is under the target: median and quartiles over `--repeats` seeds.

    python benchmarks/transfer.py --data ../shared/data
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Dict, List, Tuple

from few_samples import Device, Way, composed, needed, virtual, words
from real_devices import alexnet, predictor, tx2

from edgeecc.cost.choose import choose
from edgeecc.cost.fit import fit
from edgeecc.cost.product import ProductModel
from edgeecc.meters.virtual import LAWS, TX2
from edgeecc.units import Metric

DONOR_SAMPLES = 800
WAYS: Dict[str, Way] = {
    "alone": ("i-optimal", ("work", "nnls"), None),
    "with the other's profile": ("i-optimal", ("like", "work", "nnls"), None),
}


def pairs(data: Path) -> List[Tuple[Device, Device]]:
    """Return who is known, and who is calibrated."""
    tables = data / "device_measurements"
    latency = {who: composed(tx2(tables, who, "latency_ms")) for who in ("cpu", "gpu")}
    energy = composed(tx2(tables, "cpu", "energy_j"))
    nets = {who: composed(alexnet(tables, who)) for who in ("coderos", "goktug")}
    LAWS["virtual:other"] = replace(
        TX2, name="virtual:other", fixed_j=2 * TX2.fixed_j, mac_j=0.5 * TX2.mac_j
    )
    known, other = virtual("mobilenet_v1"), virtual("mobilenet_v1", "virtual:other")
    return [
        (known, other),
        (latency["gpu"], latency["cpu"]),
        (latency["cpu"], latency["gpu"]),
        (latency["cpu"], energy),
        (nets["coderos"], nets["goktug"]),
        (nets["goktug"], nets["coderos"]),
    ]


def calibrated(device: Device) -> ProductModel:
    """Return the cost model of a device that is known well."""
    widths = device.draw(DONOR_SAMPLES, 10**6)
    values = device.read(widths, 10**6)
    recipe = choose(device.spec, widths, values, predict=predictor(device.spec), seed=0)[0].recipe
    return fit(
        device.spec, widths, values, form=recipe.form, method=recipe.fit, meter="table", metric=Metric.LATENCY
    )  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the shared data")
    parser.add_argument("--targets", type=float, nargs="+", default=[0.03, 0.06])
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    columns = [f"{way}, {target:.0%}" for target in args.targets for way in WAYS]
    print(f"| known | calibrated | {' | '.join(columns)} |\n|---|---|{'---|' * len(columns)}")
    for known, device in pairs(args.data):
        like = calibrated(known)
        cells = [
            words([needed(device, way, target, seed, like) for seed in range(args.repeats)])
            for target in args.targets
            for way in WAYS.values()
        ]
        print(f"| {known.name} | {device.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
