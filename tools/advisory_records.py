"""Advisories as OSV writes them: a record names packages, the versions that it touches, and ranges of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Collection, Dict, Iterable, List, Mapping, Tuple

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

Record = Mapping[str, Any]
_MODIFIED = re.compile(r"""(?:^|[\s{,])"?modified"?\s*:\s*["']?(\d{4}-\d\d-\d\d)""")


class AdvisoryFaultError(Exception):
    """Advisories cannot be had: what was seen, and what to do."""


def read_records(folder: Path, names: Collection[str]) -> Tuple[List[Record], str]:
    """Return the records of packages, and the day of the newest record of any, ISO.

    Args:
        folder: with records as .json or .yaml, in folders of any depth.
        names: canonical names; records whose text names none of them are not read further.
    Raises: AdvisoryFaultError when there are none, or one cannot be read.
    """
    found: List[Record] = []
    newest = ""
    for path in sorted((*folder.rglob("*.json"), *folder.rglob("*.yaml"))):
        text = path.read_text(encoding="utf-8")
        dates = _MODIFIED.findall(text)
        newest = max([newest, *dates])
        if any(name in text.lower() for name in names) and dates:
            found.append(_record(path, text))
    if not newest:
        raise AdvisoryFaultError(
            f"{folder} holds no OSV records; is it a copy of an advisory database?"
        )
    return found, newest


def touching(records: Iterable[Record], name: str, version: str) -> List[str]:
    """Return the ids of the records that touch a release; those taken back do not."""
    return sorted(
        str(record["id"])
        for record in records
        if not record.get("withdrawn")
        and any(_touches(affected, name, version) for affected in record.get("affected") or ())
    )


def _touches(affected: Mapping[str, Any], name: str, version: str) -> bool:
    package = affected.get("package") or {}
    mine = (
        package.get("ecosystem") == "PyPI" and canonicalize_name(str(package.get("name"))) == name
    )
    if not mine:
        return False
    if version in map(str, affected.get("versions") or ()):
        return True
    ranges = affected.get("ranges") or ()
    return any(
        _within(each["events"], version) for each in ranges if each.get("type") == "ECOSYSTEM"
    )


def _within(events: Iterable[Mapping[str, Any]], version: str) -> bool:
    """Return whether a version lies in a range, which events open and close in the order of versions."""
    here, inside = Version(version), False
    ordered = sorted((_at(event), kind) for event in events for kind in event if kind != "limit")
    for at, kind in ordered:
        if kind == "introduced" and here >= at:
            inside = True
        elif (kind == "fixed" and here >= at) or (kind == "last_affected" and here > at):
            inside = False
    return inside


def _at(event: Mapping[str, Any]) -> Version:
    try:
        return Version(str(next(iter(event.values()))))
    except InvalidVersion:
        return Version("0")  # rather touched than not


def _record(path: Path, text: str) -> Record:
    try:
        found: Dict[str, Any] = json.loads(text) if path.suffix == ".json" else _yaml(text)
        if not isinstance(found, dict) or "id" not in found:
            raise TypeError("it is no record")  # noqa: TRY301  # told below
    except (ValueError, TypeError, KeyError) as error:
        raise AdvisoryFaultError(f"{path.name} cannot be read ({error}): copy it again") from None
    return found


def _yaml(text: str) -> Dict[str, Any]:
    try:
        import yaml
    except ImportError:
        raise AdvisoryFaultError("records in YAML need PyYAML: pip install pyyaml") from None
    try:
        return dict(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ValueError(str(error).split("\n")[0]) from None
