"""Close the loop on `virtual:tx2` with other constants than it was calibrated with: rounds, and distance to the budget.

A network of three convolutions and two linear layers is trained on scikit-learn's digits, calibrated and pruned on
`virtual:tx2` as it is. Then its law's constants are shifted, all of them or one, and `export --fit-budget` brings what
the shifted device measures under the budget. Each measured network has noise of its own, by what it is and the seed.

    python benchmarks/closed_loop.py --seeds 3 [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, Dict, Iterator, List, Sequence, Tuple
from zlib import crc32

import numpy as np
import torch
from torch import nn

from edgeecc.artifacts import write_tensors
from edgeecc.calibration_job import Request, run
from edgeecc.config import CalibrateConfig, MeasureProtocol, PruneConfig, TrainConfig
from edgeecc.data.sources import load
from edgeecc.fit_budget import fit_budget
from edgeecc.graph.onnx_slice import load_model
from edgeecc.graph.onnx_work import work_of
from edgeecc.meters import virtual
from edgeecc.prune import prune
from edgeecc.run_folder import RunFolder
from edgeecc.run_request import PruneRequest, tensors_of
from edgeecc.training.dense import initialise_, train_dense_
from edgeecc.units import parse_budget
from edgeecc.workload import NodeWork

NETWORK, SHAPE, DATA, DEVICE, BUDGET = (
    "closed_loop:net",
    (1, 16, 16),
    "digits",
    "virtual:tx2",
    "80%",
)
DENSE_STEPS, PRUNE_STEPS, FINETUNE_STEPS, BATCH = 100, 60, 40, 32
#: What is shifted -> constants of the law.
SHIFTED: Dict[str, Tuple[str, ...]] = {
    "all": ("fixed_j", "mac_j", "byte_j"),
    "fixed": ("fixed_j",),
    "MACs": ("mac_j",),
    "bytes": ("byte_j",),
}
SHIFTS = (1.2, 0.8)


def net() -> nn.Module:
    """Return the network; dense, its fixed cost, its MACs and its bytes are 55, 21 and 24 % of its energy."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 256, 3, padding=1), nn.BatchNorm2d(256), nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(4096, 512), nn.ReLU(), nn.Linear(512, 10),
    )  # fmt: skip


def pruned(folder: Path, seed: int) -> None:
    """Train, calibrate and prune on the device as it is."""
    model = net()
    initialise_(model, seed)
    data = load(DATA, input_shape=SHAPE)
    train_dense_(model, data.train, steps=DENSE_STEPS, batch_size=BATCH, lr=3e-3, seed=seed)
    weights = folder / "trained.safetensors"
    write_tensors(weights, tensors_of(model), {})
    run(
        Request(NETWORK, SHAPE, None, DEVICE, folder),
        CalibrateConfig(seed=seed, target_error=0.0),
        MeasureProtocol(),
    )
    request = PruneRequest(
        weights=weights,
        budget=parse_budget(BUDGET),
        data=DATA,
        network=NETWORK,
        input_shape=SHAPE,
        device=DEVICE,
        workspace=folder,
        run=folder / "run",
        pruning=PruneConfig(steps=PRUNE_STEPS, finetune_steps=FINETUNE_STEPS),
        training=TrainConfig(batch_size=BATCH, seed=seed),
    )
    prune(request)


def fitted(folder: Path, law: virtual.DeviceLaw, seed: int) -> Dict[str, Any]:
    """Fit a copy of the run on a device of this law; return what is worth telling."""
    copy = folder / "fitted"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "run", copy)
    before, virtual.LAWS[DEVICE] = virtual.LAWS[DEVICE], law
    started = perf_counter()
    try:
        told = fit_budget(RunFolder(copy))
    finally:
        virtual.LAWS[DEVICE] = before
    fit, budget = told["fit_budget"], told["verify"]["budgets"][0]
    true = virtual.law_energy_j(law, work_of(load_model(copy / "slim.onnx")))
    rounds = fit["rounds"]
    return {
        "before": rounds[0]["share"] - 1.0,
        "rounds": len(rounds) - 1,
        "close": fit["close"],
        "measured": budget["found"] / budget["value"] - 1.0,
        "true": true / budget["value"] - 1.0,
        "accuracy_before": rounds[0]["accuracy"],
        "accuracy": told["verify"]["accuracy"],
        "seconds": perf_counter() - started,
        "path": [each["share"] - 1.0 for each in rounds],
        "seed": seed,
    }


def own_noise(seed: int) -> None:
    """Let every network that is measured have noise of its own."""
    load_plain = virtual.VirtualDevice.load

    def load_own(
        self: virtual.VirtualDevice, nodes: Sequence[NodeWork], seeds: Sequence[int] = (0,)
    ) -> None:
        load_plain(self, nodes, (*seeds, seed, crc32(repr(tuple(nodes)).encode())))

    virtual.VirtualDevice.load = load_own  # type: ignore[assignment,method-assign]


def cases() -> Iterator[Tuple[str, float]]:
    """Yield what is shifted, and the factor."""
    for name in SHIFTED:
        for shift in SHIFTS:
            yield name, shift


def spread(values: Sequence[float], form: str) -> str:
    """Return mean and standard deviation."""
    return f"{np.mean(values):{form}} ± {np.std(values, ddof=min(1, len(values) - 1)):{form.lstrip('+')}}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keeps runs and figures, and goes on with them")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    root = options.folder or Path(tempfile.mkdtemp())
    plain = virtual.VirtualDevice.load
    found: Dict[Tuple[str, float], List[Dict[str, Any]]] = {case: [] for case in cases()}
    for seed in range(options.seeds):
        folder = root / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "run" / "result.json").is_file():
            virtual.VirtualDevice.load = plain  # type: ignore[method-assign]
            pruned(folder, seed)
        for name, shift in found:
            kept = folder / f"{name}-{shift}.json"
            if not kept.is_file():
                virtual.VirtualDevice.load = plain  # type: ignore[method-assign]
                own_noise(seed)
                law = virtual.TX2
                values = {field: getattr(law, field) * shift for field in SHIFTED[name]}
                kept.write_text(json.dumps(fitted(folder, replace(law, **values), seed)))
            found[name, shift].append(json.loads(kept.read_text()))
    print(
        "| shifted | by | measured before, to the budget | rounds | measured after, to the budget | the law's own, to "
        "the budget | within 2 % | accuracy before | accuracy after | seconds |\n"
        + 10 * "|---"
        + "|"
    )
    for (name, shift), rows in found.items():
        told = {key: [row[key] for row in rows] for key in rows[0]}
        print(
            f"| {name} | {shift - 1.0:+.0%} | {spread(told['before'], '+.1%')} | {spread(told['rounds'], '.1f')} "
            f"(most {max(told['rounds'])}) | {spread(told['measured'], '+.2%')} | {spread(told['true'], '+.2%')} | "
            f"{sum(told['close'])} of {len(rows)} | {spread(told['accuracy_before'], '.3f')} | "
            f"{spread(told['accuracy'], '.3f')} | {np.median(told['seconds']):.0f} |"
        )


if __name__ == "__main__":
    main()
