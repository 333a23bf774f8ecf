"""`edgeecc doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from edgeecc.cli.options import json_option, workspace_option
from edgeecc.cli.output import emit_json


@click.command(short_help="Say what this machine can measure and run.")
@workspace_option
@json_option
def doctor(workspace: Path, as_json: bool) -> None:
    """Say what this machine can measure and run, and how to enable what it cannot.

    \b
    Example:
      edgeecc doctor --json
    """  # noqa: D301  # \b keeps click from wrapping
    from edgeecc import doctor as use_case

    sections = use_case.examine(workspace)
    if as_json:
        emit_json(use_case.as_json(sections))
        return
    for section, findings in sections.items():
        if findings:
            click.echo(section)
        for finding in findings:
            mark = "ok " if finding.ok else "no "
            hint = f"  -> {finding.hint}" if finding.hint else ""
            click.echo(f"  {mark} {finding.name}: {finding.detail}{hint}")
