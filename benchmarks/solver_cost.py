"""What ECC's own work adds to a plain distilled training step: seconds and memory, side by side in one call.

Each kind of training runs in processes of its own on images of noise, by turns. In ECC's the time inside the solver is
taken by itself: watching what layers read, importance, width step, proximal step, stand-ins and masks. A round is held
every --every steps; what it takes is told apart from what every step takes, so that it is known what rounds further
apart would add. Freed memory is kept, as `edgeecc prune` keeps it. Memory is the most that a process held at once (on a
GPU, that torch held).

    python benchmarks/solver_cost.py --network mobilenet_v1 --batch 128
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from statistics import mean, median, quantiles
from time import perf_counter
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import torch
from torch import nn

from edgeecc.config import ComputeConfig, EccConfig, TrainConfig
from edgeecc.cost.exact import mac_cost
from edgeecc.data.splits import TensorSplit
from edgeecc.graph.trace import trace
from edgeecc.networks.table import build, info
from edgeecc.solvers import ecc, importance
from edgeecc.solvers.base import Limit, Problem
from edgeecc.solvers.finetune import FixedMasks
from edgeecc.training.allocator import freed_memory_kept
from edgeecc.training.compute import compute_of
from edgeecc.training.dense import initialise_
from edgeecc.training.loop import TorchTrainer

#: Steps between rounds that the table tells: the shortest runs hold one at every step, on ImageNet every 34 to 64.
APART = (1, 3, 10, 50)
#: The budget is reached in so many times the steps that are run: what is timed is the middle of a run.
LONGER = 2


class Clock:
    """Seconds spent inside the functions that it wraps, step by step."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.now = 0.0

    def wait(self) -> float:
        """Return the time when the device has done what it was given."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return perf_counter()

    def wrap_(self, owner: Any, name: str) -> None:
        """Take the time of a method of a class."""
        inner = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            started = self.wait()
            result = inner(*args, **options)
            self.now += self.wait() - started
            return result

        setattr(owner, name, timed)


class Timed:
    """Hooks around hooks: the seconds of each step, those inside the solver, and whether a round was due."""

    def __init__(self, inner: Any, clock: Clock, config: EccConfig) -> None:
        self._inner, self._clock, self._config = inner, clock, config
        self.rows: List[Tuple[float, float, bool]] = []
        self._started = clock.wait()

    def after_backward(self, model: nn.Module) -> None:
        """Pass on."""
        self._inner.after_backward(model)

    def after_step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, steps: int
    ) -> Mapping[str, float]:  # fmt: skip
        """Pass on, as a step of a longer run."""
        numbers = self._inner.after_step(model, optimizer, step, LONGER * steps)
        ended = self._clock.wait()
        due = ecc.round_share(self._config, step, LONGER * steps) is not None
        self.rows.append((ended - self._started, self._clock.now, due))
        self._started, self._clock.now = ended, 0.0
        return numbers

    def state(self) -> Dict[str, torch.Tensor]:
        """Return nothing: nothing is saved."""
        return {}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take nothing back."""


def child(kind: str, args: argparse.Namespace) -> None:
    """Train for a few steps and print what was measured as JSON."""
    shape = info(args.network).input_shape
    model = build(args.network)
    initialise_(model, 0)
    spec = trace(model, (torch.zeros(1, *shape),), network=args.network)
    cost = mac_cost(spec)
    dense = cost.predict(spec.vector(spec.dense_widths()))
    problem = Problem(spec, (Limit(cost, 0.3 * dense),), 0)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((args.batch, *shape), generator=generator)
    split = TensorSplit(images, torch.randint(0, 10, (args.batch,), generator=generator))
    compute = compute_of(ComputeConfig(accelerator=args.accelerator))
    trainer = TorchTrainer(
        model, split, split, config=TrainConfig(batch_size=args.batch, lr=1e-4), compute=compute
    )
    clock = Clock(compute.device)
    ramp = LONGER * args.steps - min(1, LONGER * args.steps // 10)
    config = EccConfig(warmup=1, ramp=1.0, rounds=max(1, ramp // args.every))
    solver = ecc.ScaleFreeHooks(problem, config, trainer)
    if kind == "ecc":
        for name in ("after_backward", "after_step"):
            clock.wrap_(ecc.ScaleFreeHooks, name)
        clock.wrap_(importance.Part, "look")
        hooks = Timed(solver, clock, config)
        with freed_memory_kept(compute.device), solver.watching():
            trainer.train("prune", args.steps, hooks)
    else:
        hooks = Timed(FixedMasks({}, dense), clock, config)
        with freed_memory_kept(compute.device):
            trainer.train("plain", args.steps, hooks)
    if compute.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"rows": hooks.rows[1:], "peak": peak}))


def measured(kind: str, args: argparse.Namespace) -> Dict[str, Any]:
    """Run one kind in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--child", kind]
    for name in ("network", "batch", "steps", "every", "accelerator", "threads"):
        command += [f"--{name}", str(getattr(args, name))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603  # this very script
    found: Dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure both kinds and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="mobilenet_v1")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=7, help="the first is not counted")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each kind")
    parser.add_argument("--every", type=int, default=3, help="steps between rounds")
    parser.add_argument("--accelerator", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--child", choices=["plain", "ecc"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not 2 <= args.every < args.steps / 2:
        parser.error("give --every of at least 2, and --steps of more than twice as many")
    torch.set_num_threads(args.threads)
    if args.child:
        child(args.child, args)
        return
    found: Dict[str, List[Dict[str, Any]]] = {"plain": [], "ecc": []}
    for _ in range(args.repeats):
        for kind, several in found.items():
            several.append(measured(kind, args))
    print(table(found, args))


def table(found: Mapping[str, Sequence[Mapping[str, Any]]], args: argparse.Namespace) -> str:
    """Return what was measured, and what it comes to."""
    rows = {
        kind: [row for one in several for row in one["rows"]] for kind, several in found.items()
    }
    peaks = {kind: [one["peak"] for one in several] for kind, several in found.items()}
    every_step, in_a_round = (
        mean(inside for _, inside, due in rows["ecc"] if due == wanted) for wanted in (False, True)
    )
    without = {
        kind: median(whole - inside for whole, inside, _ in own) for kind, own in rows.items()
    }
    shares = [(every_step + (in_a_round - every_step) / apart) / without["ecc"] for apart in APART]
    lines = [
        f"{args.network}, batch {args.batch}, {args.accelerator}, {args.threads} threads, {args.repeats} times",
        "| training | seconds a step, median | quartiles | without the solver's | peak memory, MB |",
        "|---|---|---|---|---|",
    ]
    for kind, name in (("plain", "plain"), ("ecc", "ECC")):
        low, middle, high = quantiles([whole for whole, _, _ in rows[kind]], n=4)
        lines.append(
            f"| {name} | {middle:.3f} | {low:.3f} to {high:.3f} | {without[kind]:.3f} | "
            f"{min(peaks[kind]) / 1e6:.0f} to {max(peaks[kind]) / 1e6:.0f} |"
        )
    lines += [
        "",
        f"The solver takes {every_step:.3f} s of every step, and a round {in_a_round - every_step:.3f} s more.",
        "It adds to the rest of a step, with a round every so many steps:",
        "",
        "| " + " | ".join(map(str, APART)) + " |",
        "|" + "---|" * len(APART),
        "| " + " | ".join(f"{share:.1%}" for share in shares) + " |",
        "",
        f"and {mean(peaks['ecc']) / mean(peaks['plain']) - 1.0:+.1%} to memory.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
