"""What a wheel of edgeecc holds, what it should, and whether two wheels hold the same."""

from __future__ import annotations

import configparser
import zipfile
from pathlib import Path
from typing import Dict, List, Set

#: Of a wheel, what describes it; hashes and the tools that made it differ.
_RECORDS = ("RECORD", "WHEEL")


def expected(source: Path) -> Set[str]:
    """Return the files that a wheel should hold, but for those that describe it: modules, py.typed, shared data."""
    package = source / "edgeecc"
    names = {str(path.relative_to(source)) for path in package.rglob("*.py")} | {"edgeecc/py.typed"}
    setup = configparser.ConfigParser()
    setup.read(source / "setup.cfg", encoding="utf-8")
    for folder, patterns in setup["options.data_files"].items():
        for pattern in patterns.split():
            names |= {f"{folder}/{path.name}" for path in source.glob(pattern)}
    return names


def held(wheel: Path) -> Set[str]:
    """Return the files that a wheel installs, data named as under the prefix, those that describe it left out."""
    names = set()
    for name in _contents(wheel):
        top, _, rest = name.partition("/")
        if top.endswith(".data"):
            names.add(rest.partition("/")[2])
        elif not top.endswith(".dist-info"):
            names.add(name)
    return names


def unlike(wheel: Path, source: Path) -> List[str]:
    """Return what is wrong with the files of a wheel, a line each."""
    wanted, found = expected(source), held(wheel)
    return [f"{wheel.name} lacks {name}" for name in sorted(wanted - found)] + [
        f"{wheel.name} holds {name}, which is not installed" for name in sorted(found - wanted)
    ]


def differences(one: Path, other: Path) -> List[str]:
    """Return the files in which two wheels differ, a line each."""
    left, right = _contents(one), _contents(other)
    named = sorted({*left, *right})
    return [
        f"{name} differs between the wheels of tree and sdist"
        for name in named
        if left.get(name) != right.get(name) and not name.endswith(_RECORDS)
    ]


def _contents(wheel: Path) -> Dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
