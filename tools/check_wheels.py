"""Check that every pinned version is there for the machines that it is pinned for.

    python -m tools.check_wheels             ask the package index that pip is configured for
    python -m tools.check_wheels --offline   ask the snapshot of its answers, tools/wheel_tags.json
    python -m tools.check_wheels --refresh   ask the index, keep its answers as the snapshot

For every target (a Python, a machine, a glibc) each pin must have a wheel that this target's pip takes, or be on the
list of those that are built from source. Exit status: 0 all are there, 1 one line for each that is not.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict, FrozenSet, Iterable, List, Mapping, Optional, Sequence, Tuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from tools.wheel_index import Index, IndexFaultError, IndexFile, configured

ROOT = Path(__file__).resolve().parents[1]
SNAPSHOT = ROOT / "tools" / "wheel_tags.json"
_SCHEMA = 1
#: Older than every glibc here; wheels name the oldest that they run on.
_OLDEST_GLIBC_MINOR = 17

#: Packages without wheels -> where and from what they are built.
BUILT_FROM_SOURCE = {
    "pycuda": "in Dockerfile.l4t's build stage, with the CUDA headers of that L4T release",
}

Release = Tuple[str, str]
Releases = Mapping[Release, Sequence[IndexFile]]


@dataclass(frozen=True)
class Target:
    """A machine that pins are for.

    Args:
        name: in messages.
        pins: file, from the root of the repository.
        python: full version of the oldest interpreter there: `requires-python` is held against it.
        machine: as wheels name it.
        glibc_minor: of glibc 2.x there.
    """

    name: str
    pins: str
    python: str
    machine: str
    glibc_minor: int

    def tags(self) -> FrozenSet[Tag]:
        """Return the tags of wheels that pip takes there."""
        major, minor = (int(part) for part in self.python.split(".")[:2])
        platforms = [
            alias
            for glibc in range(self.glibc_minor, _OLDEST_GLIBC_MINOR - 1, -1)
            for alias in self._platforms(glibc)
        ]
        interpreter = f"cp{major}{minor}"
        return frozenset(
            (
                *cpython_tags((major, minor), [interpreter], platforms),
                *compatible_tags((major, minor), interpreter, platforms),
            )
        )

    def _platforms(self, glibc_minor: int) -> List[str]:
        modern = f"manylinux_2_{glibc_minor}_{self.machine}"
        return [modern, f"manylinux2014_{self.machine}"] if glibc_minor == 17 else [modern]


#: Ubuntu 18.04 has glibc 2.27 and Python 3.8.0, 20.04 has 2.31 and 3.8.10, 22.04 has 2.35 and 3.10.12. `make floor`
#: runs on whatever Python it is given; 3.11 stands for it.
TARGETS = (
    Target("image r32", "constraints-l4t.txt", "3.8.0", "aarch64", 27),
    Target("image r35", "constraints-l4t.txt", "3.8.10", "aarch64", 31),
    Target("image r36", "constraints-l4t.txt", "3.10.12", "aarch64", 35),
    Target("floor on a board", "constraints-floor.txt", "3.8.0", "aarch64", 27),
    Target("floor on a workstation", "constraints-floor.txt", "3.11.0", "x86_64", 28),
)


def read_pins(path: Path) -> List[Release]:
    """Return the (canonical name, version) of each line of a constraints file.

    Raises: IndexFaultError naming the line that is not `name==version`.
    """
    pins = []
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.split("#", 1)[0].strip()
        if text:
            pins.append(_pin(text, path.name))
    return pins


def _pin(text: str, file_name: str) -> Release:
    exact = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][0-9A-Za-z.!+-]*)", text)
    try:
        if exact is None:
            raise IndexFaultError(f"{file_name}: {text!r} is not of the form name==version")
        requirement = Requirement(text)
        return canonicalize_name(requirement.name), str(Version(exact.group(2)))
    except (InvalidRequirement, InvalidVersion):
        raise IndexFaultError(f"{file_name}: {text!r} names no version") from None


def of_release(files: Iterable[IndexFile], release: Release) -> List[IndexFile]:
    """Return the files of one release that Linux can use: source archives and wheels, those for musl left out."""
    kept = []
    for file in files:
        parsed = _parsed(file.filename)
        if parsed is None or parsed[0] != release:
            continue
        platforms = {tag.platform for tag in parsed[1]}
        if not platforms or any(
            platform == "any" or platform.startswith("manylinux") for platform in platforms
        ):
            kept.append(file)
    return sorted(kept, key=lambda file: file.filename)


def _parsed(filename: str) -> Optional[Tuple[Release, FrozenSet[Tag]]]:
    """Return the release of a file and its wheel tags, none for a source archive; None for anything else."""
    try:
        if filename.endswith(".whl"):
            name, version, _, tags = parse_wheel_filename(filename)
            return (name, str(version)), tags
        name, version = parse_sdist_filename(filename)
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
        return None
    return (name, str(version)), frozenset()


def complaint(target: Target, release: Release, files: Sequence[IndexFile]) -> str:
    """Return what is wrong with a pin on a target, in one line; empty when nothing is."""
    name, version = release
    usable = [file for file in files if not file.yanked and _takes(file, target.python)]
    wheels = {file.filename: tags for file in usable if (tags := _tags(file.filename))}
    if any(tags & target.tags() for tags in wheels.values()):
        return ""
    has_source = any(not _tags(file.filename) for file in usable)
    if has_source and name in BUILT_FROM_SOURCE:
        return ""
    seen = ", ".join(wheels) or ("a source archive alone" if has_source else "nothing usable")
    return (
        f"{target.pins}: {name}=={version} has no wheel for {target.name} (Python {target.python}, {target.machine}, "
        f"glibc 2.{target.glibc_minor}); the index has {seen}; pin another version, or build it and say so in "
        "BUILT_FROM_SOURCE"
    )


def _tags(filename: str) -> FrozenSet[Tag]:
    parsed = _parsed(filename)
    return frozenset() if parsed is None else parsed[1]


def _takes(file: IndexFile, python: str) -> bool:
    """Whether a file may be installed under a Python; as in pip, a specifier that cannot be read forbids nothing."""
    try:
        return SpecifierSet(file.requires_python).contains(python)
    except InvalidSpecifier:
        return True


def complaints(targets: Iterable[Target], releases: Releases) -> List[str]:
    """Return what is wrong with the pins of all targets.

    Raises: IndexFaultError when a pin is not among the releases.
    """
    found = []
    for target in targets:
        for release in read_pins(ROOT / target.pins):
            if release not in releases:
                raise IndexFaultError(
                    f"{SNAPSHOT.name} has no entry for {release[0]}=={release[1]}: "
                    "run `python -m tools.check_wheels --refresh`"
                )
            found.append(complaint(target, release, releases[release]))
    return [line for line in found if line]


def all_pins(targets: Iterable[Target] = TARGETS) -> List[Release]:
    """Return the pins of all targets, each once, in order."""
    return sorted({pin for target in targets for pin in read_pins(ROOT / target.pins)})


def ask(index: Index, pins: Iterable[Release]) -> Dict[Release, List[IndexFile]]:
    """Return the files of every pinned release, from an index."""
    return {pin: of_release(index.files(pin[0]), pin) for pin in pins}


def load_snapshot(path: Path = SNAPSHOT) -> Dict[Release, List[IndexFile]]:
    """Return the snapshot's files of every release.

    Raises: IndexFaultError when it is not one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != _SCHEMA:
            raise IndexFaultError(
                f"{path.name} has schema {content['schema']}, this is {_SCHEMA}: use --refresh"
            )
        return {
            (name, version): [IndexFile(**file) for file in files]
            for pin, files in content["releases"].items()
            for name, version in [pin.split("==")]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IndexFaultError(f"{path.name} cannot be read ({error!r}): use --refresh") from None


def save_snapshot(releases: Releases, path: Path = SNAPSHOT) -> None:
    """Write the snapshot: sorted, one file a line, so that a change of a pin reads well."""
    lines = []
    for (name, version), files in sorted(releases.items()):
        entries = ",\n".join(
            "   " + json.dumps({key: value for key, value in asdict(file).items() if value})
            for file in files
        )
        lines.append(f'  "{name}=={version}": [\n{entries}\n  ]')
    body = ",\n".join(lines)
    path.write_text(
        f'{{\n "schema": {_SCHEMA},\n "releases": {{\n{body}\n }}\n}}\n', encoding="utf-8"
    )


def main(arguments: Sequence[str]) -> int:
    """Check, and print what is wrong."""
    parser = argparse.ArgumentParser(description="Check that every pinned version has its wheels.")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--offline", action="store_true", help="ask the snapshot, not the index")
    mode.add_argument("--refresh", action="store_true", help="keep the index's answers as snapshot")
    parser.add_argument("--seconds", type=float, default=120.0, help="for the index, all in all")
    options = parser.parse_args(arguments)
    try:
        pins = all_pins()
        releases = load_snapshot() if options.offline else ask(configured(options.seconds), pins)
        wrong = complaints(TARGETS, releases)
    except IndexFaultError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if options.refresh and not wrong:
        save_snapshot(releases)
    for line in wrong:
        sys.stderr.write(f"error: {line}\n")
    source = "the snapshot" if options.offline else "the index"
    sys.stdout.write(
        f"{len(pins)} pins, {len(TARGETS)} targets, {len(wrong)} without a wheel in {source}\n"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
