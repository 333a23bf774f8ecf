"""README and docs are true: their commands run or parse, their links lead somewhere, every command has help."""

from __future__ import annotations

import importlib
import itertools
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import List, Set, Tuple

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


def code_lines(text: str) -> List[str]:
    """Return the lines of fenced and of indented blocks, continued ones joined."""
    fence = re.compile(r"```(\w*)\n(.*?)```", flags=re.DOTALL)
    fenced = [body for kind, body in fence.findall(text) if kind in ("", "sh")]
    rest = re.findall(r"(?m)^(?: {4}|\t)(.*)$", fence.sub("", text))
    return "\n".join([*fenced, *rest]).replace("\\\n", " ").splitlines()


def commands(text: str) -> List[List[str]]:
    """Return the words of each edgeecc command in the blocks of a page, started by whatever."""
    found = re.compile(r"^(?:\S+=\S+ )*(?:torchrun .*-- )?edgeecc (.*)$")
    lines = [found.match(line.strip()) for line in code_lines(text)]
    return [shlex.split(match.group(1), comments=True) for match in lines if match]


def parse(words: List[str]) -> click.Context:
    """Read a command line as edgeecc does, without running it."""
    name, *arguments = itertools.dropwhile(lambda word: word in ("-q", "-v", "-vv"), words)
    parent = click.Context(cli, info_name="edgeecc")
    _, command, _ = cli.resolve_command(parent, [name])
    assert command is not None
    return command.make_context(name, arguments, parent=parent)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_blocks_parse(page: Path) -> None:
    for words in commands(page.read_text()):
        assert parse(words), words


def test_there_are_commands_in_blocks_and_wrong_ones_would_be_seen() -> None:
    assert sum(len(commands(page.read_text())) for page in PAGES) > 40
    assert commands("    edgeecc a \\\n      --b 'c d'  # e\n") == [["a", "--b", "c d"]]
    assert commands("```sh\nX=1 edgeecc -q a\n```\n```python\nedgeecc b\n```") == [["-q", "a"]]
    assert commands("    torchrun --n=2 -m -- edgeecc prune\n") == [["prune"]]
    for wrong in ("verify --no-such", "prune model.pth", "calibrate --samples many", "nothing"):
        with pytest.raises(click.UsageError):
            parse(wrong.split())


def inline_options(text: str) -> List[Tuple[str, str]]:
    """Return (command, option) of the code spans of a page that begin with a command."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    names = "|".join(cli.commands)
    found = [re.match(rf"(?:edgeecc )?({names}) (.*)", span) for span in spans]
    return [
        (match.group(1), option)
        for match in found
        if match
        for option in re.findall(r"(?<!\S)(--?[a-z][\w-]*)", match.group(2))
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_in_sentences_exist(page: Path) -> None:
    for name, option in inline_options(page.read_text()):
        known = [text for each in cli.commands[name].params for text in (*each.opts, *each.secondary_opts)]  # fmt: skip
        assert option in (*known, "--help"), (name, option)


def test_options_in_sentences_are_seen() -> None:
    assert inline_options("`edgeecc verify\n--json` and `prune --run X`; `--of`, `inspect`") == [
        ("verify", "--json"),
        ("prune", "--run"),
    ]


@pytest.mark.parametrize("target", ["demo", "test", "check", "floor", "docs", "release"])
def test_make_targets_exist(target: str) -> None:
    done = subprocess.run(
        ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text):
        if not target.startswith("http"):
            there = page.parent / target if target else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), (target, anchor)


def anchors(page: Path) -> Set[str]:
    """Return the anchors of a page's headings, as GitHub names them."""
    heads = re.findall(
        r"(?m)^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    )
    slugs = [re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-") for head in heads]
    assert len(set(slugs)) == len(slugs), f"{page} has two headings of one name"
    return set(slugs)


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
        for extra in ("ort", "host", "fleet", "report", "nvml", "jtop", "docs", "release")
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


def test_the_pictures_of_ecc_are_those_that_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    pictures = importlib.import_module("ecc_pictures")
    drawn = pictures.draw(json.loads(pictures.KEPT.read_text()))
    assert len(drawn) == 4
    for name, picture in drawn.items():
        assert (ROOT / "docs" / "pictures" / f"{name}.svg").read_text() == picture
        assert f"pictures/{name}.svg" in (ROOT / "docs" / "ecc.md").read_text()
        assert len(picture) < 30_000
        assert not re.search(r"(?:href|src|url)\b", picture)
        assert "prefers-color-scheme:dark" in picture
