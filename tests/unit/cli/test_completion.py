"""Shells complete edgeecc: the values, the scripts in real shells, and what --install writes and leaves alone."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.cli.completion import SHELLS, BashComplete, place_of, script_of
from edgeecc.cli.main import cli
from edgeecc.cost.hardware import hardware
from edgeecc.device_names import AUTO, parse_device
from edgeecc.solvers.table import METHODS, WEIGHT_METHODS

pytestmark = pytest.mark.device

ROOT = Path(__file__).resolve().parents[3]
#: Seconds in which a shell has answered a key.
ANSWER_S = 60.0


def completed(*words: str) -> List[str]:
    """Return what completes the last of the words; kinds other than words are told as "<dir>"."""
    items = ShellComplete(cli, {}, "edgeecc", "").get_completions(list(words[:-1]), words[-1])
    return [item.value if item.type == "plain" else f"<{item.type}>" for item in items]


# ---- values


def test_commands_and_options_complete() -> None:
    assert completed("cal") == ["calibrate"]
    assert set(completed("")) == set(cli.commands)
    assert "--budget" in completed("prune", "--b")


def test_networks_complete_or_files() -> None:
    assert completed("inspect", "--network", "mobilenet_v1") == ["mobilenet_v1", "mobilenet_v1_tf"]
    assert completed("report", "--network", "alex") == ["alexnet"]
    assert completed("inspect", "--network", "mine.pt") == ["<file>"]


def test_methods_complete() -> None:
    assert set(completed("prune", "x", "--method", "")) == {*METHODS, *WEIGHT_METHODS}
    assert completed("compare", "x", "--methods", "ecc,ha") == ["ecc,halp"]


WITH_DEVICE = ["calibrate", "measure", "inspect", "report", "export", "prune", "compare"]


@pytest.mark.parametrize("command", WITH_DEVICE)
def test_every_device_that_is_offered_is_one(command: str) -> None:
    offered = completed(command, "--device", "")
    assert {"virtual:tx2", "onnxruntime:cpu", "jetson-tx2"} <= set(offered)
    for name in offered:
        if name.startswith("systolic:"):
            assert hardware(name.partition(":")[2])
        elif name != AUTO:
            assert parse_device(name)


def test_devices_complete_part_by_part() -> None:
    runtimes = completed("calibrate", "--device", "jetson-orin-nx:t")
    assert runtimes == ["jetson-orin-nx:tensorrt", "jetson-orin-nx:trtexec", "jetson-orin-nx:torch"]
    for name in completed("calibrate", "--device", "nvidia-h200:torch:"):
        assert parse_device(name).text == name
    assert completed("calibrate", "--device", "cpu:") == []


def test_runs_complete_or_folders(workspace: Path) -> None:
    for name in ("a", "b"):
        (workspace / "runs" / name).mkdir(parents=True)
        (workspace / "runs" / name / "run.json").touch()
    (workspace / "runs" / "empty").mkdir()
    for command in ("export", "verify", "explain"):
        assert completed(command, "") == ["runs/a", "runs/b"]
        assert completed(command, "runs/b") == ["runs/b"]
        assert completed(command, "else") == ["<dir>"]
    assert completed("verify", "--workspace", "/nowhere", "") == ["<dir>"]


def test_nothing_of_it_loads_torch() -> None:
    code = "import sys\nfrom edgeecc.cli.main import main\n"
    code += "try:\n    main()\nfinally:\n    assert not {'torch', 'onnx'} & set(sys.modules)\n"
    environment = {
        **os.environ,
        "_EDGEECC_COMPLETE": "bash_complete",
        "COMP_WORDS": "edgeecc inspect --network lene",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "plain,lenet5\n", "")


@given(st.text(alphabet="ab -=:'\"\\", max_size=20))
def test_bash_takes_any_line_that_is_typed(line: str) -> None:
    completer = BashComplete(cli, {}, "edgeecc", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMP_WORDS", f"edgeecc {line}")
        words, incomplete = completer.get_completion_args()
    assert isinstance(incomplete, str)
    if not set(line) & set("'\"\\"):
        last = [""] if line[-1:] in ("", " ") else []
        assert [*words, incomplete] == [*line.split(), *last]


# ---- printed and installed


def invoke(*arguments: str, **environment: object) -> Result:
    return CliRunner().invoke(cli, ["completion", *arguments], env=environment)  # type: ignore[arg-type]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_printed_alone(shell: str) -> None:
    result = invoke(SHELL=f"/usr/bin/{shell}")
    assert result.exit_code == 0
    assert result.stdout == invoke(shell, SHELL="/bin/sh").stdout == script_of(shell, cli)
    assert json.loads(invoke(shell, "--json").stdout) == {"shell": shell, "script": result.stdout}


@pytest.mark.parametrize("named", ["", "/bin/sh", "/usr/bin/tcsh"])
def test_another_shell_is_refused(named: str) -> None:
    result = invoke(SHELL=named)
    assert result.exit_code == 1
    assert result.output == f"Error: $SHELL is {named!r}; name the shell: bash, zsh, fish\n"


def install(shell: str, home: Path, *more: str) -> Result:
    xdg: Dict[str, object] = dict.fromkeys(("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"))
    return invoke(shell, "--install", *more, HOME=str(home), **xdg)


def files(home: Path) -> Dict[str, str]:
    return {
        str(path.relative_to(home)): path.read_text()
        for path in sorted(home.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("shell", SHELLS)
def test_installing_twice_is_installing_once(shell: str, tmp_path: Path) -> None:
    first = json.loads(install(shell, tmp_path, "--json").stdout)
    wrote = files(tmp_path)
    assert {str(tmp_path / name) for name in wrote} == set(first["changed"])
    assert Path(first["file"]).read_text() == script_of(shell, cli)
    again = json.loads(install(shell, tmp_path, "--json").stdout)
    assert again == {**first, "changed": []}
    assert files(tmp_path) == wrote
    assert "all of it was there" in install(shell, tmp_path).stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_said_undoes_it(shell: str, tmp_path: Path) -> None:
    startup = place_of(shell, {"HOME": str(tmp_path)}).startup
    if startup is not None:
        startup.write_text("mine")  # without a line end
    said = install(shell, tmp_path).stdout
    file = Path(said.partition("delete ")[2].split()[0])
    file.unlink()
    if startup is None:
        assert files(tmp_path) == {}
        return
    assert str(startup) in said
    lines = startup.read_text().splitlines()
    assert [line for line in lines if not line.endswith("# edgeecc completion")] == ["mine"]
    assert len(lines) == 2


def test_a_file_of_another_is_left(tmp_path: Path) -> None:
    file = place_of("fish", {"HOME": str(tmp_path)}).file
    file.parent.mkdir(parents=True)
    file.write_text("complete mine")
    result = install("fish", tmp_path)
    assert result.exit_code == 1
    assert result.output == (
        f"Error: {file} is not from edgeecc; move it away, then give this again\n"
    )
    assert file.read_text() == "complete mine"


@pytest.mark.parametrize("name", [".local/share/edgeecc/completion.bash", ".bashrc"])
def test_a_folder_in_the_place_of_a_file_is_said(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir(parents=True)
    result = install("bash", tmp_path)
    assert result.exit_code == 1
    assert (
        result.output
        == f"Error: {tmp_path / name} is no file; move it away, then give this again\n"
    )


def test_an_older_script_of_ours_is_replaced(tmp_path: Path) -> None:
    file = place_of("fish", {"HOME": str(tmp_path)}).file
    file.parent.mkdir(parents=True)
    file.write_text("# Written by edgeecc completion; as it was before")
    assert f"wrote {file}" in install("fish", tmp_path).stdout
    assert file.read_text() == script_of("fish", cli)


def test_a_linked_start_up_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine\n")
    (tmp_path / ".bashrc").symlink_to(tmp_path / "kept")
    assert install("bash", tmp_path).exit_code == 0
    assert (tmp_path / ".bashrc").is_symlink()
    assert (tmp_path / "kept").read_text().startswith("mine\n[ -r ")


@pytest.mark.parametrize("home", ["", "relative"])
def test_no_home_is_said(home: str) -> None:
    result = invoke("bash", "--install", HOME=home)
    assert result.exit_code == 1
    assert result.output == f"Error: $HOME is {home!r}, no folder; set it\n"


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = invoke("bash", "--install", HOME=str(tmp_path / "file"), XDG_DATA_HOME=None)
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert "Traceback" not in result.output


def test_folders_of_xdg_and_zsh_are_kept_to(tmp_path: Path) -> None:
    environment = {"HOME": "/h", "XDG_DATA_HOME": "/d", "XDG_CONFIG_HOME": "/c", "ZDOTDIR": "/z"}
    assert place_of("bash", environment).file == Path("/d/edgeecc/completion.bash")
    assert place_of("zsh", environment).startup == Path("/z/.zshrc")
    assert place_of("fish", environment).file == Path("/c/fish/completions/edgeecc.fish")
    assert place_of("bash", {**environment, "XDG_DATA_HOME": "d"}).file.parts[:2] == ("/", "h")


# ---- real shells

#: Keys, and what the shell then has put on the line or offers.
KEYS = [
    ("edgeecc calib", "calibrate"),
    ("edgeecc inspect --network lene", "lenet5"),
    ("edgeecc calibrate --device virtual:t", "virtual:tx2"),
]


def at_a_terminal(shell: str, home: Path) -> List[str]:
    """Return what an interactive shell writes after each of KEYS and a tab."""
    (home / "bin").mkdir()
    program = home / "bin" / "edgeecc"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edgeecc "$@"\n')
    program.chmod(0o755)
    environment = {
        "HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "TERM": "xterm", "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
    }  # fmt: skip
    terminal, its_end = pty.openpty()
    process = subprocess.Popen(
        [shell, "-i"], cwd=home, env=environment, stdin=its_end, stdout=its_end, stderr=its_end, start_new_session=True
    )  # fmt: skip
    os.close(its_end)
    try:
        return [after_tab(terminal, keys, wanted) for keys, wanted in KEYS]
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def after_tab(terminal: int, keys: str, wanted: str) -> str:
    os.write(terminal, b"\x15" + keys.encode() + b"\t")
    seen, end = "", time.perf_counter() + ANSWER_S
    while wanted not in seen and time.perf_counter() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            seen += os.read(terminal, 65536).decode("utf-8", "replace").replace("\b", "")
    return seen


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_installed_script_completes_at_a_terminal(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here")
    assert install(shell, tmp_path).exit_code == 0
    for (_, wanted), seen in zip(KEYS, at_a_terminal(shell, tmp_path)):
        assert wanted in seen


def test_the_installed_script_completes_in_fish(tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not here")
    assert install("fish", tmp_path).exit_code == 0
    program = tmp_path / "edgeecc"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edgeecc "$@"\n')
    program.chmod(0o755)
    for keys, wanted in KEYS:
        done = subprocess.run(
            ["fish", "-c", f'complete --do-complete "{keys}"'],
            cwd=tmp_path, text=True, capture_output=True, check=True,
            env={"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert wanted in done.stdout
