"""`edgeecc completion`: the script that lets a shell complete edgeecc, printed or installed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Dict, List, Mapping, Optional, Tuple

import click
from click.shell_completion import (
    CompletionItem,
    ShellComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from edgeecc.artifacts import atomic_path
from edgeecc.cli.options import json_option
from edgeecc.cli.output import emit_json
from edgeecc.errors import ConfigError

SHELLS = ("bash", "zsh", "fish")
PROGRAM = "edgeecc"
_VARIABLE = "_EDGEECC_COMPLETE"
#: How every script begins: only a file that does is ever replaced.
_MARK = "# Written by edgeecc completion"
#: How the line ends that is added to a shell's start-up file.
_LINE_MARK = "# edgeecc completion"

#: Click's own splits words where bash does, which is at every colon and so amid the name of a device.
_BASH = """\
%(complete_func)s() {
    local typed=${COMP_LINE:0:COMP_POINT} word begun="" kind value
    word=${typed##*[[:space:]=]}
    [[ $COMP_WORDBREAKS == *:* && $word == *:* ]] && begun=${word%%:*}:
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case $kind in
            plain) COMPREPLY+=("${value#"$begun"}") ;;
            dir) compopt -o dirnames 2>/dev/null ;;
            file) compopt -o default 2>/dev/null ;;
        esac
    done < <(env COMP_WORDS="$typed" %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s 2>/dev/null \\
    || complete -F %(complete_func)s %(prog_name)s
"""


class BashComplete(ShellComplete):
    """Completion in bash, of words as they are typed, colons included."""

    name = "bash"
    source_template = _BASH

    def get_completion_args(self) -> Tuple[List[str], str]:
        """Return the words before the one that is typed, and that one."""
        typed = os.environ.get("COMP_WORDS", "")
        words = split_arg_string(typed)[1:]
        incomplete = words.pop() if words and not typed[-1:].isspace() else ""
        return words, incomplete

    def format_completion(self, item: CompletionItem) -> str:  # type: ignore[type-arg,unused-ignore]
        """Return kind and value as the script reads them."""
        return f"{item.type},{item.value}"


add_completion_class(BashComplete)


@dataclass(frozen=True)
class Place:
    """Where a shell finds a script.

    Args:
        file: of the script.
        startup: file that the shell reads as it starts, and that must name the script; None where it looks by itself.
        line: added to that file.
    """

    file: Path
    startup: Optional[Path] = None
    line: str = ""


@click.command(short_help="Let the shell complete commands, options and names.")
@click.argument("shell", required=False, type=click.Choice(SHELLS))
@click.option(
    "--install",
    is_flag=True,
    help="Install it for your user, in place of printing it: a file, and for bash and zsh a line in its start-up file.",
)
@json_option
@click.pass_context
def completion(ctx: click.Context, shell: Optional[str], install: bool, as_json: bool) -> None:
    """Print the script that lets SHELL complete commands, options, networks, devices, methods and runs.

    SHELL is taken from $SHELL where it is not named. --install may be given again: what is there already stays.

    \b
    Examples:
      edgeecc completion --install
      edgeecc completion fish > ~/.config/fish/completions/edgeecc.fish
    """  # noqa: D301  # \b keeps click from wrapping
    shell = shell or shell_of(os.environ)
    script = script_of(shell, ctx.find_root().command)
    if not install:
        if as_json:
            emit_json({"shell": shell, "script": script})
        else:
            click.echo(script, nl=False)
        return
    told = installed(place_of(shell, os.environ), script)
    if as_json:
        emit_json({"shell": shell, **told})
    else:
        click.echo(_words(shell, told))


def shell_of(environment: Mapping[str, str]) -> str:
    """Return the user's shell, by $SHELL.

    Raises: ConfigError when it is none that completes.
    """
    path = environment.get("SHELL", "")
    name = PurePath(path).name
    if name not in SHELLS:
        raise ConfigError(f"$SHELL is {path!r}; name the shell: {', '.join(SHELLS)}")
    return name


def script_of(shell: str, command: click.Command) -> str:
    """Return the script that a shell runs to complete the command."""
    made = get_completion_class(shell)
    assert made is not None  # noqa: S101  # one of SHELLS, which click knows or we added
    source = made(command, {}, PROGRAM, _VARIABLE).source()
    return f"{_MARK}; edgeecc completion {shell} --install makes it anew.\n{source}"


def place_of(shell: str, environment: Mapping[str, str]) -> Place:
    """Return where the user's shell finds the script; by the XDG folders, and $ZDOTDIR for zsh.

    Raises: ConfigError when the environment names no home.
    """
    home = _folder(environment, "HOME", None)
    if shell == "fish":
        config = _folder(environment, "XDG_CONFIG_HOME", home / ".config")
        return Place(config / "fish" / "completions" / f"{PROGRAM}.fish")
    data = _folder(environment, "XDG_DATA_HOME", home / ".local" / "share")
    file = data / PROGRAM / f"completion.{shell}"
    if shell == "bash":
        return Place(file, home / ".bashrc", f"[ -r {_quoted(file)} ] && . {_quoted(file)}")
    ready = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }"
    line = f"[ -r {_quoted(file)} ] && {{ {ready}; . {_quoted(file)} }}"
    return Place(file, _folder(environment, "ZDOTDIR", home) / ".zshrc", line)


def installed(place: Place, script: str) -> Dict[str, Any]:
    """Write the script, and the line that names it where the shell needs one; leave alone what is there already.

    Returns: {"file", "startup", "line", "changed"}: the paths, the line, and which of the paths were written.
    Raises: ConfigError when another program's file has the script's name; ArtifactError when it cannot be written.
    """
    changed = []
    before = _text(place.file)
    if before and not before.startswith(_MARK):
        raise ConfigError(f"{place.file} is not from edgeecc; move it away, then give this again")
    if before != script:
        with atomic_path(place.file) as temporary:
            temporary.write_text(script, "utf-8")
        changed.append(str(place.file))
    line = f"{place.line}  {_LINE_MARK}"
    if place.startup is not None and _add(place.startup, line):
        changed.append(str(place.startup))
    startup = None if place.startup is None else str(place.startup)
    return {
        "file": str(place.file),
        "startup": startup,
        "line": line if startup else None,
        "changed": changed,
    }


def _add(startup: Path, line: str) -> bool:
    """Append a line to a start-up file that lacks it; a link to the file stays one."""
    text = _text(startup)
    if line in text.splitlines():
        return False
    with startup.open("a", encoding="utf-8") as file:
        file.write(line + "\n" if not text or text.endswith("\n") else f"\n{line}\n")
    return True


def _text(path: Path) -> str:
    """Return what a file holds, nothing where there is none."""
    if not path.exists():
        return ""
    if not path.is_file():
        raise ConfigError(f"{path} is no file; move it away, then give this again")
    return path.read_text("utf-8", "replace")


def _folder(environment: Mapping[str, str], name: str, default: Optional[Path]) -> Path:
    path = Path(environment.get(name, ""))
    if path.is_absolute():  # others are no folders of the user's, the XDG specification says
        return path
    if default is None:
        raise ConfigError(f"${name} is {environment.get(name, '')!r}, no folder; set it")
    return default


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "'\\''") + "'"


def _words(shell: str, told: Mapping[str, Any]) -> str:
    wrote = f"wrote {' and '.join(told['changed'])}" if told["changed"] else "all of it was there"
    undo = f"delete {told['file']}"
    if told["startup"]:
        undo += f" and the line that ends in '{_LINE_MARK}' in {told['startup']}"
    return f"{wrote}; it works in every new {shell}\nto undo: {undo}"
