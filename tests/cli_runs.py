"""Run the command line in this process, and hold it to its contract."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from edgeecc.cli.main import cli


def run(*arguments: object, code: int = 0) -> Result:
    """Return what a command printed; a traceback or another exit status is a failure."""
    result = CliRunner().invoke(cli, ["-q", *map(str, arguments)])
    assert not (result.exception and not isinstance(result.exception, SystemExit)), result.exc_info
    assert result.exit_code == code, result.output
    return result


def run_json(*arguments: object, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code).stdout)


def complaint(*arguments: object, code: int = 1) -> str:
    """Return the one line on stderr of a command that must fail."""
    result = run(*arguments, code=code)
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith(("Usage:", "Try "))]
    lines = [line for line in lines if line.strip()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    return lines[0]
