"""Dockerfile.l4t is clean for each release, and says what the pins and the package say."""

from __future__ import annotations

import configparser
import re
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgeecc import __version__
from tools import check_dockerfile
from tools.check_dockerfile import defaults, filled, hadolint, main, own_rules, read
from tools.check_wheels import BUILT_FROM_SOURCE, read_pins

pytestmark = pytest.mark.device

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile.l4t").read_text()
PINS = dict(read_pins(ROOT / "constraints-l4t.txt"))
CLEAN = """
FROM --platform=linux/arm64 ubuntu:18.04 AS build
RUN make
FROM --platform=linux/arm64 nvcr.io/nvidia/l4t-base:r32.7.1
COPY --from=build /a /a
USER 1000
HEALTHCHECK CMD ["edgeecc", "doctor"]
"""


@pytest.mark.parametrize("release", ["r32", "r35", "r36"])
def test_every_release_is_clean(release: str) -> None:
    assert own_rules(re.sub(r"(?m)^ARG L4T=.*", f"ARG L4T={release}", TEXT)) == []


def test_hadolint_is_content_where_it_is_there() -> None:
    assert hadolint(ROOT / "Dockerfile.l4t")[0]


def test_an_unknown_release_is_no_stage() -> None:
    (wrong, _) = own_rules(TEXT.replace("ARG L4T=r32", "ARG L4T=r31"))
    assert "build-r31 has no fixed tag" in wrong


def test_rules_let_a_clean_file_pass() -> None:
    assert own_rules(CLEAN) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("ubuntu:18.04", "ubuntu", "line 2: ubuntu has no fixed tag"),
        ("ubuntu:18.04", "ubuntu:latest", "ubuntu:latest has no fixed tag"),
        ("ubuntu:18.04", "localhost:5000/ubuntu", "has no fixed tag"),
        ("--platform=linux/arm64 nvcr", "nvcr", "line 4: nvcr.io/nvidia/l4t-base:r32.7.1 may come"),
        ("USER 1000", "USER root", "runs as root"),
        ("USER 1000", "USER 0:0", "runs as root"),
        ("USER 1000", "USER 1000\nUSER root", "runs as root"),
        ("USER 1000", "", "runs as root"),
        ('CMD ["edgeecc", "doctor"]', "NONE", "no HEALTHCHECK"),
    ],
)
def test_rules_name_what_is_wrong(old: str, new: str, said: str) -> None:
    (wrong,) = own_rules(CLEAN.replace(old, new))
    assert said in wrong


def test_a_user_of_an_earlier_stage_does_not_count() -> None:
    text = CLEAN.replace("USER 1000\n", "").replace("RUN make\n", "USER 1000\n")
    assert own_rules(text) == ["the last stage runs as root: end it with USER"]


def test_continued_lines_are_one_instruction() -> None:
    (one, two) = read("RUN a \\\n  # why\n  && b\n\nCMD c")
    assert (one.line, one.name, one.value) == (1, "RUN", "a && b")
    assert (two.line, two.value) == (5, "c")


def test_arguments_fill_in() -> None:
    arguments = defaults(read('ARG A=1\nARG B\nARG C="x y"'))
    assert arguments == {"A": "1", "C": "x y"}
    assert filled("${A}-${B}", arguments) == "1-${B}"


def test_hadolint_is_skipped_where_it_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    clean, said = hadolint(ROOT / "Dockerfile.l4t")
    assert clean
    assert "skipped" in said


@pytest.mark.parametrize(
    ("script", "clean", "said"),
    [
        ("exit 0", True, "clean"),
        ("echo 1 DL3006; exit 1", False, "DL3006"),
        ("echo broken >&2; exit 1", False, "broken"),
    ],
)
def test_what_hadolint_says_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, clean: bool, said: str
) -> None:
    program = tmp_path / "hadolint"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name, path=None: str(program))
    found, text = hadolint(tmp_path / "Dockerfile")
    assert found is clean
    assert said in text


def test_a_hadolint_that_does_not_start_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=None: str(tmp_path / "gone"))
    assert hadolint(tmp_path / "Dockerfile")[0] is False


def test_main_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "Dockerfile"
    assert main([str(file)]) == 1
    assert "cannot be read" in capsys.readouterr().err
    file.write_text(CLEAN.replace("USER 1000\n", ""))
    assert main([str(file)]) == 1
    assert "Dockerfile: the last stage runs as root" in capsys.readouterr().err


def test_main_checks_ours_unasked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        check_dockerfile, "hadolint", lambda path: (path == ROOT / "Dockerfile.l4t", "seen")
    )
    assert main([]) == 0
    assert capsys.readouterr().out == "seen\n"


def copied() -> list[str]:
    """Return what the Dockerfile copies from the repository, globs left out."""
    copies = [item.value.split() for item in read(TEXT) if item.name == "COPY"]
    words = [word for words in copies if not words[0].startswith("--") for word in words[:-1]]
    return [word for word in words if "*" not in word]


def test_what_is_copied_is_there_and_not_ignored() -> None:
    rules = (ROOT / ".dockerignore").read_text().split("\n")
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    assert "*" in rules
    for name in copied():
        assert (ROOT / name).exists(), name
        assert any(fnmatch(name, rule) for rule in allowed), name


def test_all_that_the_package_installs_is_copied() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    data = " ".join(setup["options.data_files"].values()).split()
    assert {name.partition("/")[0] for name in data} <= set(copied())
    tier = setup["options"]["install_requires"] + setup["options.extras_require"]["ort"]
    lines = [
        line for line in tier.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    for requirement in map(Requirement, lines):
        assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)]), (
            requirement
        )


def test_label_and_package_are_of_one_version() -> None:
    assert defaults(read(TEXT))["VERSION"] == __version__


def test_pins_that_the_dockerfile_takes_out_are_pins() -> None:
    assert set(re.findall(r"'\^([\w-]+)=='", TEXT)) == {"pip", *BUILT_FROM_SOURCE}


def test_every_ignored_rule_is_explained() -> None:
    ignored = set(re.findall(r"hadolint ignore=([\w,]+)", TEXT))
    assert ignored == set(re.findall(r"(?m)^#   (\w+) \(.*\): \S", TEXT))
