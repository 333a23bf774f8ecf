"""The pictures of docs/ecc.md: one run of ECC on the digits, watched step by step, and drawn.

    python benchmarks/ecc_pictures.py            runs (some minutes on two cores), keeps what was seen, draws
    python benchmarks/ecc_pictures.py --draw     draws what is kept

The network is the demo's, its budget 45 % of the dense energy of virtual:tx2 (simulated). Kept are the widths, bounds
and duals of every step, and one group's proximal step: benchmarks/results/ecc_pictures.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Mapping
from unittest import mock

import numpy as np
import torch
from charts import Axes, Line, chart
from torch import nn

from edgeecc import demo
from edgeecc.progress import Progress
from edgeecc.solvers import ecc
from edgeecc.solvers.prox import kept_mask, thresholds

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "benchmarks" / "results" / "ecc_pictures.json"
PICTURES = ROOT / "docs" / "pictures"
BUDGET, STEPS = "45%", 300
#: Groups whose course is drawn, those that lose most, and channels that are drawn before the first that goes.
SHOWN, BEFORE = 6, 40

Seen = Dict[str, Any]


class Watched(ecc.ScaleFreeHooks):
    """The solver's hooks, telling what they see."""

    seen: Seen

    def after_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, steps: int
    ) -> Mapping[str, float]:  # fmt: skip
        """Do the step, and tell it."""
        numbers = super().after_step(model, optimizer, step, steps)
        self.seen["steps"].append(
            {
                "cost": numbers["cost"],
                "kept": self.living.widths().tolist(),
                "s": _short(self._s),
                "y": _short(self._y),
                "z": _short(self._z),
                "primal": round(numbers["primal"], 6),
                "dual": round(numbers["dual"], 6),
            }
        )
        limit = self._problem.limits[0]
        groups = [[group.name, group.width] for group in self._problem.spec.prunable]
        self.seen.update(bound=limit.bound, groups=groups)
        return numbers


def watch() -> Seen:
    """Run ECC and return what was seen."""
    seen: Seen = {"steps": [], "rounds": []}
    Watched.seen = seen

    def watched_mask(importance: Any, s: float, y: float, *, rho1: float) -> Any:
        kept = kept_mask(importance, s, y, rho1=rho1)
        told = {"importance": _short(importance), "s": float(s), "y": float(y), "rho1": rho1}
        seen["rounds"].append({**told, "kept": int(kept.sum())})
        return kept

    with mock.patch.multiple(ecc, ScaleFreeHooks=Watched, kept_mask=watched_mask), \
            mock.patch.multiple(demo, BUDGET=BUDGET, PRUNE_STEPS=STEPS, export=lambda folder, on_progress: {}), \
            mock.patch("edgeecc.prune._finetune"), tempfile.TemporaryDirectory() as folder:  # fmt: skip
        demo.demo(Path(folder), _tell)
    seen["prox"] = _telling(seen.pop("rounds"), seen["groups"])
    return seen


def draw(seen: Seen) -> Dict[str, str]:
    """Return the pictures by name."""
    steps: List[Dict[str, Any]] = seen["steps"]
    every = range(1, len(steps) + 1)
    return {
        "ecc-energy": _energy(seen, steps),
        "ecc-widths": _widths(seen, steps),
        "ecc-duals": chart(
            Axes("The duals: the price of energy, and of a channel", "step", "price", len(steps), 1.05 * _most(steps)),
            [
                Line("z, of the energy", [(x, each["z"][0]) for x, each in zip(every, steps)]),
                Line("y, the largest", [(x, max(each["y"])) for x, each in zip(every, steps)], 1),
            ],
        ),
        "ecc-prox": _prox(seen["prox"]),
    }  # fmt: skip


def _energy(seen: Seen, steps: List[Dict[str, Any]]) -> str:
    cost = [(x, 1e3 * each["cost"]) for x, each in enumerate(steps, 1)]
    bound = 1e3 * seen["bound"]
    axes = Axes(
        "Energy of the present widths",
        "step",
        "mJ, virtual:tx2 (simulated)",
        len(steps),
        1.1 * cost[0][1],
    )
    allowed = Line("what it may cost", [(0, bound), (len(steps), bound)], 1, dashed=True)
    return chart(axes, [Line("energy", cost), allowed])


def _widths(seen: Seen, steps: List[Dict[str, Any]]) -> str:
    lines = []
    for place in np.argsort(
        [last / dense for last, (_, dense) in zip(steps[-1]["kept"], seen["groups"])]
    )[:SHOWN]:
        name, dense = seen["groups"][place]
        points = [(x, each["kept"][place] / dense) for x, each in enumerate(steps, 1)]
        lines.append(Line(f"{name}, {dense}", points, len(lines)))
    whole = sum(last == dense for last, (_, dense) in zip(steps[-1]["kept"], seen["groups"]))
    title = f"Channels that stay, of {len(seen['groups'])} groups ({whole} lose none)"
    return chart(Axes(title, "step", "share of dense", len(steps), 1.05), lines)


def _prox(told: Dict[str, Any]) -> str:
    ranked = sorted((1e3 * value for value in told["importance"]), reverse=True)
    kept, first = told["kept"], max(0, told["kept"] - BEFORE)
    bars = [
        (value, 0 if rank <= kept else 7) for rank, value in enumerate(ranked[first:], first + 1)
    ]
    limit = 1e3 * thresholds(len(ranked), told["s"], told["y"], rho1=told["rho1"])
    line = Line("threshold", list(enumerate(limit[first:].tolist(), first + 1)), 1)
    title = f"The proximal step of {told['group']}: s = {told['s']:g}, {kept} of {len(ranked)} stay"
    axes = Axes(
        title,
        "channels by rank",
        "importance, mean 1000",
        len(ranked) + 1,
        1.3 * ranked[first],
        first,
    )
    return chart(axes, [line], bars)


def _telling(rounds: List[Dict[str, Any]], groups: List[Any]) -> Dict[str, Any]:
    """Return a proximal step that shows something: the first in which most channels of a group go, 24 at most."""
    for place, told in enumerate(rounds):
        told["importance"] = [value for value in told["importance"] if value >= 0.0]
        told["group"] = groups[place % len(groups)][0]
    return max(rounds, key=lambda told: min(24, len(told["importance"]) - told["kept"]))


def _most(steps: List[Dict[str, Any]]) -> float:
    return max(max(each["z"][0], *each["y"]) for each in steps)


def _short(values: Any) -> List[float]:
    return [float(f"{value:.4g}") for value in np.asarray(values, dtype=np.float64)]


def _tell(progress: Progress) -> None:
    if progress.done == progress.total:
        print(f"{progress.phase} {progress.done}", flush=True)


def main() -> None:
    """Run or not, and draw."""
    parser = argparse.ArgumentParser(description="Make the pictures of docs/ecc.md.")
    parser.add_argument("--draw", action="store_true", help="draw what is kept")
    if not parser.parse_args().draw:
        KEPT.write_text(json.dumps(watch()) + "\n")
    PICTURES.mkdir(exist_ok=True)
    for name, picture in draw(json.loads(KEPT.read_text())).items():
        (PICTURES / f"{name}.svg").write_text(picture)
        print(f"docs/pictures/{name}.svg: {len(picture)} bytes")


if __name__ == "__main__":
    main()
