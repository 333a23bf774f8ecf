"""Build wheel and sdist, look into them, install each into clean environments, and try what every extra is for.

    python -m tools.check_release                          everything, into dist/
    python -m tools.check_release --extras ort,report      these extras alone ("none" is none)
    python -m tools.check_release --python python3.8       this interpreter too, for the device tier

Environments and workspaces lie outside the checkout, so that nothing of it is found by chance; versions are those of
the constraints. Exit status: 0 all is well, 1 with a line for each fault.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Dict, List, Optional, Sequence, Tuple

from tools.release_files import differences, unlike

ROOT = Path(__file__).resolve().parents[1]
#: Left by the trial of `host`, and taken by those of other extras, which cannot trace a network.
GRAPH = "calibration/virtual-tx2/lenet5"
_BOARD = (
    '[[board]]\nname = "here"\nkind = "virtual:tx2"\ngraph = "{graph}"\ncommand = ["{program}"]\n'
)
#: Of each extra, a command that needs it; the host tier first. {bin} is the environment's folder of programs.
TRIALS: Dict[str, Sequence[str]] = {
    "host": ("{bin}/edgeecc", "calibrate", "--network", "lenet5", "--samples", "60"),
    "none": ("{bin}/edgeecc", "measure", "--graph", GRAPH, "--number", "-1"),
    "ort": (
        "{bin}/edgeecc", "measure", "--graph", GRAPH, "--number", "-1", "--device", "onnxruntime:cpu",
        "--tolerance", "0.5",
    ),
    "report": ("{bin}/edgeecc", "report", GRAPH, "--resamples", "40"),
    "fleet": (
        "{bin}/edgeecc", "calibrate", "--graph", GRAPH, "--fleet", "fleet.toml", "--workspace", "fleet",
        "--samples", "10",
    ),
    "nvml": ("{bin}/python", "-c", "import pynvml"),
    "jtop": ("{bin}/python", "-c", "import jtop"),
    "docs": ("{bin}/python", "-m", "sphinx", "--version"),
    "release": ("{bin}/python", "-m", "build", "--version"),
    "dev": ("{bin}/python", "-m", "pytest", "--version"),
}  # fmt: skip
#: Extras that the device tier takes, which every Python from the floor on has.
ON_BOARDS = ("none", "ort", "nvml")


@dataclass(frozen=True)
class Case:
    """What is installed where.

    Args:
        file: wheel or sdist.
        extra: of TRIALS.
        python: interpreter that makes the environment.
        constraints: file of pins.
    """

    file: Path
    extra: str
    python: str
    constraints: Path


@dataclass(frozen=True)
class Outcome:
    """How it went.

    Args:
        case: what was tried.
        version: of the interpreter.
        seconds: of installing, and of trying.
        megabytes: of the environment.
        fault: what went wrong; empty when nothing did.
    """

    case: Case
    version: str
    seconds: Tuple[float, float]
    megabytes: float
    fault: str


class FailedError(Exception):
    """A program did not end well; the message has its last line."""


def cases(
    wheel: Path, sdist: Path, extras: Sequence[str], python: str, others: Sequence[str]
) -> List[Case]:
    """Return what is to be tried: the wheel with each extra, the sdist with none, other interpreters as boards do."""
    newest, oldest = (ROOT / f"constraints{end}.txt" for end in ("", "-floor"))
    ordered = [extra for extra in TRIALS if extra in extras]
    found = [Case(wheel, extra, python, newest) for extra in ordered]
    found += [Case(sdist, "none", python, newest)] if "none" in ordered else []
    on_boards = [extra for extra in ordered if extra in ON_BOARDS]
    found += [Case(wheel, extra, other, oldest) for other in others for extra in on_boards]
    return found + [Case(sdist, "none", other, oldest) for other in others if "none" in ordered]


def build(out: Path, folder: Path) -> Tuple[Path, Path]:
    """Build wheel and sdist of the tracked files, and the wheel of the sdist; return the first two.

    Raises: FailedError when a build fails, or the metadata or the files are not as they should be.
    """
    source, again = folder / "source", folder / "again"
    for name in ran(["git", "ls-files", "-z"], ROOT).split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    # Without --wheel or --sdist the wheel is built of the sdist.
    ran([sys.executable, "-m", "build", "--outdir", str(again), "."], source)
    ran([sys.executable, "-m", "build", "--wheel", "--outdir", str(out), "."], source)
    (wheel,), (theirs,), (sdist,) = out.glob("*.whl"), again.glob("*.whl"), again.glob("*.tar.gz")
    faults = [*unlike(wheel, source), *differences(wheel, theirs)]
    if faults:
        raise FailedError("; ".join(faults))
    kept = Path(shutil.copy(sdist, out))
    ran([sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(kept)], out)
    return wheel, kept


def try_out(case: Case, workspace: Path, version: str) -> Outcome:
    """Install a case and run --version, doctor and its trial in `workspace`; take the time."""
    times, megabytes, fault, python = [perf_counter()], 0.0, "", "?"
    with tempfile.TemporaryDirectory(prefix="edgeecc-release-") as name:
        folder = Path(name)
        try:
            python = _install(case, folder)
            times.append(perf_counter())
            megabytes = (
                sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
            )
            _use(case, folder / "bin", workspace, version)
        except FailedError as error:
            fault = str(error).replace(name, "")
    times += [perf_counter()] * (3 - len(times))
    return Outcome(case, python, (times[1] - times[0], times[2] - times[1]), megabytes, fault)


def _install(case: Case, folder: Path) -> str:
    """Make an environment with a case in it; return its Python's version."""
    ran([case.python, "-m", "venv", str(folder)], folder)
    python = str(folder / "bin" / "python")
    what = str(case.file) + ("" if case.extra == "none" else f"[{case.extra}]")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "-q"]
    ran([*pip, "install", "-c", str(case.constraints), what], folder)
    ran([*pip, "check"], folder)
    return ran([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], folder).strip()


def _use(case: Case, programs: Path, workspace: Path, version: str) -> None:
    program = programs / "edgeecc"
    fleet = _BOARD.format(graph=workspace / GRAPH, program=program)
    (workspace / "fleet.toml").write_text(fleet, encoding="utf-8")
    said = ran([str(program), "--version"], workspace)
    if said.split()[-1:] != [version]:
        raise FailedError(f"edgeecc --version says {said.strip()!r}, the file is of {version}")
    ran([str(program), "doctor", "--json"], workspace)
    ran([word.replace("{bin}", str(programs)) for word in TRIALS[case.extra]], workspace)


def ran(command: Sequence[str], folder: Path) -> str:
    """Run a program in a folder and return what it printed.

    Raises: FailedError when it does not start or fails.
    """
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603  # ours
    except OSError as error:
        raise FailedError(f"{command[0]} does not start: {error.strerror}") from error
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        last = lines[-1][:300] if lines else "without a word"
        raise FailedError(f"{' '.join(command[:6])} ended with {done.returncode}: {last}")
    return done.stdout


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as a table in Markdown."""
    lines = [
        "| file | extra | Python | install, s | try, s | MB | |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in outcomes:
        kind = "wheel" if each.case.file.suffix == ".whl" else "sdist"
        install, trial = each.seconds
        lines.append(
            f"| {kind} | {each.case.extra} | {each.version} | {install:.0f} | {trial:.0f} | {each.megabytes:.0f} | "
            f"{each.fault or 'good'} |"
        )
    return "\n".join(lines)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Do what the module says; return the exit status."""
    parser = argparse.ArgumentParser(description="Build, look into, install and try a release.")
    parser.add_argument("--extras", default=",".join(TRIALS), help="with commas between them")
    parser.add_argument("--python", action="append", default=[], help="another interpreter")
    parser.add_argument(
        "--graph", type=Path, help="what calibrate left of lenet5, where the extras lack host"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of the two files")
    options = parser.parse_args(argv)
    extras = options.extras.split(",")
    unknown = sorted({*extras} - {*TRIALS})
    if unknown:
        print(f"error: no extra {unknown[0]!r}; known are {', '.join(TRIALS)}", file=sys.stderr)  # noqa: T201
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    for old in (*options.out.glob("edgeecc-*.whl"), *options.out.glob("edgeecc-*.tar.gz")):
        old.unlink()
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="edgeecc-release-") as folder:
        try:
            wheel, sdist = build(options.out, Path(folder))
        except FailedError as error:
            print(f"error: {error}", file=sys.stderr)  # noqa: T201
            return 1
        workspace = Path(folder) / "workspace"
        workspace.mkdir()
        if options.graph is not None:
            shutil.copytree(options.graph, workspace / GRAPH)
        version = wheel.name.split("-")[1]
        for case in cases(wheel, sdist, extras, sys.executable, options.python):
            outcomes.append(try_out(case, workspace, version))
            print(table(outcomes).splitlines()[-1], file=sys.stderr)  # noqa: T201
    print(f"{wheel.name}, {sdist.name}\n\n{table(outcomes)}")  # noqa: T201
    return 1 if any(each.fault for each in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
