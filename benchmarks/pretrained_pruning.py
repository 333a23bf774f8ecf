"""Prune public weights on real data through the command line: scores before and after, and the exported network's.

The data are small (docs/benchmarks/pretrained_pruning.md says how small): this shows that public weights go the
whole way, not what the method can reach. A run that was interrupted goes on.

    python benchmarks/pretrained_pruning.py --shared ../shared/data --case mobilenet_v2 --out runs/pretrained
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import torch

from edgeecc.artifacts import write_tensors
from edgeecc.data.sources import DataBundle, load
from edgeecc.networks.table import build, info
from edgeecc.networks.weights import load_into, load_state
from edgeecc.run_request import tensors_of
from edgeecc.training.dense import train_dense_
from edgeecc.units import Metric, format_quantity

#: Every fifth image of the sample is held out; of a class there is only one, so its class is not trained on.
HELD = 5


@dataclass(frozen=True)
class Case:
    """One network: its weights, how its data are named, and the options of the run."""

    weights: str
    network: str
    data: Callable[[Path, Path], str]
    options: Tuple[str, ...]
    adapt_steps: int = 0


def imagenet_sample(shared: Path, out: Path) -> str:
    """Lay the 1,000 images out as an image folder, four fifths to train on, and return its name as a data set."""
    source, target = shared / "imagenet_sample1000", out / "imagenet"
    with (source / "labels.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        number, wnid = int(row["class_index"]), row["wnid"]
        for part in ("train", "val"):
            (target / part / wnid).mkdir(parents=True, exist_ok=True)
        part = "val" if number % HELD == 0 else "train"
        name = f"{number:04d}_{wnid}.jpg"
        shutil.copyfile(source / "images" / name, target / part / wnid / name)
    return f"imagefolder:{target}"


CASES: Dict[str, Case] = {
    "mobilenet_v2": Case(
        "imagenet_mobilenet_v2_torchvision_b0353104.pt", "mobilenet_v2", imagenet_sample,
        ("--device", "virtual:tx2", "--budget", "70%", "--batch-size", "16", "--steps", "80", "--finetune-steps", "160",
         "--lr", "2e-4", "--distill", "1"),
    ),
    "resnet20": Case(
        "cifar10_resnet20_akamaster.pt", "resnet20", lambda shared, out: f"cifar10:{shared / 'cifar10'}",
        ("--of", "macs", "--budget", "50%", "--steps", "390", "--finetune-steps", "390", "--lr", "1e-3"),
        adapt_steps=390,
    ),
    "espnet": Case(
        "camvid_espnet_p2q8.pth", "espnet_camvid", lambda shared, out: f"camvid:{shared / 'camvid'}",
        ("--device", "virtual:tx2", "--budget", "80%", "--batch-size", "4", "--steps", "90",
         "--finetune-steps", "90", "--lr", "1e-4"),
    ),
}  # fmt: skip


def adapted(case: Case, weights: Path, data: str, out: Path) -> Path:
    """Return weights that were trained on this copy of the data first, where the case asks for it.

    CIFAR-10 is at hand only as JPEG, on which the public weights lose ten points that pruning must not be given back.
    """
    if not case.adapt_steps:
        return weights
    path = out / f"{case.network}.safetensors"
    if not path.is_file():
        model = build(case.network)
        load_into(model, load_state(weights))
        bundle: DataBundle = load(data, input_shape=info(case.network).input_shape)
        train_dense_(
            model, bundle.train, steps=case.adapt_steps, batch_size=128, lr=1e-3, seed=0
        )  # fmt: skip
        write_tensors(path, tensors_of(model), {})
    return path


def command(*args: str) -> Dict[str, Any]:
    """Run edgeecc and return its JSON."""
    words = [sys.executable, "-m", "edgeecc.cli.main", *args, "--json"]
    print("$ edgeecc", " ".join(args), flush=True)
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603  # our own command
    found: Dict[str, Any] = json.loads(done.stdout)
    return found


HEAD = (
    "| network | score | dense | pruned | exported, ONNX Runtime | cost | budget | slim against masked | seconds |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


def row(name: str, result: Dict[str, Any], verified: Dict[str, Any]) -> str:
    """Return a run as a row of the table; the exported network is judged on the images that the run keeps."""
    metric, scores = Metric(result["budget"]["metric"]), result["scores"]
    dense, pruned = (_words(scores[key]) for key in ("dense", "pruned"))
    exported = f"{_words(verified['scores'])} ({verified['images']} images)"
    cost = " -> ".join(
        str(format_quantity(value, metric)) for value in (result["dense"]["cost"], result["cost"])
    )
    judged = "met" if verified["within_budget"] else "missed"
    bound = f"{format_quantity(result['budget']['value'], metric)}, {judged}"
    cells = [
        name, ", ".join(scores["dense"]), dense, pruned, exported, f"{cost} ({result['meter']})", bound,
        f"{verified['max_abs_error']:.1e}", f"{result['seconds']:.0f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _words(scores: Dict[str, float]) -> str:
    return " / ".join(f"{value:.4f}" for value in scores.values())


def main() -> None:
    """Run a case and print its row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--case", choices=sorted(CASES), required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/pretrained"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    case = CASES[args.case]
    data = case.data(args.shared, args.out)
    weights = adapted(case, args.shared / "weights" / case.weights, data, args.out)
    run = args.out / args.case
    result_file = run / "result.json"
    if not result_file.is_file():
        command(
            "prune", str(weights), "--network", case.network, "--data", data, *case.options, "--run", str(run),
            "--workspace", str(args.out),
        )  # fmt: skip
    result = json.loads(result_file.read_text())
    verified = command("export", str(run))["verify"]
    print(HEAD + row(args.case, result, verified))


if __name__ == "__main__":
    main()
