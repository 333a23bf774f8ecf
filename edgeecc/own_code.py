"""Code of the user's own that a run names: it is imported where the user says so, never because a file does.

run.json may name a network or a data set as `package.module:function`. A run that this account made was named on its
command line, and run.json then carries a seal that only this account can make: a keyed hash (HMAC, RFC 2104) of the
names, under a key in the account's state folder. What has no seal of this account is refused until the user vouches for
it with --own-code.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import Mapping, Optional, Tuple

from edgeecc.data.table import SOURCES
from edgeecc.errors import ConfigError
from edgeecc.run_folder import RunFolder

_KEY_BYTES = 32


def named_code(source: object, request: object) -> Tuple[str, ...]:
    """Return what of a run's source and request would be imported and called, in this order."""
    found = []
    if isinstance(source, dict) and source.get("program_sha256") is None:
        network = str(source.get("network"))
        found += [network] if ":" in network else []
    if isinstance(request, dict):
        data = str(request.get("data"))
        found += [data] if ":" in data and data.partition(":")[0] not in SOURCES else []
    return tuple(found)


def seal(source: object, request: object) -> Optional[str]:
    """Return this account's seal of the code that a run names; None where it names none, or no key can be kept."""
    names = named_code(source, request)
    key = _key(make=True) if names else None
    return None if key is None else _hash(key, names)


def check_own_code(folder: RunFolder, run: Mapping[str, object]) -> None:
    """Check that what a run would have imported is this account's, or that the user vouches for it.

    Args:
        folder: of the run; `own_code` says whether the user vouches.
        run: what its run.json holds.
    Raises: ConfigError naming the code.
    """
    names = named_code(run.get("source"), run.get("request"))
    if folder.own_code or not names:
        return
    key, given = _key(make=False), run.get("own_code")
    if key is None or not isinstance(given, str) or not _same(_hash(key, names), given):
        raise ConfigError(
            f"{folder.path} was not made by this account and names code to be run: {' and '.join(names)}; look at it, "
            "and give --own-code if you trust it"
        )


def _hash(key: bytes, names: Tuple[str, ...]) -> str:
    return hmac.new(key, json.dumps(names).encode(), hashlib.sha256).hexdigest()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "replace"))


def _key(*, make: bool) -> Optional[bytes]:
    """Return this account's key, made where it is asked for and not there; None where it cannot be had."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    path = Path(state) / "edgeecc" / "own_code.key"
    with contextlib.suppress(OSError):
        if make:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                _write_new(path, os.urandom(_KEY_BYTES))
        key = path.read_bytes()
        return key if len(key) == _KEY_BYTES else None
    return None


def _write_new(path: Path, key: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(key)
