"""Code that a run names is imported where the user says so, and a run of another account is not the user's word."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Dict

import pytest

from edgeecc import own_code
from edgeecc.artifacts import exclusive
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.own_code import check_own_code, named_code, seal
from edgeecc.run_folder import RunFolder

pytestmark = pytest.mark.device

NETWORK = {"network": "mine.nets:factory"}
PLAIN = {"network": "lenet5"}
DATA = {"data": "mine.data:splits"}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.mark.parametrize(
    ("source", "request_", "names"),
    [
        (PLAIN, {"data": "digits"}, ()),
        (PLAIN, {"data": "imagefolder:some/folder"}, ()),
        (NETWORK, {"data": "digits"}, ("mine.nets:factory",)),
        (PLAIN, DATA, ("mine.data:splits",)),
        (NETWORK, DATA, ("mine.nets:factory", "mine.data:splits")),
        ({"network": "pt2:net", "program_sha256": "0" * 64}, {"data": "digits"}, ()),
        (
            {"network": "pt2:net"},
            {"data": "digits"},
            ("pt2:net",),
        ),  # without a program it is an import
        (None, None, ()),
        ({"network": ["os:abort"]}, {"data": {"a": 1}}, ("['os:abort']", "{'a': 1}")),
    ],
)
def test_what_is_named_is_found(source: object, request_: object, names: tuple) -> None:
    assert named_code(source, request_) == names


def run_of(source: Dict[str, str], request: Dict[str, str]) -> Dict[str, object]:
    return {"source": source, "request": request, "own_code": seal(source, request)}


def test_a_run_of_this_account_goes_on(tmp_path: Path) -> None:
    check_own_code(RunFolder(tmp_path), run_of(NETWORK, DATA))
    check_own_code(RunFolder(tmp_path), run_of(PLAIN, DATA))


def test_a_run_that_names_no_code_needs_nothing(tmp_path: Path, state: Path) -> None:
    assert seal(PLAIN, {"data": "digits"}) is None
    check_own_code(RunFolder(tmp_path), {"source": PLAIN, "request": {"data": "digits"}})
    assert not state.exists()


def test_a_run_of_another_account_is_refused_until_the_user_vouches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(NETWORK, DATA)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    for _ in range(2):  # without a key, and with another one
        with pytest.raises(
            ConfigError, match=r"mine.nets:factory and mine.data:splits; .*--own-code"
        ):
            check_own_code(RunFolder(tmp_path), run)
        seal(NETWORK, DATA)
    check_own_code(RunFolder(tmp_path, own_code=True), run)


@pytest.mark.parametrize("given", [None, "", "0" * 64, 5, "ü", []])
def test_a_forged_seal_is_none(tmp_path: Path, given: object) -> None:
    run = {**run_of(NETWORK, DATA), "own_code": given}
    with pytest.raises(ConfigError, match="was not made by this account"):
        check_own_code(RunFolder(tmp_path), run)


def test_a_seal_is_of_its_names_alone(tmp_path: Path) -> None:
    run = {**run_of(NETWORK, DATA), "source": {"network": "os:abort"}}
    with pytest.raises(ConfigError, match="os:abort and mine.data:splits"):
        check_own_code(RunFolder(tmp_path), run)


def test_the_key_is_the_accounts_alone(state: Path) -> None:
    seal(NETWORK, DATA)
    (key,) = (state / "edgeecc").iterdir()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_bytes()) == own_code._KEY_BYTES


def test_without_a_place_for_a_key_a_run_has_no_seal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert seal(NETWORK, DATA) is None


def test_export_imports_nothing_that_a_foreign_run_names(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from click.testing import CliRunner

    from edgeecc.cli.main import cli
    from tools.fuzz.forms import unzipped
    from tools.fuzz.seeds import runs

    (workspace / "planted.py").write_text("raise SystemExit('it was imported')\n")
    run = workspace / "run"
    run.mkdir()
    for name, content in unzipped(runs()[0]).items():
        (run / name).write_bytes(content)
    document = json.loads((run / "run.json").read_text())
    document["source"]["network"] = "planted:factory"
    (run / "run.json").write_text(json.dumps(document))
    done = CliRunner().invoke(cli, ["export", "run"])
    assert done.exit_code == 1
    assert "names code to be run: planted:factory; look at it" in done.output
    assert "planted" not in sys.modules


# ---- links in folders from elsewhere


def test_a_lock_that_is_a_link_makes_no_file_elsewhere(tmp_path: Path) -> None:
    run, target = tmp_path / "run", tmp_path / "elsewhere"
    run.mkdir()
    (run / ".lock").symlink_to(target)
    with pytest.raises(ArtifactError, match="cannot write folder"), exclusive(run, "wait"):
        pass
    assert not target.exists()


def test_an_artefact_replaces_a_link_and_leaves_what_it_points_at(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "keep.json").symlink_to(precious)
    RunFolder(tmp_path / "run").write_keep({})
    assert precious.read_text() == "kept"
    assert not (tmp_path / "run" / "keep.json").is_symlink()


def test_a_leftover_that_is_a_folder_does_not_stop_a_run(tmp_path: Path) -> None:
    (tmp_path / ".x.tmp").mkdir()
    with exclusive(tmp_path, "wait"):
        assert (tmp_path / ".x.tmp").is_dir()
