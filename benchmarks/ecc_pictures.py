"""The pictures of docs/ecc.md: one run of ECC on the digits, watched step by step, and drawn.

    python benchmarks/ecc_pictures.py            runs (three minutes on two cores), keeps what was seen, draws
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
from edgeecc.solvers import ecc
from edgeecc.solvers.prox import kept_mask, thresholds

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "benchmarks" / "results" / "ecc_pictures.json"
PICTURES = ROOT / "docs" / "pictures"
BUDGET, STEPS = "45%", 300
#: Groups whose course is drawn: early, middle and late in the network.
SHOWN = 5

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
            mock.patch.multiple(demo, BUDGET=BUDGET, PRUNE_STEPS=STEPS, FINETUNE_STEPS=1, export=lambda folder: {}), \
            tempfile.TemporaryDirectory() as folder:  # fmt: skip
        demo.demo(Path(folder), lambda stage, done, total, note: _tell(stage, done, total))
    seen["prox"] = _telling(seen.pop("rounds"))
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
    groups: List[Any] = seen["groups"]
    kept, bounds = [], []
    for colour, place in enumerate(np.linspace(0, len(groups) - 1, SHOWN).astype(int).tolist()):
        name, dense = groups[place]
        shares = [(each["kept"][place] / dense, each["s"][place] / dense) for each in steps]
        kept.append(
            Line(f"{name}, {dense}", [(x, k) for x, (k, _) in enumerate(shares, 1)], colour)
        )
        bounds.append(Line("", [(x, s) for x, (_, s) in enumerate(shares, 1)], colour, dashed=True))
    title = "Channels that stay (lines) and their bounds s (dashed)"
    return chart(Axes(title, "step", "share of dense", len(steps), 1.05), [*kept, *bounds])


def _prox(told: Dict[str, Any]) -> str:
    ranked = sorted(told["importance"], reverse=True)
    bars = [(value, 0 if rank <= told["kept"] else 7) for rank, value in enumerate(ranked, 1)]
    limit = thresholds(len(ranked), told["s"], told["y"], rho1=told["rho1"])
    line = Line("threshold", [(rank, float(value)) for rank, value in enumerate(limit, 1)], 1)
    title = (
        f"The proximal step of one group: s = {told['s']:g}, {told['kept']} of {len(ranked)} stay"
    )
    top = 1.05 * max(ranked[0], told["y"])
    return chart(Axes(title, "channels by rank", "importance, mean 1", len(ranked) + 1, top), [line], bars)  # fmt: skip


def _telling(rounds: List[Dict[str, Any]]) -> Dict[str, Any]:
    """Return a proximal step that shows something: the group that loses most of its living channels at once."""

    def lost(told: Dict[str, Any]) -> float:
        living = [value for value in told["importance"] if value >= 0.0]
        told["importance"] = living
        return 1.0 - told["kept"] / len(living) if 24 <= len(living) <= 80 else 0.0

    return max(rounds, key=lost)


def _most(steps: List[Dict[str, Any]]) -> float:
    return max(max(each["z"][0], *each["y"]) for each in steps)


def _short(values: Any) -> List[float]:
    return [float(f"{value:.4g}") for value in np.asarray(values, dtype=np.float64)]


def _tell(stage: str, done: int, total: int) -> None:
    if done == total:
        print(f"{stage} {done}", flush=True)


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
