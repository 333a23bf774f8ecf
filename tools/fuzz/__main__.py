"""Fuzz edgeecc's readers.

    python -m tools.fuzz --minutes 10                every target, the time shared among them
    python -m tools.fuzz --minutes 2 --target graph  one of them (give --target several times for several)
    python -m tools.fuzz --replay FILE --target X    read a kept input again

atheris (coverage-guided) is used where it is installed, hypothesis elsewhere. Every target runs in a process of its
own. Failures are kept as files in --out. Exit status: 0 no failure, 1 failures, each told in a line.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Sequence

from tools.fuzz.engine import has_atheris
from tools.fuzz.targets import TARGETS

#: Seconds that a child may take beyond its time: imports, and its last input.
_GRACE_S = 180.0
_COLUMNS = ("target", "engine", "executions", "edges", "outcomes", "failures", "seconds")


def main(arguments: Sequence[str]) -> int:
    """Fuzz, or replay, as asked."""
    options = _options(arguments)
    names = options.target or sorted(TARGETS)
    if options.replay is not None:
        return _replay(names, options.replay)
    each_s = options.minutes * 60.0 / len(names)
    rows = [_fuzzed(name, each_s, options) for name in names]
    _print_table(rows)
    return 1 if any(row["failures"] for row in rows) else 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools.fuzz", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="one of them")
    parser.add_argument("--out", type=Path, default=Path("fuzz-out"), help="folder of what is kept")
    parser.add_argument("--replay", type=Path, help="a kept input")
    parser.add_argument("--engine", choices=("auto", "atheris", "hypothesis"), default="auto")
    parser.add_argument("--seed", type=int, default=1, help="of the changes")
    options = parser.parse_args(arguments)
    if options.engine == "auto":
        options.engine = "atheris" if has_atheris() else "hypothesis"
    return options


def _replay(names: Sequence[str], path: Path) -> int:
    from tools.fuzz.judge import judge

    failed = False
    for name in names:
        verdict = judge(TARGETS[name].read, path.read_bytes())
        sys.stdout.write(f"{name}: {verdict.kind} {verdict.where} {verdict.what}\n")
        failed = failed or verdict.kind == "failed"
    return 1 if failed else 0


def _fuzzed(name: str, seconds: float, options: argparse.Namespace) -> Dict[str, Any]:
    """Run a target in a process of its own; what it reported is its row."""
    options.out.mkdir(parents=True, exist_ok=True)
    report, log = options.out / f"{name}.json", options.out / f"{name}.log"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tools.fuzz.child", name, options.engine, str(seconds),
               str(options.out), str(options.seed)]  # fmt: skip
    started = time.perf_counter()
    with log.open("wb") as stream:
        child = subprocess.Popen(command, stdout=stream, stderr=stream)  # noqa: S603  # ourselves
        try:
            status = child.wait(seconds + _GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            status = child.wait()
    text = log.read_text(encoding="utf-8", errors="replace")
    row = (
        json.loads(report.read_text())
        if report.is_file()
        else {"executions": 0, "outcomes": {}, "failures": {}}
    )
    done = re.findall(r"^#(\d+)\s.*?cov: (\d+)", text, flags=re.MULTILINE)
    row.update(target=name, engine=options.engine, seconds=time.perf_counter() - started)
    row["executions"] = max(row["executions"], int(done[-1][0]) if done else 0)
    row["coverage"] = int(done[-1][1]) if done else 0
    if status != 0:
        what = " ".join(text[-300:].split())
        last = options.out / f"{name}-last"
        row["failures"][f"the process ended with {status}"] = {
            "what": what,
            "file": str(last),
            "times": 1,
        }
    return dict(row)


def _print_table(rows: Sequence[Dict[str, Any]]) -> None:
    cells: List[Sequence[str]] = [_COLUMNS]
    for row in rows:
        cells.append(
            (row["target"], row["engine"], f"{row['executions']:,}", str(row["coverage"] or "-"),
             str(len(row["outcomes"])), str(len(row["failures"])), f"{row['seconds']:.0f}")
        )  # fmt: skip
    widths = [max(len(line[place]) for line in cells) for place in range(len(_COLUMNS))]
    for line in cells:
        sys.stdout.write(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() + "\n"
        )
    for row in rows:
        for where, failure in row["failures"].items():
            sys.stdout.write(
                f"FAILED {row['target']}: {where}: {failure['what']} ({failure['times']} times; {failure['file']})\n"
            )
    total = sum(row["executions"] for row in rows)
    failed = sum(len(row["failures"]) for row in rows)
    sys.stdout.write(f"{total:,} executions, {failed} failures\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
