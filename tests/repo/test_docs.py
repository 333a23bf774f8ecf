"""README and docs are true: their commands run or parse, their links lead somewhere, every command has help."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edgeecc.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
README = (ROOT / "README.md").read_text()


def blocks() -> list[list[str]]:
    """Return the edgeecc commands of each fenced block."""
    fenced = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    return [[line for line in block.splitlines() if line.startswith("edgeecc")] for block in fenced]


def indented() -> list[str]:
    return [line.strip() for line in README.splitlines() if line.startswith("    edgeecc ")]


def test_fenced_commands_run(workspace: Path) -> None:
    pytest.importorskip("torch")
    commands = [command for block in blocks() for command in block]
    assert commands
    for command in commands:
        result = CliRunner().invoke(cli, ["-q", *shlex.split(command)[1:]])
        assert result.exit_code == 0, (command, result.output)


def test_indented_commands_parse() -> None:
    assert indented()
    for line in indented():
        name, *arguments = shlex.split(line)[1:]
        command = cli.commands[name]
        assert command.make_context(name, arguments, resilient_parsing=False)


@pytest.mark.parametrize("target", ["demo", "test", "check", "floor"])
def test_make_targets_exist(target: str) -> None:
    done = subprocess.run(
        ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_scripts_that_docs_name_exist(page: Path) -> None:
    for script in re.findall(r"(?:benchmarks|calibration)/\w+\.py", page.read_text()):
        assert (ROOT / script).is_file(), script


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output
    for parameter in cli.commands[name].params:
        assert not isinstance(parameter, click.Option) or parameter.help, (name, parameter.name)
    assert f"edgeecc {name}" in README


def test_every_dependency_has_its_reason() -> None:
    from configparser import ConfigParser

    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    reasons = (ROOT / "docs" / "dependencies.md").read_text()
    lines = setup["options"]["install_requires"].splitlines()
    lines += [
        line
        for extra in ("ort", "host", "fleet")
        for line in setup["options.extras_require"][extra].splitlines()
    ]
    for line in lines:
        name = re.match(r"[A-Za-z0-9_-]*", line.strip())
        if name and name.group():
            assert name.group() in reasons, name.group()


def test_shipped_profiles_are_packaged() -> None:
    packaged = (ROOT / "setup.cfg").read_text()
    listed = subprocess.run(
        ["git", "ls-files", "calibration"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    profiles = [name for name in listed.split() if name.endswith("profile.json")]
    assert profiles
    assert all(name in packaged for name in profiles)


def test_nothing_speaks_of_machines() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    for name in tracked:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".cfg", ".toml", ".json", ".txt") and path.is_file():
            assert not re.search(r"(?<![\w.])/(root|work|home|tmp)/\w", path.read_text()), name
