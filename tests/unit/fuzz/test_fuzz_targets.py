"""The readers of outside input hold under changed inputs: the targets of `python -m tools.fuzz`, for a short while."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import click
import pytest
from hypothesis import given, settings

from edgeecc.errors import MOST_CHARACTERS, EdgeeccError
from tools.fuzz import __main__ as command
from tools.fuzz import judge as judging
from tools.fuzz.engine import Change, Counter, changed, changes
from tools.fuzz.judge import judge
from tools.fuzz.targets import TARGETS

pytestmark = pytest.mark.device

#: Inputs that once brought a reader down, one file each: TARGET-what.
FOUND = sorted((Path(__file__).parent / "found").iterdir())
HAS_TORCH = importlib.util.find_spec("torch") is not None


def usable(name: str) -> str:
    """Return a target's name, and skip the test where something that it needs is not here."""
    for needed in TARGETS[name].imports:
        pytest.importorskip(needed)
    return name


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_valid_inputs_are_read(name: str) -> None:
    target = TARGETS[usable(name)]
    kinds = [judge(target.read, data).kind for data in target.seeds()]
    assert "failed" not in kinds
    assert "ok" in kinds, "no seed is read through: the target looks at nothing"


@pytest.mark.parametrize("name", sorted(set(TARGETS) - {"exported"}))
def test_changed_inputs_are_read_or_refused(name: str) -> None:
    target = TARGETS[usable(name)]
    seeds = target.seeds()

    @settings(max_examples=20)
    @given(changes(len(seeds)))
    def holds(drawn: Change) -> None:
        verdict = judge(target.read, changed(seeds, target.mutator, drawn))
        assert verdict.kind != "failed", verdict

    holds()


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_what_was_found_stays_mended(path: Path) -> None:
    verdict = judge(TARGETS[usable(path.name.partition("-")[0])].read, path.read_bytes())
    assert verdict.kind != "failed", verdict


# ---- a judge that lets everything pass would be worth nothing


def raises(error: BaseException) -> judging.Read:
    def read(data: bytes, folder: Path) -> None:
        raise error

    return read


@pytest.mark.parametrize(
    ("error", "kind", "what"),
    [
        (EdgeeccError("no; give more"), "refused", ""),
        (EdgeeccError("two\nlines"), "refused", ""),  # told in one
        (click.UsageError("no such option"), "refused", ""),
        (click.UsageError("two\nlines"), "failed", "no printable line"),
        (EdgeeccError(""), "failed", "no printable line"),
        (KeyError("x"), "failed", "KeyError"),
        (MemoryError(), "failed", "MemoryError"),
        (AssertionError("left the folder"), "failed", "left the folder"),
    ],
)
def test_the_judge_tells_failures(error: BaseException, kind: str, what: str) -> None:
    verdict = judge(raises(error), b"")
    assert verdict.kind == kind
    assert what in verdict.what


def test_the_judge_stops_what_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "CPU_S", 0.05)

    def read(data: bytes, folder: Path) -> None:
        while True:
            pass

    assert "processor time" in judge(read, b"").what


def test_the_judge_sees_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "MEMORY_BYTES", 0)
    peaks = iter((10, 20))
    monkeypatch.setattr(judging, "_peak_bytes", lambda: next(peaks))
    assert "memory" in judge(lambda data, folder: None, b"").where


def test_errors_are_one_printable_line_of_bounded_length() -> None:
    told = str(EdgeeccError("a\nb\t" + "\x1b[2J\ud800 " + "x" * 5000 + "; do this"))
    assert told.startswith("a b \\x1b[2J\\ud800 xx")
    assert told.endswith("; do this")
    assert told.isprintable()
    assert len(told) <= MOST_CHARACTERS
    assert len(str(EdgeeccError("\x00" * 5000))) <= MOST_CHARACTERS


# ---- the command


def test_a_failure_is_kept_and_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counter = Counter("wire", tmp_path)
    broken = TARGETS["wire"].__class__(
        raises(KeyError("x")), TARGETS["wire"].mutator, TARGETS["wire"].seeds
    )
    monkeypatch.setitem(TARGETS, "wire", broken)
    counter.target = broken
    for data in (b"longer", b"long"):
        counter.judge(data)
    counter.report()
    ((_, failure),) = counter.count.failures.items()
    assert (failure["times"], Path(failure["file"]).read_bytes()) == (2, b"long")
    assert json.loads((tmp_path / "wire.json").read_text())["executions"] == 2
    assert command.main(["--replay", failure["file"], "--target", "wire"]) == 1
    assert "failed KeyError" in capsys.readouterr().out


def test_a_replayed_input_that_holds_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"{}")
    assert command.main(["--replay", str(tmp_path / "it"), "--target", "spec"]) == 0


def test_targets_are_run_in_processes_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--minutes", "0.005", "--target", "hardware", "--engine", "hypothesis"]
    assert command.main([*asked, "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].split() == list(command._COLUMNS)
    assert told[1].split()[:2] == ["hardware", "hypothesis"]
    assert int(told[1].split()[2].replace(",", "")) > 0


def test_a_process_that_dies_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho it died; exit 139\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert command.main(["--minutes", "0.01", "--target", "wire", "--out", str(tmp_path)]) == 1
    assert "FAILED wire: the process ended with 139: it died" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_changes_can_be_repeated(name: str) -> None:
    target = TARGETS[usable(name)]
    if name in ("exported", "state"):
        pytest.skip("its seeds are not the same bytes twice")
    for data in target.seeds()[:2]:
        one, other = (changed([data], target.mutator, (0, [5])) for _ in range(2))
        assert len(one) == len(other)
