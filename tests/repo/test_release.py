"""One version everywhere, a wheel with what it should hold, changes in one form, and the tool that tries a release."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import List

import pytest
from click.testing import CliRunner

from edgeecc import __version__
from edgeecc.artifacts import write_json
from edgeecc.cli.main import cli
from tools import check_release
from tools.check_release import (
    ON_BOARDS,
    TRIALS,
    Case,
    FailedError,
    Outcome,
    cases,
    main,
    ran,
    table,
    try_out,
)
from tools.release_files import differences, expected, held, unlike

pytestmark = pytest.mark.device

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg")


# ---- version and changes


def test_the_version_has_one_place(tmp_path: Path) -> None:
    assert SETUP["metadata"]["version"] == "attr: edgeecc.__version__"
    assert CliRunner().invoke(cli, ["--version"]).output.split()[-1] == __version__
    assert "from edgeecc import __version__" in (ROOT / "docs" / "conf.py").read_text()
    write_json(tmp_path / "a.json", "edgeecc/probe/1", {})
    assert __version__ in json.dumps(json.loads((tmp_path / "a.json").read_text()))
    named = re.compile(rf"(?<![\d.]){re.escape(__version__)}(?![\d.])")
    for path in (ROOT / "setup.cfg", ROOT / "pyproject.toml", ROOT / "Makefile"):
        assert not named.search(path.read_text()), path


def test_changes_are_in_one_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    heads = re.findall(r"(?m)^## (.+)$", text)
    versions = [head.partition(" - ")[0] for head in heads]
    assert versions[0] in ("Unreleased", __version__)
    assert len(set(versions)) == len(versions)
    assert all(re.fullmatch(r"Unreleased|\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", head) for head in heads)
    for section in re.split(r"(?m)^## .+$", text)[1:]:
        before, *kinds = re.split(r"(?m)^### (.+)$", section)
        assert not re.search(r"(?m)^- ", before)
        assert kinds[::2] == [kind for kind in KINDS if kind in kinds[::2]]
        assert all(re.search(r"(?m)^- \S", entries) for entries in kinds[1::2])


def test_what_indexes_show_is_there() -> None:
    metadata = SETUP["metadata"]
    assert metadata["long_description_content_type"] == "text/markdown"
    assert metadata["license"] == "MIT"
    assert not re.search("License ::", metadata["classifiers"])  # the expression replaces it
    assert len(metadata["keywords"].split(",")) >= 5
    assert "Typing :: Typed" in metadata["classifiers"]
    assert (ROOT / "edgeecc" / "py.typed").is_file()


def test_every_extra_is_tried() -> None:
    assert {"none", *SETUP["options.extras_require"]} == set(TRIALS)


# ---- the files of a wheel


def backend(hook: str, out: Path, source: Path) -> Path:
    """Build by setuptools itself, without a network."""
    code = f"from setuptools import build_meta; print(); print(build_meta.{hook}({str(out)!r}))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=source, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]
    return out / done.stdout.split()[-1]


def builds_wheels() -> bool:
    """Return whether setuptools is here and makes wheels: by itself since 70.1, earlier by the package wheel."""
    try:
        major, minor = map(int, version("setuptools").split(".")[:2])
    except PackageNotFoundError:
        return False
    return (major, minor) >= (70, 1) or (
        major >= 64 and importlib.util.find_spec("wheel") is not None
    )


def test_wheel_of_the_tree_and_of_the_sdist_are_one(tmp_path: Path) -> None:
    if not builds_wheels():
        pytest.skip("setuptools is not here, or older than what pyproject.toml asks for")
    source = tmp_path / "source"
    for name in ("edgeecc", "calibration", "paper"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for out in ("dist", "again"):
        (tmp_path / out).mkdir()
    sdist = backend("build_sdist", tmp_path / "dist", source)
    wheel = backend("build_wheel", tmp_path / "dist", source)
    assert unlike(wheel, source) == []
    shutil.unpack_archive(sdist, tmp_path / "unpacked")
    theirs = backend(
        "build_wheel", tmp_path / "again", tmp_path / "unpacked" / f"edgeecc-{__version__}"
    )
    assert differences(wheel, theirs) == []


def zipped(path: Path, *names: str, body: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, body)
    return path


def test_files_of_the_tree_are_expected() -> None:
    names = expected(ROOT)
    assert {
        "edgeecc/py.typed",
        "edgeecc/cli/main.py",
        "share/edgeecc/paper/erfnet-tx2.toml",
    } <= names
    assert "share/edgeecc/calibration/jetson-tx2/alexnet/profile.json" in names
    assert not [name for name in names if name.startswith(("tests", "docs", "tools", "benchmarks"))]


def test_what_is_missing_and_what_is_too_much_is_named(tmp_path: Path) -> None:
    (tmp_path / "edgeecc").mkdir()
    (tmp_path / "edgeecc" / "a.py").touch()
    (tmp_path / "setup.cfg").write_text("[options.data_files]\nshare/b = x.toml\n")
    (tmp_path / "x.toml").touch()
    data = ("e-1.data/data/share/b/x.toml", "e-1.dist-info/RECORD")
    wheel = zipped(tmp_path / "e.whl", "edgeecc/a.py", "edgeecc/t.db", *data)
    assert held(wheel) == {"edgeecc/a.py", "edgeecc/t.db", "share/b/x.toml"}
    assert unlike(wheel, tmp_path) == [
        "e.whl lacks edgeecc/py.typed",
        "e.whl holds edgeecc/t.db, which is not installed",
    ]


def test_two_wheels_differ_by_their_files(tmp_path: Path) -> None:
    one = zipped(tmp_path / "1.whl", "a.py", "e-1.dist-info/RECORD")
    other = zipped(tmp_path / "2.whl", "b.py", "e-1.dist-info/RECORD", body="c")
    assert [line.split()[0] for line in differences(one, other)] == ["a.py", "b.py"]
    assert differences(one, one) == []


# ---- the tool


def test_what_is_tried_where() -> None:
    found = cases(Path("a.whl"), Path("a.tar.gz"), ["none", "report", "host"], "new", ["old"])
    told = [(case.file.suffix, case.extra, case.python, case.constraints.name) for case in found]
    assert told == [
        (".whl", "host", "new", "constraints.txt"),
        (".whl", "none", "new", "constraints.txt"),
        (".whl", "report", "new", "constraints.txt"),
        (".gz", "none", "new", "constraints.txt"),
        (".whl", "none", "old", "constraints-floor.txt"),
        (".gz", "none", "old", "constraints-floor.txt"),
    ]
    everything = cases(Path("a.whl"), Path("a.tar.gz"), list(TRIALS), "new", ["old"])
    assert [case.extra for case in everything if case.python == "old"] == [*ON_BOARDS, "none"]


def test_a_program_that_fails_is_told_by_its_last_line(tmp_path: Path) -> None:
    assert ran(["sh", "-c", "echo a"], tmp_path) == "a\n"
    with pytest.raises(FailedError, match="ended with 3: why$"):
        ran(["sh", "-c", "echo so; echo why >&2; echo; exit 3"], tmp_path)
    with pytest.raises(FailedError, match="without a word"):
        ran(["false"], tmp_path)
    with pytest.raises(FailedError, match="does not start"):
        ran([str(tmp_path / "gone")], tmp_path)


def test_an_environment_that_cannot_be_made_is_an_outcome(tmp_path: Path) -> None:
    case = Case(tmp_path / "a.whl", "none", str(tmp_path / "gone"), tmp_path / "pins")
    outcome = try_out(case, tmp_path, "1")
    assert "does not start" in outcome.fault
    assert outcome.seconds[1] == 0.0


def test_a_wrong_version_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: List[str] = []

    def answers(command: List[str], folder: Path) -> str:
        commands.append(" ".join(command))
        return "edgeecc, version 0\n" if command[-1] == "--version" else "3.11\n"

    monkeypatch.setattr(check_release, "ran", answers)
    case = Case(tmp_path / "a.whl", "ort", "python", tmp_path / "pins")
    assert "says 'edgeecc, version 0', the file is of 9" in try_out(case, tmp_path, "9").fault
    good = try_out(case, tmp_path, "0")
    assert (good.fault, good.version) == ("", "3.11")
    assert any(line.endswith(f"-c {tmp_path}/pins {tmp_path}/a.whl[ort]") for line in commands)
    assert any("measure --graph" in line for line in commands)


def test_the_table_tells_all_of_it(tmp_path: Path) -> None:
    case = Case(tmp_path / "a.tar.gz", "none", "python", tmp_path / "pins")
    lines = table(
        [Outcome(case, "3.8", (1.4, 2.0), 99.6, ""), Outcome(case, "3.8", (0, 0), 0, "why")]
    )
    assert lines.splitlines()[2:] == [
        "| sdist | none | 3.8 | 1 | 2 | 100 | good |",
        "| sdist | none | 3.8 | 0 | 0 | 0 | why |",
    ]


def release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str) -> int:
    def outcome(case: Case, workspace: Path, version: str) -> Outcome:
        assert workspace.is_dir()
        assert version == "9"
        return Outcome(case, "3.11", (1.0, 1.0), 1.0, fault)

    files = tmp_path / "e-9-py3-none-any.whl", tmp_path / "e-9.tar.gz"
    monkeypatch.setattr(check_release, "build", lambda out, folder: files)
    monkeypatch.setattr(check_release, "try_out", outcome)
    return main(["--out", str(tmp_path / "dist"), "--extras", "none,ort"])


def test_main_fails_where_a_case_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert release(monkeypatch, tmp_path, "") == 0
    assert capsys.readouterr().out.count("good") == 3
    assert release(monkeypatch, tmp_path, "broken") == 1


def test_main_says_what_is_wrong_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--extras", "none,no"]) == 1
    assert capsys.readouterr().err.startswith("error: no extra 'no'; known are host, none")

    def fails(out: Path, folder: Path) -> None:
        raise FailedError("the build ended with 1")

    monkeypatch.setattr(check_release, "build", fails)
    assert main(["--out", str(tmp_path / "dist")]) == 1
    assert capsys.readouterr().err == "error: the build ended with 1\n"
