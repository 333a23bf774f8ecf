"""Check the pinned versions against published advisories, and that every dependency is pinned exactly and explained.

    python -m tools.audit                      ask OSV (https://osv.dev) about every pin
    python -m tools.audit --offline            ask the snapshot of answers, tools/advisories.json
    python -m tools.audit --database FOLDER    ask a folder of OSV records, such as a copy of PyPA's advisory database
    python -m tools.audit ... --refresh        keep the answers as the snapshot

An advisory that touches a pin is an error unless tools/advisory_excuses.json says why it is harmless here, and until
when that was thought. Exit status: 0 nothing is wrong, 1 one line for each thing that is. A snapshot knows nothing of
what was published after it: its age is printed, and past `OLD_DAYS` warned of, but does not fail a check by itself.
"""

from __future__ import annotations

import argparse
import configparser
import http.client
import json
import re
import sys
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Sequence, Tuple

from packaging.requirements import Requirement

from tools.advisory_records import AdvisoryFaultError, read_records, touching
from tools.check_wheels import Release, read_pins
from tools.wheel_index import IndexFaultError

ROOT = Path(__file__).resolve().parents[1]
SNAPSHOT = ROOT / "tools" / "advisories.json"
EXCUSES = ROOT / "tools" / "advisory_excuses.json"
SERVICE = "https://api.osv.dev"
#: Age from which a snapshot is warned of.
OLD_DAYS = 180
_SCHEMA = 1
_TIMEOUT_S = 30.0
_MOST_BYTES = 32_000_000


@dataclass(frozen=True)
class Answers:
    """What a source of advisories says of the pins.

    Args:
        source: in words.
        day: of the newest advisory that it can know, ISO.
        releases: pin -> ids of the advisories that touch it; every pin that was asked for is there.
        by_hand: pin -> ids that a person read of since, with no claim to be all.
    """

    source: str
    day: str
    releases: Mapping[str, Sequence[str]]
    by_hand: Mapping[str, Sequence[str]]

    def of(self, pin: str) -> List[str]:
        """Return the advisories of a pin.

        Raises: AdvisoryFaultError when it was not asked for.
        """
        if pin not in self.releases:
            raise AdvisoryFaultError(
                f"nothing was asked about {pin}: run `python -m tools.audit --refresh` with a network or --database"
            )
        return sorted({*self.releases[pin], *self.by_hand.get(pin, ())})


@dataclass(frozen=True)
class Excuse:
    """Why an advisory does no harm here.

    Args:
        id: of the advisory.
        pin: that it touches, name==version.
        reason: in a sentence.
        until: ISO day on which somebody should look again.
    """

    id: str
    pin: str
    reason: str
    until: str


def files() -> List[Path]:
    """Return the files of pins."""
    return sorted(ROOT.glob("constraints*.txt"))


def all_pins(paths: Iterable[Path]) -> List[Release]:
    """Return every pin once, in order.

    Raises: IndexFaultError naming a line that is no exact pin.
    """
    return sorted({pin for path in paths for pin in read_pins(path)})


def unexplained(root: Path = ROOT) -> List[str]:
    """Return a line for each dependency of setup.cfg that docs/dependencies.md does not name."""
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    told = (root / "docs" / "dependencies.md").read_text(encoding="utf-8")
    listed = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    lines = [line for text in listed for line in text.splitlines() if line.strip()]
    names = {Requirement(line).name for line in lines if not line.lstrip().startswith("#")}
    return [
        f"setup.cfg depends on {name}, which docs/dependencies.md does not name; say what it is for"
        for name in sorted(names)
        if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", told)
    ]


def ask(pins: Sequence[Release], service: str = SERVICE) -> Answers:
    """Return what OSV says of the pins, at https://osv.dev or wherever `service` is.

    Raises: AdvisoryFaultError when it does not answer, or with something else.
    """
    found: Dict[str, List[str]] = {f"{name}=={version}": [] for name, version in pins}
    left: List[Tuple[str, Dict[str, Any]]] = [
        (f"{name}=={version}", {"package": {"name": name, "ecosystem": "PyPI"}, "version": version})
        for name, version in pins
    ]
    while left:
        answer = _posted(f"{service}/v1/querybatch", {"queries": [query for _, query in left]})
        results = answer.get("results")
        if not isinstance(results, list) or len(results) != len(left):
            raise AdvisoryFaultError(
                f"{service} answered {len(left)} questions with something else"
            )
        more = []
        for (pin, query), result in zip(left, results):
            found[pin] += [str(each["id"]) for each in (result or {}).get("vulns", [])]
            if (result or {}).get("next_page_token"):
                more.append((pin, {**query, "page_token": result["next_page_token"]}))
        left = more
    return Answers("OSV", today().isoformat(), found, {})


def search(pins: Sequence[Release], folder: Path) -> Answers:
    """Return what the OSV records of a folder say of the pins.

    Raises: AdvisoryFaultError when it holds none.
    """
    records, newest = read_records(folder, {name for name, _ in pins})
    found = {f"{name}=={version}": touching(records, name, version) for name, version in pins}
    return Answers(f"the records in {folder.name}", newest, found, {})


def load(path: Path = SNAPSHOT) -> Answers:
    """Return the snapshot.

    Raises: AdvisoryFaultError when it is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("schema") != _SCHEMA:
            raise AdvisoryFaultError(f"{path.name} is of another schema: use --refresh")
        answers = Answers(**content)
        date.fromisoformat(answers.day)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AdvisoryFaultError(f"{path.name} cannot be read ({error!r}): use --refresh") from None
    return answers


def save(answers: Answers, path: Path = SNAPSHOT) -> None:
    """Write the snapshot; what was read by hand stays as far as its pins do."""
    kept = load(path).by_hand if path.is_file() else {}
    kept = {pin: ids for pin, ids in kept.items() if pin in answers.releases}
    body = {"schema": _SCHEMA, **asdict(replace(answers, by_hand=kept))}
    path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


def excuses(path: Path = EXCUSES) -> List[Excuse]:
    """Return the excuses.

    Raises: AdvisoryFaultError when one is not as it should be.
    """
    try:
        found = [Excuse(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
        if not all(
            len(excuse.reason) > 20 and date.fromisoformat(excuse.until) for excuse in found
        ):
            raise AdvisoryFaultError(f"{path.name} has an excuse without a reason")
    except (OSError, ValueError, TypeError) as error:
        raise AdvisoryFaultError(f"{path.name} cannot be read ({error!r})") from None
    return found


def judged(
    pins: Sequence[Release], answers: Answers, excused: Sequence[Excuse]
) -> Tuple[List[str], List[str]]:
    """Return errors and warnings: advisories without an excuse, excuses without an advisory, what is out of date."""
    texts = [f"{name}=={version}" for name, version in pins]
    known = {(excuse.pin, excuse.id): excuse for excuse in excused}
    touched = {(pin, advisory) for pin in texts for advisory in answers.of(pin)}
    errors = [
        f"{advisory} touches {pin}: take another version, or say in {EXCUSES.name} why it is harmless here"
        for pin, advisory in sorted(touched - set(known))
    ]
    errors += [
        f"{EXCUSES.name} excuses {advisory} for {pin}, which it does not touch: take it out"
        for pin, advisory in sorted(set(known) - touched)
    ]
    warnings = [
        f"the excuse of {excuse.id} for {excuse.pin} was thought through until {excuse.until}: look again"
        for excuse in excused
        if date.fromisoformat(excuse.until) < today()
    ]
    age = (today() - date.fromisoformat(answers.day)).days
    if age > OLD_DAYS:
        warnings.append(
            f"{answers.source} ends on {answers.day}, {age} days ago: what was published since is not in it, "
            "`python -m tools.audit` with a network asks anew"
        )
    return errors, warnings


def today() -> date:
    """Return the day, UTC."""
    return datetime.now(timezone.utc).date()


def _posted(url: str, body: Mapping[str, object]) -> Mapping[str, Any]:
    if not url.startswith(("https://", "http://127.0.0.1:")):
        raise AdvisoryFaultError(f"{url} is no https address")
    request = urllib.request.Request(  # noqa: S310  # https, see above
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310  # https, see above
            found = json.loads(answer.read(_MOST_BYTES))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise AdvisoryFaultError(
            f"{url.split('/')[2]} cannot be read ({type(error).__name__}): use --offline"
        ) from None
    if not isinstance(found, dict):
        raise AdvisoryFaultError(f"{url.split('/')[2]} answered with no JSON object")
    return found


def main(arguments: Sequence[str]) -> int:
    """Check, and print what is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--offline", action="store_true", help="ask the snapshot, not OSV")
    mode.add_argument("--database", type=Path, help="ask a folder of OSV records, JSON or YAML")
    parser.add_argument("--refresh", action="store_true", help="keep the answers as the snapshot")
    parser.add_argument("--service", default=SERVICE, help="where OSV's API is")
    options = parser.parse_args(arguments)
    try:
        pins = all_pins(files())
        answers = _answers(options, pins)
        errors, warnings = judged(pins, answers, excuses())
    except (AdvisoryFaultError, IndexFaultError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    errors += unexplained()
    for line in warnings:
        sys.stderr.write(f"warning: {line}\n")
    for line in errors:
        sys.stderr.write(f"error: {line}\n")
    count = sum(len(answers.of(f"{name}=={version}")) for name, version in pins)
    sys.stdout.write(
        f"{len(pins)} pins, {count} advisories, {len(errors)} errors; asked {answers.source} of {answers.day}\n"
    )
    return 1 if errors else 0


def _answers(options: argparse.Namespace, pins: Sequence[Release]) -> Answers:
    if options.offline:
        return load()
    answers = search(pins, options.database) if options.database else ask(pins, options.service)
    if options.refresh:
        save(answers)
        return load()
    return answers


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
