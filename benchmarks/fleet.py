"""A fleet of four local boards, two killed and one throttled in the run, against one board.

Each board is a process of `tests/board.py`: `edgeecc measure` on the simulated device, which takes a while for every
variant, as a board does while it fills its windows. What is measured depends on the sample's number alone, so what a
fleet keeps must be what one bench keeps, to the last bit. In the disturbed run

- board a's Dask worker is killed (SIGKILL) after a fifth of the samples;
- board b's process is killed after two fifths, and the board does not start again;
- board c throttles after some variants: it measures 1.6 times as much, and takes 1.6 times as long.

python benchmarks/fleet.py [--samples 400] [--delay-s 0.2]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

ROOT = Path(__file__).resolve().parents[1]
KIND = "virtual:tx2"
NETWORK = "lenet5"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
#: Called with the run's folder and the share of samples that are there.
Disturb = Callable[[Path, float], None]


def start(workspace: Path, *words: object) -> subprocess.Popen[str]:
    """Start `edgeecc calibrate` in a workspace."""
    command = [
        sys.executable,
        "-m",
        "edgeecc",
        "calibrate",
        "--workspace",
        workspace,
        "--json",
        *words,
    ]
    return subprocess.Popen(  # noqa: S603  # our own words
        [str(word) for word in command], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> Dict[str, Any]:
    """Return what a calibration printed."""
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    found: Dict[str, Any] = json.loads(out)
    return found


def query(workspace: Path, statement: str) -> List[Tuple[Any, ...]]:
    """Return rows of a run's store, none where it is not there yet."""
    path = workspace / "calibration" / KIND.replace(":", "-") / NETWORK / "samples.db"
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            return db.execute(statement).fetchall()
    except sqlite3.Error:
        return []


def samples(workspace: Path) -> List[Tuple[Any, ...]]:
    """Return the samples of a run, by number."""
    return query(
        workspace, "SELECT number, widths, value, standard_error FROM samples ORDER BY number"
    )


def fleet_file(folder: Path, boards: Dict[str, Dict[str, Any]], delay_s: float) -> Path:
    """Write the fleet's file; each board leaves its process numbers in a folder of its name."""
    lines = ["[fleet]", "rest_s = 5"]
    for name, faults in boards.items():
        (folder / name).mkdir(parents=True)
        options = json.dumps({"delay_s": delay_s, "pids": str(folder / name), **faults})
        words = json.dumps([sys.executable, str(ROOT / "tests" / "board.py"), options])
        lines += ["[[board]]", f'name = "{name}"', f'kind = "{KIND}"', f"command = {words}"]
        lines += [f"env = {{ PYTHONPATH = {json.dumps(str(ROOT))} }}"]
    path = folder / "fleet.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def kill(folder: Path, *, worker: bool) -> None:
    """Kill the process of a board that was started last, or its worker."""
    last = max(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    os.kill(int(last.read_text() if worker else last.name), signal.SIGKILL)


def disturber() -> Disturb:
    """Return what kills a and b in their time."""
    left = [(0.2, "a"), (0.4, "b")]

    def disturb(folder: Path, share: float) -> None:
        while left and share >= left[0][0]:
            _, name = left.pop(0)
            if name == "b":
                (folder / "off").touch()
            kill(folder / name, worker=name == "a")

    return disturb


def run(
    folder: Path, graph: Path, count: int, boards: Dict[str, Dict[str, Any]], delay_s: float, disturb: Disturb
) -> Dict[str, Any]:  # fmt: skip
    """Return what a fleet's calibration told, with its wall time and what it kept."""
    folder.mkdir()
    fleet = fleet_file(folder, boards, delay_s)
    started = time.perf_counter()
    process = start(
        folder, "--graph", graph, "--fleet", fleet, "--samples", count, "--target-error", 0
    )
    while process.poll() is None:
        disturb(folder, len(samples(folder)) / count)
        time.sleep(0.1)
    told = finish(process)
    aside = query(folder, "SELECT count(*) FROM set_aside")
    return {**told, "wall_s": time.perf_counter() - started, "aside": aside[0][0]}


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--delay-s", type=float, default=0.2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        finish(
            start(
                root / "bench", "--network", NETWORK, "--samples", args.samples, "--target-error", 0
            )
        )
        graph = root / "bench" / "calibration" / KIND.replace(":", "-") / NETWORK
        wanted = samples(root / "bench")
        off = str(root / "disturbed" / "off")
        runs: Dict[str, Tuple[Dict[str, Dict[str, Any]], Disturb]] = {
            "one": ({"a": {}}, lambda folder, share: None),
            "four": ({name: {} for name in "abcd"}, lambda folder, share: None),
            "disturbed": (
                {"a": {}, "b": {"off": off}, "c": {"slow_after": args.samples // 10}, "d": {}},
                disturber(),
            ),
        }
        found = {
            name: run(root / name, graph, args.samples, boards, args.delay_s, disturb)
            for name, (boards, disturb) in runs.items()
        }
        same = {name: samples(root / name) == wanted for name in runs}
    one = found["one"]["variants_per_s"]
    table(
        ["run", "samples", "present once, as one bench has them", "set aside, measured anew", "samples a second",
         "against one board", "wall time, s"],
        [
            [name, told["samples"], "yes" if same[name] else "NO", told["aside"], f"{told['variants_per_s']:.2f}",
             f"{told['variants_per_s'] / one:.2f}", f"{told['wall_s']:.0f}"]
            for name, told in found.items()
        ],
    )  # fmt: skip
    print()
    table(
        ["board, disturbed run", "samples", "offset", "state"],
        [
            [board, told.get("samples", 0),
             f"{told['offset']:.4f} +- {told['standard_error']:.4f}" if "offset" in told else "",
             told["state"] + (f": {told['why']}" if told["why"] else "")]
            for board, told in found["disturbed"]["boards"].items()
        ],
    )  # fmt: skip
    assert all(same.values()), "a sample is missing, or another"


if __name__ == "__main__":
    main()
