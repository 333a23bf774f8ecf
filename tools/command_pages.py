"""Usage, arguments and options of every command as Markdown, read from click, for the site of the docs."""

from __future__ import annotations

import re
from typing import List, Tuple

import click

from edgeecc.cli.main import cli

#: Stands in docs/commands.md where the text of a command goes; on its own line, the name at its end.
MARK = re.compile(r"^<!-- options of (\S+) -->$", flags=re.MULTILINE)


def filled(text: str) -> str:
    """Return a page with the text of each command in place of its mark.

    Raises: KeyError when a mark names no command.
    """
    return MARK.sub(lambda mark: command_text(mark.group(1)), text)


def command_text(name: str) -> str:
    """Return usage, arguments, options and help of a command, or of the program itself by "edgeecc"."""
    whole = name == "edgeecc"
    command: click.Command = cli if whole else cli.commands[name]
    context = click.Context(command, info_name="edgeecc" if whole else f"edgeecc {name}")
    usage = " ".join(command.collect_usage_pieces(context))
    described, examples = _parts("" if whole else command.help or "")
    lines = ["```text", f"{context.info_name} {usage}", "```", "", described, ""]
    if examples:
        lines += ["```sh", *examples, "```", ""]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:
            lines += [f"- `{record[0]}`: {_escaped(record[1])}"]
    return "\n".join(lines)


def _parts(text: str) -> Tuple[str, List[str]]:
    """Return what a help text says, and its examples."""
    described, _, examples = text.partition("\b\n")
    lines = [line.strip() for line in examples.splitlines()]
    paragraphs = [" ".join(part.split()) for part in described.split("\n\n")]
    return (
        "\n\n".join(_escaped(part) for part in paragraphs if part),
        [line for line in lines if line and not line.startswith("Example")],
    )


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#$])", r"\\\1", " ".join(text.split()))
