"""Defaults of options from TOML: edgeecc.toml in the working directory, and `--config FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, TypeVar

import click

from edgeecc.artifacts import read_toml
from edgeecc.calibration_folder import shipped_roots
from edgeecc.errors import ArtifactError, one_line

Command = TypeVar("Command", bound=Callable[..., Any])

#: Read where it is there, without being named.
DEFAULT_FILE = Path("edgeecc.toml")


def config_option(command: Command) -> Command:
    """Add --config: a TOML file with a table a command, whose keys are spelled as the options."""
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_take,
        help="TOML file with defaults of these options, one table a command; paper/*.toml come with edgeecc.",
    )(command)


def file_defaults(path: Path, group: click.Group) -> Dict[str, Dict[str, Any]]:
    """Return command name -> parameter name -> value, as click's default_map wants it.

    Raises: click.UsageError when the file cannot be read, or names a command or an option that is not there.
    """
    try:
        document = read_toml(path)
    except ArtifactError as error:
        raise click.UsageError(str(error)) from error
    return {name: _parameters(path, name, table, group) for name, table in document.items()}


def _take(ctx: click.Context, _: click.Parameter, path: Optional[Path]) -> None:
    """Put the file's table of this command over the defaults that are there."""
    if path is None:
        return
    root = ctx.find_root().command
    assert isinstance(root, click.Group)  # noqa: S101  # for the type checker
    table = file_defaults(_found(path), root).get(ctx.command.name or "")
    if table is None:
        raise click.UsageError(
            f"{path} has no table [{ctx.command.name}]; is it for another command?"
        )
    ctx.default_map = {**(ctx.default_map or {}), **table}


def _found(path: Path) -> Path:
    """Return the file itself, or the one of that name that comes with edgeecc."""
    if not path.is_file() and not path.is_absolute() and ".." not in path.parts:
        for root in shipped_roots():
            if (root / path).is_file():
                return root / path
    return path


def _parameters(path: Path, name: str, table: object, group: click.Group) -> Dict[str, Any]:
    command = group.commands.get(name)
    if command is None or not isinstance(table, dict):
        known = ", ".join(f"[{command}]" for command in sorted(group.commands))
        raise _wrong(f"{path} holds {name!r}, which is no command's table; known are {known}")
    spelled = _spelled(command.params)
    for key in table:
        if _plain(key) not in spelled:
            raise _wrong(
                f"{path} sets {key!r} for {name}, which has no such option; see edgeecc {name} --help"
            )
    repeated = {parameter.name for parameter in command.params if _is_repeated(parameter)}
    named = {spelled[_plain(key)]: _taken(path, key, value) for key, value in table.items()}
    return {
        name: [value] if name in repeated and not isinstance(value, list) else value
        for name, value in named.items()
    }


def _taken(path: Path, key: str, value: object) -> object:
    """Return a value as the command line would give it, for options expect text: 500 is "500", true stays true.

    Raises: click.UsageError for a table, and for a list of anything but single values.
    """
    values = value if isinstance(value, list) else [value]
    if any(isinstance(one, (dict, list)) for one in values):
        raise _wrong(f"{path} sets {key!r} to a table; give a value, or a list of values")
    taken = [one if isinstance(one, (bool, str)) else str(one) for one in values]
    return taken if isinstance(value, list) else taken[0]


def _wrong(message: str) -> click.UsageError:
    return click.UsageError(one_line(message))


def _is_repeated(parameter: click.Parameter) -> bool:
    """Return whether an option may be given several times; a file may then name one value or a list."""
    return isinstance(parameter, click.Option) and parameter.multiple


def _spelled(parameters: List[click.Parameter]) -> Mapping[str, str]:
    """Return each option as it is spelled, and each argument's name, -> the parameter's name."""
    return {
        _plain(text): parameter.name
        for parameter in parameters
        if parameter.name is not None
        for text in parameter.opts
    }


def _plain(text: str) -> str:
    return text.lstrip("-").replace("-", "_")
