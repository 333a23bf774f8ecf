"""How many samples a cost model takes: fitted samples until the error on others is under 3 %, by design and fit.

Real tables (see real_devices.py) and virtual:tx2, whose readings carry their noise. A calibration draws its samples in
the order of its design, at each of COUNTS a model is made of those so far, and its mean relative error is taken on 500
uniform variants of the same device. Fitted samples are counted; what is held out beside is the same for all.
Median and quartiles over `--repeats` seeds.

    python benchmarks/few_samples.py --data ../shared/data
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
from real_devices import HELD_OUT, NETWORKS, Composed, predictor

from edgeecc.bench import VirtualBench
from edgeecc.config import Design, FitMethod, MeasureProtocol
from edgeecc.cost.choose import Recipe, choose
from edgeecc.cost.design import PER_TERM, designed
from edgeecc.cost.forms import Form
from edgeecc.cost.product import ProductModel
from edgeecc.graph.onnx_slice import SlicePlan
from edgeecc.graph.spec import FloatArray, NetworkSpec
from edgeecc.meters.virtual import TX2
from edgeecc.sources import open_network, trace_source

COUNTS = (3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 65, 80, 100)
POOL = 2000
#: How samples are chosen, fits to choose among, and the form: None lets cross-validation take it.
Way = Tuple[Design, Sequence[FitMethod], Optional[Form]]
WAYS: Dict[str, Way] = {
    "published: uniform, bilinear": ("uniform", ("nnls",), Form()),
    "uniform, nnls": ("uniform", ("nnls",), None),
    "uniform, auto": ("uniform", ("work", "nnls"), None),
    "d-optimal, auto": ("d-optimal", ("work", "nnls"), None),
    "i-optimal, auto": ("i-optimal", ("work", "nnls"), None),
}


@dataclass(frozen=True)
class Device:
    """What is calibrated: a network on a device.

    Args:
        name: of both.
        spec: the network.
        draw: uniform widths, (N, G), by their number and a seed.
        read: readings, (N,), of widths (N, G), by a seed.
    """

    name: str
    spec: NetworkSpec
    draw: Callable[[int, int], FloatArray]
    read: Callable[[FloatArray, int], FloatArray]


def composed(network: Composed) -> Device:
    """Return a network of measured layers."""
    return Device(
        network.name,
        network.spec(),
        lambda count, seed: network.draw(count, np.random.default_rng(seed))[0],
        lambda widths, seed: network.costs(widths),
    )


def virtual(name: str, device: str = TX2.name) -> Device:
    """Return a network on a virtual device, tiles and noise on."""
    model, source = open_network(name, None, None)
    traced = trace_source(model, source)
    spec, plan = traced.spec, SlicePlan.build(traced.graph, traced.spec)

    def draw(count: int, seed: int) -> FloatArray:
        generator = np.random.default_rng(seed)
        dense = [group.width for group in spec.prunable]
        columns = [generator.integers(1, width, count, endpoint=True) for width in dense]
        return np.column_stack(columns).astype(np.float64)

    def read(widths: FloatArray, seed: int) -> FloatArray:
        bench = VirtualBench(plan, device, seed)
        found = [
            bench.measure(number, spec.widths(row), MeasureProtocol()).energy_j
            for number, row in enumerate(widths)
        ]
        return np.array(found, dtype=np.float64)

    return Device(f"{name}, {device} (simulated)", spec, draw, read)


def samples_in_order(device: Device, design: Design, seed: int) -> Tuple[FloatArray, FloatArray]:
    """Return the samples that a calibration fits, in the order in which it measures them, with their readings."""
    pool = device.draw(POOL, seed)
    count = PER_TERM * (len(device.spec.layers) + 1)
    if design == "uniform":
        widths = pool[: COUNTS[-1]]
    else:
        widths = np.vstack([designed(device.spec, pool, count, design), pool])[: COUNTS[-1]]
    return widths, device.read(widths, seed)


@lru_cache(maxsize=64)
def others(device: Device, seed: int) -> Tuple[FloatArray, FloatArray]:
    """Return variants that no fit sees, with their readings."""
    widths = device.draw(HELD_OUT, seed)
    return widths, device.read(widths, seed)


def needed(
    device: Device, way: Way, target: float, seed: int, like: Optional[ProductModel] = None
) -> float:
    """Return how many samples it takes until the error is under the target; infinite where COUNTS do not do.

    Args:
        device: that is calibrated.
        way: how.
        target: mean relative error.
        seed: of everything that is drawn.
        like: cost model of another device, for ways that fit towards it.
    """
    design, fits, form = way
    known, told = samples_in_order(device, design, 2 * seed)
    wanted, truth = others(device, 2 * seed + 1)

    predict = predictor(device.spec, like)
    for count in COUNTS:
        some, their = known[:count], told[:count]
        recipe = Recipe(Form(), fits[0])
        if form is None or len(fits) > 1:
            recipe = choose(
                device.spec, some, their, predict=predict, seed=seed, fits=fits, form=form
            )[0].recipe
        error = np.abs(predict(recipe, some, their, wanted) / truth - 1.0)
        if float(error.mean()) < target:
            return float(count)
    return float("inf")


def words(counts: Sequence[float]) -> str:
    """Return the median and the quartiles."""
    low, middle, high = np.quantile(counts, [0.25, 0.5, 0.75], method="inverted_cdf")
    return f"{_count(middle)} ({_count(low)} to {_count(high)})"


def _count(value: float) -> str:
    return f"> {COUNTS[-1]}" if value == float("inf") else f"{value:.0f}"


def devices(data: Path) -> List[Device]:
    """Return everything that is calibrated."""
    tables = [composed(make(data / "device_measurements")) for make in NETWORKS]
    return [*map(virtual, ("mobilenet_v1", "alexnet")), *tables]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the shared data")
    parser.add_argument("--target", type=float, default=0.03)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    print(f"fitted samples until the mean error is under {args.target:.0%}: median (quartiles)\n")
    print(f"| network, device | {' | '.join(WAYS)} |\n|---|{'---|' * len(WAYS)}")
    for device in devices(args.data):
        cells = [
            words([needed(device, way, args.target, seed) for seed in range(args.repeats)])
            for way in WAYS.values()
        ]
        print(f"| {device.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
