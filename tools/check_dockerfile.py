"""Lint Dockerfile.l4t: hadolint where it can be had, and rules of our own everywhere.

    python -m tools.check_dockerfile [FILE]

hadolint comes with the `dev` extra on platforms that its package has a build for; elsewhere its part is skipped, and
said to be. The rules of our own hold what hadolint cannot see: every stage starts from another stage or from an image
with a fixed tag on the platform of a Jetson, the last stage is not root's and asks `doctor` for its health. Exit
status: 0 clean, 1 not.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "Dockerfile.l4t"
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, its continued lines joined, comments left out.

    Args:
        line: where it starts, from 1.
        name: in capitals.
        value: the rest.
    """

    line: int
    name: str
    value: str


def read(text: str) -> List[Instruction]:
    """Return the instructions of a Dockerfile."""
    found: List[Instruction] = []
    start, parts = 0, []  # type: Tuple[int, List[str]]
    for number, line in enumerate(text.splitlines(), start=1):
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        start = start or number
        parts.append(bare.rstrip("\\").strip())
        if not bare.endswith("\\"):
            name, _, value = " ".join(parts).partition(" ")
            found.append(Instruction(start, name.upper(), value.strip()))
            start, parts = 0, []
    return found


def defaults(instructions: Sequence[Instruction]) -> Dict[str, str]:
    """Return the build arguments of a Dockerfile and their defaults."""
    arguments = [item.value.partition("=") for item in instructions if item.name == "ARG"]
    return {name: value.strip('"') for name, equals, value in arguments if equals}


def filled(value: str, arguments: Dict[str, str]) -> str:
    """Return a value with its ${ARGUMENT}s replaced; those without a default stay."""
    return re.sub(r"\$\{(\w+)\}", lambda match: arguments.get(match[1], match[0]), value)


def own_rules(text: str) -> List[str]:
    """Return what is wrong with a Dockerfile by our own rules, one line each."""
    instructions = read(text)
    arguments = defaults(instructions)
    stages: List[str] = []
    wrong = []
    for item in instructions:
        if item.name == "FROM":
            words = [word for word in item.value.split() if not word.startswith("--")]
            wrong += _image_rule(item, filled(words[0], arguments), stages)
            stages.append(words[2] if len(words) > 2 else "")
    last_from = max((i for i, item in enumerate(instructions) if item.name == "FROM"), default=0)
    return [*wrong, *_last_stage_rules(instructions[last_from:])]


def _image_rule(item: Instruction, image: str, stages: Sequence[str]) -> List[str]:
    if image in stages:
        return []
    tag = image.rpartition("/")[2].partition(":")[2]
    if not re.search(r"\d", tag):
        return [f"line {item.line}: {image} has no fixed tag: name the release that was checked"]
    if "--platform=linux/arm64" not in item.value:
        return [f"line {item.line}: {image} may come for another machine: --platform=linux/arm64"]
    return []


def _last_stage_rules(stage: Sequence[Instruction]) -> List[str]:
    users = [item.value for item in stage if item.name == "USER"]
    health = " ".join(item.value for item in stage if item.name == "HEALTHCHECK")
    wrong = []
    if not users or users[-1].partition(":")[0] in ("root", "0"):
        wrong.append("the last stage runs as root: end it with USER")
    if "doctor" not in health:
        wrong.append("the last stage has no HEALTHCHECK that runs `edgeecc doctor`")
    return wrong


def hadolint(path: Path) -> Tuple[bool, str]:
    """Run hadolint.

    Returns: whether nothing was found, or hadolint is not there; and what it says.
    """
    folder = Path(sys.executable).parent
    program = shutil.which("hadolint", path=str(folder)) or shutil.which("hadolint")
    if program is None:
        return (
            True,
            "hadolint: skipped, it is not here (the dev extra brings it where it has a build)",
        )
    try:
        done = subprocess.run(  # noqa: S603  # found above, arguments are ours
            [program, str(path)], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return False, f"hadolint: does not run ({error})"
    return done.returncode == 0, (done.stdout + done.stderr).strip() or "hadolint: clean"


def main(arguments: Sequence[str]) -> int:
    """Lint, and print what is wrong."""
    path = Path(arguments[0]) if arguments else DOCKERFILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"error: {path} cannot be read ({error})\n")
        return 1
    wrong = own_rules(text)
    clean, said = hadolint(path)
    for line in wrong:
        sys.stderr.write(f"{path.name}: {line}\n")
    (sys.stdout if clean else sys.stderr).write(f"{said}\n")
    return 0 if clean and not wrong else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
