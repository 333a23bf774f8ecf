"""Kill commands with SIGKILL at random moments, give them again until they are done, and compare with undisturbed ones.

A small network, trained on scikit-learn's digits, goes through calibrate, prune, export, export --fit-budget on
`virtual:tx2 (simulated)`, and through prune and export of single weights. Every kill ends the whole process group; its
moment is drawn evenly from what the stage took undisturbed, one in `EARLY` before the command holds its folder and the
others after; one that comes when the command has ended is drawn again. The same command is given again until it is
done. While commands run and after every kill each file that can be seen is read by its reader. In the end every file is
compared with that of the undisturbed run: samples, weights and graphs bit by bit, JSON but for times and what the
clock of this machine measured.

    python benchmarks/survival.py [--kills 50] [--seed 0] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, sleep
from typing import Callable, Dict, List, Optional, Tuple

import numpy as np
import torch
from closed_loop import net
from visible import Scanner, content, hidden, rows, visible

from edgeecc.artifacts import load_json, read_tensors, write_tensors
from edgeecc.data.sources import load
from edgeecc.errors import ArtifactError
from edgeecc.run_request import tensors_of
from edgeecc.training.dense import initialise_, train_dense_

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}",
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
NETWORK = ["--network", "closed_loop:net", "--input", "1x16x16"]
TRAINING = [*NETWORK, "--data", "digits", "--batch-size", "32", "--checkpoint-s", "0.2"]
STORE = "calibration/virtual-tx2/net/samples.db"
#: One kill in so many comes before the command holds its folder.
EARLY = 6
#: Kills of a stage in one round; then the command runs to its end.
IN_A_ROUND = 3
#: Seconds between looks.
LOOK_S = 0.03
#: Seconds that a command may take.
PATIENCE_S = 900.0
#: Rounds, after which a stage that always ends before its kill is given up.
MOST_ROUNDS = 12


@dataclass(frozen=True)
class Stage:
    """A part of a command that is killed.

    Args:
        name: how the table calls it.
        words: the command.
        begun: whether it is under way, beside that the command holds its folder.
        kept: whether something is there from which it goes on; None where it starts over.
        last: whether its command ends with it.
        done: whether its work is done though the command was killed; then `after` is given, which clears up.
        after: a command.
    """

    name: str
    words: Tuple[str, ...]
    begun: Callable[[Path], bool] = lambda root: True
    kept: Optional[Callable[[Path], bool]] = None
    last: bool = True
    done: Callable[[Path], bool] = lambda root: False
    after: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Took:
    """What a stage took undisturbed: seconds before it was under way, and after."""

    before_s: float
    work_s: float


@dataclass(frozen=True)
class Plain:
    """The undisturbed way.

    Args:
        way: its stages.
        took: what each took.
        after: what there was when each had ended.
    """

    way: List[Stage]
    took: List[Took]
    after: List[Dict[str, object]]


@dataclass
class Found:
    """What became of a stage."""

    kills: int = 0
    early: int = 0
    kept: int = 0
    missed: int = 0
    shares: List[float] = field(default_factory=list)
    rounds: int = 0
    differing: List[str] = field(default_factory=list)
    faults: List[str] = field(default_factory=list)
    left: List[str] = field(default_factory=list)
    read: int = 0


def phase_of(root: Path, run: str) -> str:
    """Return the phase of a run's checkpoint, empty where there is none."""
    try:
        return read_tensors(root / run / "checkpoint.safetensors")[1]["phase"]
    except (ArtifactError, KeyError):
        return ""


def samples_in(root: Path) -> int:
    """Return how many samples there are."""
    return len(rows(root / STORE).get("samples", ())) if (root / STORE).exists() else 0


def fitted(root: Path) -> bool:
    """Return whether export --fit-budget has nothing left to do."""
    run = root / "run"
    return "fit_budget" in load_json(run / "result.json") and not (run / "fit.json").exists()


def stages() -> List[Stage]:
    """Return the stages, in the order of the way through."""
    prune = ("prune", "dense.safetensors", *TRAINING, "--budget", "80%", "--margin", "0.1", "--steps", "60",
             "--finetune-steps", "40", "--run", "run")  # fmt: skip
    sparse = ("prune", "dense.safetensors", *TRAINING, "--budget", "30%", "--method", "wsp", "--device",
              "systolic:eyeriss", "--steps", "40", "--finetune-steps", "20", "--run", "sparse")  # fmt: skip
    return [
        Stage(
            "calibrate",
            ("calibrate", *NETWORK, "--samples", "3000", "--target-error", "0"),
            kept=lambda root: samples_in(root) > 0,
        ),
        Stage("prune", prune, kept=lambda root: phase_of(root, "run") == "prune", last=False),
        Stage(
            "prune, fine-tuning",
            prune,
            begun=lambda root: (root / "run/keep.json").exists(),
            done=lambda root: (root / "run/result.json").exists(),
            after=prune,
            kept=lambda root: phase_of(root, "run") == "finetune",
        ),
        Stage("export", ("export", "run")),
        Stage(
            "export --fit-budget",
            ("export", "run", "--fit-budget"),
            kept=lambda root: (root / "run/fit.json").exists(),
            done=fitted,
            after=("export", "run"),
        ),
        Stage(
            "prune --method wsp",
            sparse,
            kept=lambda root: (
                bool(phase_of(root, "sparse")) or (root / "sparse/pruned.safetensors").exists()
            ),
            done=lambda root: (root / "sparse/result.json").exists(),
            after=sparse,
        ),
        Stage("export, single weights", ("export", "sparse")),
    ]


class Command:
    """A process of a command, in a group of its own."""

    def __init__(self, root: Path, words: Tuple[str, ...], scanner: Scanner) -> None:
        self._root, self._scanner = root, scanner
        self.errors = root.parent / f"{root.name}.err"
        with self.errors.open("w") as told:
            self._process = subprocess.Popen(  # noqa: S603  # our own words
                [sys.executable, "-m", "edgeecc", "-q", *words, "--json"], cwd=root, env=ENVIRONMENT,
                stdout=subprocess.DEVNULL, stderr=told, start_new_session=True,
            )  # fmt: skip
        self.started = perf_counter()

    def until(self, true: Callable[[], bool]) -> bool:
        """Wait until something is true, reading what changes; return whether it came true while this ran."""
        while self._process.poll() is None:
            if true():
                return True
            if perf_counter() - self.started > PATIENCE_S:
                self.kill()
                raise SystemExit(f"{self._process.args} took more than {PATIENCE_S:.0f} s")
            self._scanner.look()
            sleep(LOOK_S)
        return False

    def holds(self) -> bool:
        """Return whether the process holds a folder."""
        held = Path("/proc/locks").read_text().splitlines()
        return any(f" {self._process.pid} " in line and "FLOCK" in line for line in held)

    def kill(self) -> None:
        """End the whole group at once."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def end(self) -> None:
        """Wait for its end.

        Raises: SystemExit when it fails, which nothing that was killed may; but a run may be finished.
        """
        self.until(lambda: False)
        said = self.errors.read_text()
        if self._process.returncode and "is finished" not in said:
            raise SystemExit(f"{self._process.args} failed: {said}")


def trained(folder: Path) -> None:
    """Write the dense network."""
    model = net()
    initialise_(model, 0)
    data = load("digits", input_shape=(1, 16, 16))
    train_dense_(model, data.train, steps=100, batch_size=32, lr=3e-3, seed=0)
    write_tensors(folder / "dense.safetensors", tensors_of(model), {})


def contents(root: Path) -> Dict[str, object]:
    """Return path -> content of everything that can be seen."""
    return {str(path.relative_to(root)): content(path) for path in visible(root)}


def undisturbed(root: Path, way: List[Stage]) -> Plain:
    """Run every command; return what each stage took, and what there was when each had ended."""
    took: List[Took] = []
    after: List[Dict[str, object]] = []
    command: Optional[Command] = None
    before_s = 0.0
    for stage in way:
        is_new = command is None
        command = command or Command(root, stage.words, Scanner(root))
        process, begun = command, stage.begun
        process.until(lambda: process.holds() and begun(root))  # noqa: B023  # used at once
        at = perf_counter()
        if stage.last:
            process.end()
        else:
            following = way[len(took) + 1]
            process.until(lambda: following.begun(root))  # noqa: B023  # used at once
        before_s = at - process.started if is_new else before_s
        took.append(Took(before_s, perf_counter() - at))
        after.append(contents(root) if stage.last else {})
        command = None if stage.last else command
    return Plain(way, took, after)


class Rounds:
    """Ways with kills.

    Args:
        plain: the undisturbed way.
        kills: how many there are to be, shared out evenly.
        seed: of the moments.
    """

    def __init__(self, plain: Plain, kills: int, seed: int) -> None:
        self._plain = plain
        self._random = np.random.default_rng(seed)
        count = len(plain.way)
        self.found = {stage.name: Found() for stage in plain.way}
        self._wanted = {
            stage.name: kills // count + (place < kills % count)
            for place, stage in enumerate(plain.way)
        }

    def left(self) -> bool:
        """Return whether there are to be more kills."""
        return any(self.found[name].kills < count for name, count in self._wanted.items())

    def go(self, root: Path) -> None:
        """Go the whole way once, with kills, and compare after each command."""
        ended = False  # the command at hand, before it was killed again
        for stage, took, expected in zip(self._plain.way, self._plain.took, self._plain.after):
            told, scanner = self.found[stage.name], Scanner(root)
            for _ in range(min(IN_A_ROUND, self._wanted[stage.name] - told.kills)):
                ended = ended or stage.done(root) or not self._struck(root, stage, took, scanner)
            if stage.last:
                if not ended:
                    words = stage.after if stage.done(root) else stage.words
                    Command(root, words, scanner).end()
                scanner.look()
                now = contents(root)
                names = [one for one in {**expected, **now} if expected.get(one) != now.get(one)]
                told.differing += [f"{root.name}: {name}" for name in names]
                told.left += [f"{root.name}: {name}" for name in hidden(root)]
                told.rounds += 1
                ended = False
            told.faults += scanner.faults
            told.read += scanner.read

    def _struck(self, root: Path, stage: Stage, took: Took, scanner: Scanner) -> bool:
        """Start the command and kill it at a random moment of the stage; return whether it still ran then."""
        told = self.found[stage.name]
        early = self._random.integers(EARLY) == 0
        share = float(self._random.random())
        wait_s = share * (took.before_s if early else took.work_s)
        command = Command(root, stage.words, scanner)
        if not early:
            command.until(lambda: command.holds() and stage.begun(root))
        at = perf_counter()
        if not command.until(lambda: perf_counter() - at >= wait_s):
            command.end()
            told.missed += 1
            return False
        command.kill()
        scanner.look()
        told.kills += 1
        told.kept += bool(stage.kept and stage.kept(root))
        if early:
            told.early += 1
        else:
            told.shares.append(share)
        print(
            f"{root.name} {stage.name}: {'start' if early else 'work'} {share:.0%}", file=sys.stderr
        )
        return True


def table(plain: Plain, found: Dict[str, Found]) -> str:
    """Return what was found, as Markdown."""
    lines = [
        "| command | undisturbed, s | kills | of them at its start | moments covered | work was kept | whole ways | "
        "equal | readings | half-written files | temporaries left |\n" + 11 * "|---" + "|"
    ]
    for stage, one in zip(plain.way, plain.took):
        told = found[stage.name]
        moments = (
            f"{min(told.shares):.0%} to {max(told.shares):.0%}"
            if told.shares
            else "none of the work"
        )
        kept = "starts over" if stage.kept is None else f"{told.kept} of {told.kills}"
        equal = (
            f"{told.rounds - len({name.split(':')[0] for name in told.differing})} of {told.rounds}"
        )
        lines.append(
            f"| {stage.name} | {one.before_s + one.work_s:.1f} | {told.kills} | {told.early} | {moments} | {kept} | "
            f"{told.rounds if stage.last else ''} | {equal if stage.last else 'see fine-tuning'} | {told.read} | "
            f"{len(told.faults)} | {len(told.left)} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where runs are kept; default: a temporary one")
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = options.folder or Path(tempfile.mkdtemp())
    base.mkdir(parents=True, exist_ok=True)
    trained(base)
    plain = undisturbed(fresh(base, "undisturbed"), stages())
    rounds = Rounds(plain, options.kills, options.seed)
    for number in range(MOST_ROUNDS):
        if rounds.left():
            rounds.go(fresh(base, f"round-{number}"))
    found = rounds.found
    print(f"seed {options.seed}, {sum(told.kills for told in found.values())} kills\n")
    print(table(plain, found))
    for name, told in found.items():
        for text in (*told.differing, *told.faults, *told.left):
            print(f"- {name}: {text}")
    print(json.dumps({name: vars(told) for name, told in found.items()}), file=sys.stderr)
    if any(told.differing or told.faults or told.left for told in found.values()):
        raise SystemExit(1)


def fresh(base: Path, name: str) -> Path:
    """Return a new workspace with the dense network."""
    root = base / name
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    shutil.copy(base / "dense.safetensors", root)
    return root


if __name__ == "__main__":
    main()
