"""Held-out error of the cost models on virtual:tx2, tiles and noise on: forms and fits, over seeds.

Errors are against noisy readings, as on a device. The last two columns are against the law without noise, which
a device does not tell: dense, and the mean over variants with every width between half and whole.

    python benchmarks/heldout_error.py --samples 1000
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import List, Sequence, Tuple

import numpy as np

from edgeecc.calibrate import Job, calibrate
from edgeecc.config import CalibrateConfig, MeasureProtocol
from edgeecc.cost.profile import Profile
from edgeecc.graph.onnx_slice import SlicePlan
from edgeecc.graph.onnx_work import work
from edgeecc.graph.spec import FloatArray
from edgeecc.meters.virtual import TX2, law_energy_j
from edgeecc.sources import open_network, trace_source

CASES = (
    *((form, fit) for form in ("bilinear", "bilinear+linear") for fit in ("nnls", "adam")),
    ("auto", "nnls"),
    ("auto", "auto"),
)
WIDE_VARIANTS = 100


def wide_truths(plan: SlicePlan) -> Tuple[FloatArray, FloatArray]:
    """Return widths (N, G), dense first and then uniform on half to whole, with their energies, no noise."""
    dense = np.array(list(plan.spec.dense_widths().values()))
    drawn = np.random.default_rng(0).uniform(0.5, 1.0, (WIDE_VARIANTS, len(dense)))
    widths = np.vstack([dense, np.maximum(1, np.rint(drawn * dense))])
    truths = [law_energy_j(TX2, work(plan, plan.spec.widths(row))) for row in widths]
    return widths.astype(np.float64), np.array(truths)


def evaluate(name: str, seeds: Sequence[int], samples: int) -> None:
    """Calibrate one network and print its rows; forms and fits share the samples of a seed."""
    model, source = open_network(name, None, None)
    traced = trace_source(model, source)
    spec, graph = traced.spec, traced.graph
    widths, truths = wide_truths(SlicePlan.build(graph, spec))
    with tempfile.TemporaryDirectory() as folder:
        for form, fit in CASES:
            rows: List[Tuple[float, ...]] = []
            for seed in seeds:
                job = Job(spec, graph, TX2.name, Path(folder) / str(seed))
                config = CalibrateConfig(
                    samples=samples, target_error=0.0, design="uniform", seed=seed, model=form, fit=fit  # type: ignore[arg-type]  # a fit of CASES
                )  # fmt: skip
                calibrate(job, config, MeasureProtocol())
                profile = Profile.load(job.folder / "profile.json")
                assert profile.heldout is not None
                wide = np.abs(profile.model.predict_many(widths) / truths - 1.0)
                error = profile.heldout
                rows.append(
                    (error.mean, error.p95, error.max, float(wide[0]), float(wide[1:].mean()))
                )
            print(f"| {name} | {form} | {fit} | {' | '.join(_spread(c) for c in zip(*rows))} |")


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.2%} ± {stdev(values) if len(values) > 1 else 0.0:.2%}"


def main() -> None:
    """Print the table: mean and standard deviation over seeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=CalibrateConfig().samples)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--networks", nargs="+", default=["alexnet", "mobilenet_v1"])
    args = parser.parse_args()
    print(f"{TX2.name} (simulated), {args.samples} samples, seeds {args.seeds}\n")
    print("| network | model | fit | mean | p95 | max | dense | half to whole |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.networks:
        evaluate(name, args.seeds, args.samples)


if __name__ == "__main__":
    main()
