"""The main job on real data, start to end: scikit-learn's digits, a small MobileNet, half the energy."""

from __future__ import annotations

from pathlib import Path
from typing import Dict

from edgeecc.artifacts import write_tensors
from edgeecc.calibration_job import Request, run
from edgeecc.config import CalibrateConfig, MeasureProtocol, PruneConfig, TrainConfig
from edgeecc.data.sources import load
from edgeecc.export import export
from edgeecc.networks.table import build, info
from edgeecc.progress import OnProgress, Progress, silent
from edgeecc.prune import prune
from edgeecc.run_folder import RunFolder
from edgeecc.run_request import PruneRequest, tensors_of
from edgeecc.training.dense import initialise_, train_dense_
from edgeecc.units import parse_budget

NETWORK, DATA, DEVICE, BUDGET = "digits_mobilenet", "digits", "virtual:tx2", "50%"
#: Twelve passes over the training digits: enough for this network, and quick on two cores.
DENSE_STEPS, DENSE_LR, BATCH = 260, 5e-3, 64
PRUNE_STEPS, FINETUNE_STEPS = 150, 100


def demo(workspace: Path, on_progress: OnProgress = silent, seed: int = 0) -> Dict[str, object]:
    """Train, calibrate, prune to half the dense energy, slim, export and verify; in `workspace`/runs/demo.

    Returns: {"calibrate", "prune", "export"}: what these commands print.
    """
    folder = RunFolder(workspace / "runs" / "demo")
    data = load(DATA, input_shape=info(NETWORK).input_shape)
    model = build(NETWORK)
    initialise_(model, seed)
    train_dense_(
        model,
        data.train,
        steps=DENSE_STEPS,
        batch_size=BATCH,
        lr=DENSE_LR,
        seed=seed,
        on_step=lambda step, steps: on_progress(
            Progress("training the dense network", step, steps, "steps")
        ),
    )
    weights = folder.path / "trained.safetensors"
    write_tensors(weights, tensors_of(model), {"network": NETWORK})
    calibrated = run(
        Request(NETWORK, None, None, DEVICE, folder.path),
        CalibrateConfig(target_error=0.0),  # simulated samples take no time
        MeasureProtocol(),
        on_progress,
    )
    request = PruneRequest(
        weights=weights,
        budget=parse_budget(BUDGET),
        data=DATA,
        network=NETWORK,
        device=DEVICE,
        workspace=folder.path,
        run=folder.path,
        force=True,
        pruning=PruneConfig(steps=PRUNE_STEPS, finetune_steps=FINETUNE_STEPS),
        training=TrainConfig(batch_size=BATCH, seed=seed),
    )
    pruned = prune(request, on_progress)
    exported = export(folder, on_progress=on_progress)
    return {"calibrate": calibrated, "prune": pruned, "export": exported}
