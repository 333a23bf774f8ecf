"""The boards of a fleet, as a TOML file names them.

The file is read with bounds: unknown keys, odd names and hosts that a program could take for an option are refused.
What it names as a command is run, without a shell, so it deserves the trust of a script.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from edgeecc.artifacts import read_toml
from edgeecc.calibration_folder import device_metric
from edgeecc.errors import ConfigError
from edgeecc.fleet_config import FleetConfig

MAX_BOARDS = 256
MAX_TEXT = 4096
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_HOST = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9_][A-Za-z0-9_.-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SCHEDULER = re.compile(r"(tcp|tls)://[A-Za-z0-9_.:\[\]-]+:\d{1,5}")
#: Never ask for a password, and notice within a minute that the board is gone.
_SSH = ("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15",
        "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3")  # fmt: skip


@dataclass(frozen=True)
class Board:
    """A board, and how its `edgeecc measure` is started.

    Args:
        name: unique in the fleet; also the name of its Dask worker.
        kind: device name.
        graph: folder with spec.json and dense.onnx, as the board sees it; empty for the calibration's own.
        command: the words that start edgeecc on the board; none for this Python's own.
        ssh: host, user@host or a name from ssh's configuration; empty when the board hangs on the worker itself.
        env: environment variables of edgeecc on the board.
    """

    name: str
    kind: str
    graph: str = ""
    command: Tuple[str, ...] = ()
    ssh: str = ""
    env: Tuple[Tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Fleet:
    """What a fleet file says."""

    config: FleetConfig
    boards: Tuple[Board, ...]

    def of_kind(self, kind: str) -> Tuple[Board, ...]:
        """Return the boards of a kind.

        Raises: ConfigError when there is none.
        """
        found = tuple(board for board in self.boards if board.kind == kind)
        if not found:
            kinds = ", ".join(sorted({board.kind for board in self.boards}))
            raise ConfigError(f"the fleet has no board of kind {kind}; its kinds are {kinds}")
        return found


def arguments(board: Board, measuring: Sequence[str], python: str) -> List[str]:
    """Return the argument list that starts measuring on a board.

    Args:
        board: see there.
        measuring: the words behind `edgeecc`.
        python: interpreter for a board without a command.
    """
    if not board.ssh:
        return [*(board.command or (python, "-m", "edgeecc")), *measuring]
    words = [f"{name}={value}" for name, value in board.env]
    remote = [*(["env", *words] if words else []), *(board.command or ("edgeecc",)), *measuring]
    # ssh joins what it is given with spaces for the login shell over there, so every word is quoted.
    return [*_SSH, "--", board.ssh, " ".join(shlex.quote(word) for word in remote)]


def read_fleet(source: Path, scheduler: Optional[str] = None) -> Fleet:
    """Read a fleet file.

    Args:
        source: TOML with a table [fleet], which may be absent, and a table [[board]] a board.
        scheduler: taken in place of the file's.
    Raises: ArtifactError when it cannot be read; ConfigError for what it must not say.
    """
    document = read_toml(source)
    _known(document, ("fleet", "board"), source)
    settings = document.get("fleet", {})
    tables = document.get("board", [])
    if not isinstance(settings, dict) or not isinstance(tables, list):
        raise ConfigError(f"{source} must hold a table [fleet] and tables [[board]]")
    if not 1 <= len(tables) <= MAX_BOARDS:
        raise ConfigError(f"{source} names {len(tables)} boards; name 1 to {MAX_BOARDS}")
    if scheduler is not None:
        settings = {**settings, "scheduler": scheduler}
    boards = tuple(_board(table, source) for table in tables)
    names = [board.name for board in boards]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"{source} names board {twice} twice; every board needs its own name")
    config = _config(settings, source)
    if config.reference and config.reference not in names:
        raise ConfigError(f"{source} has no board {config.reference} to take as reference")
    return Fleet(config, boards)


def _config(settings: Mapping[str, Any], source: Path) -> FleetConfig:
    known = {field.name: field.default for field in fields(FleetConfig)}
    _known(settings, known, source)
    values: Dict[str, Any] = {}
    for key, value in settings.items():
        wanted = type(known[key])
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not wanted:
            raise ConfigError(f"{key} in {source} must be of type {wanted.__name__}, not {value!r}")
        values[key] = value
    if values.get("scheduler") and not _SCHEDULER.fullmatch(values["scheduler"]):
        raise ConfigError(
            f"{values['scheduler']!r} is no address of a scheduler; write tcp://HOST:PORT"
        )
    return FleetConfig(**values)


def _board(table: object, source: Path) -> Board:
    if not isinstance(table, dict):
        raise ConfigError(f"{source} must hold tables [[board]], found {table!r}")
    _known(table, [field.name for field in fields(Board)], source)
    name = _text(table, "name", source)
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} in {source} is no name of a board; write letters and digits")
    kind = _text(table, "kind", source)
    device_metric(kind)
    ssh = _text(table, "ssh", source, "")
    if ssh and not _HOST.fullmatch(ssh):
        raise ConfigError(
            f"{ssh!r} of board {name} in {source} is no host; write HOST or USER@HOST"
        )
    graph = _text(table, "graph", source, "")
    if ssh and not graph:
        raise ConfigError(
            f"board {name} in {source} needs graph, its folder with spec.json and dense.onnx"
        )
    return Board(name, kind, graph, _command(table, name, source), ssh, _env(table, name, source))


def _command(table: Mapping[str, Any], name: str, source: Path) -> Tuple[str, ...]:
    words = table.get("command", [])
    if not isinstance(words, list) or len(words) > MAX_BOARDS or not all(map(_is_text, words)):
        raise ConfigError(f"command of board {name} in {source} must be a list of words")
    if words and (not words[0] or words[0].startswith("-")):
        raise ConfigError(f"command of board {name} in {source} starts with no program")
    return tuple(words)


def _env(table: Mapping[str, Any], name: str, source: Path) -> Tuple[Tuple[str, str], ...]:
    found = table.get("env", {})
    if not isinstance(found, dict) or not all(map(_is_text, found.values())):
        raise ConfigError(f"env of board {name} in {source} must be a table of texts")
    odd = [key for key in found if not _VARIABLE.fullmatch(key)]
    if odd:
        raise ConfigError(f"env of board {name} in {source} sets {odd[0]!r}, which is no variable")
    return tuple(sorted(found.items()))


def _text(table: Mapping[str, Any], key: str, source: Path, default: Optional[str] = None) -> str:
    value = table.get(key, default)
    if value is None:
        raise ConfigError(f"a board in {source} has no {key}; give it one")
    if not _is_text(value):
        raise ConfigError(f"{key} of a board in {source} must be text, found {str(value)[:80]!r}")
    return str(value)


def _is_text(value: object) -> bool:
    """Return whether a value is text that can stand in an argument list."""
    return isinstance(value, str) and len(value) <= MAX_TEXT and value.isprintable()


def _known(table: Mapping[str, Any], names: Any, source: Path) -> None:
    for key in table:
        if key not in names:
            raise ConfigError(f"{source} sets {key!r}; known are {', '.join(names)}")
