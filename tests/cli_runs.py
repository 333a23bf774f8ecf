"""Run the command line in this process, and hold it to its contract."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from edgeecc.cli.main import cli

#: A network of the user's own; most of what it costs on the virtual device depends on its widths.
_WIDE = """
from torch import nn

def net():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10),
    )
"""


def own_module(folder: Path, module: str, code: str) -> Any:
    """Write MODULE.py with code of the user's own into a folder, make it importable, and return the module."""
    (folder / f"{module}.py").write_text(code)
    sys.path.insert(0, str(folder))
    return importlib.import_module(module)


def wide_network(folder: Path, module: str) -> Any:
    """Return a network of 8x8 images, of a module that is written as `own_module` does."""
    return own_module(folder, module, _WIDE).net()


def _runner() -> CliRunner:
    """Return a runner that keeps stderr apart, which click before 8.2 does only when it is told to."""
    mixes = "mix_stderr" in inspect.signature(CliRunner.__init__).parameters
    return CliRunner(mix_stderr=False) if mixes else CliRunner()  # type: ignore[call-arg]


def run(*arguments: object, code: int = 0) -> Result:
    """Return what a command printed; a traceback or another exit status is a failure."""
    result = _runner().invoke(cli, ["-q", *map(str, arguments)])
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
