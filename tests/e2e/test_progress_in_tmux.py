"""What a user of a real terminal sees of a calibration: midway, in the end, and after Ctrl-C."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Iterator, List

import pytest

from tests.fleets import graph_folder
from tests.terminal import plain_environment

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux"),
]
#: Long enough to be looked at midway.
SAMPLES = 3000


class Tmux:
    """A server of its own, with one session for each width."""

    def __init__(self, folder: Path) -> None:
        self._command = ["tmux", "-S", str(folder / "socket"), "-f", "/dev/null"]
        self._folder = folder

    def ask(self, *words: str) -> str:
        return subprocess.run(
            [*self._command, *words], capture_output=True, text=True, check=True
        ).stdout

    def start(self, name: str, width: int, samples: int, graph: Path) -> None:
        """Start a calibration in a session; what it returns stands below its result."""
        kept = plain_environment(str(ROOT))
        words = [
            f"{key}={kept[key]}"
            for key in ("PYTHONPATH", "OMP_NUM_THREADS", "PATH", "HOME")
            if key in kept
        ]
        words = [
            "env",
            "-i",
            "LANG=C.UTF-8",
            "TERM=screen-256color",
            *words,
            sys.executable,
            "-m",
            "edgeecc",
        ]
        words += ["-v", "calibrate", "--graph", str(graph), "--workspace", str(self._folder / name)]
        words += ["--samples", str(samples), "--target-error", "0"]
        shell = f"{shlex.join(words)}; echo status $?; sleep 600"
        self.ask("new-session", "-d", "-s", name, "-x", str(width), "-y", "20", shell)

    def lines(self, name: str) -> List[str]:
        """Return the lines of a session's screen that are not empty."""
        found = self.ask("capture-pane", "-p", "-t", name).splitlines()
        return [line.rstrip() for line in found if line.strip()]

    def wait(self, name: str, seen: Callable[[List[str]], bool]) -> List[str]:
        """Return the lines once they are as wanted."""
        for _ in range(1200):
            found = self.lines(name)
            if seen(found):
                return found
            time.sleep(0.05)
        raise AssertionError(f"waited in vain; the screen shows {self.lines(name)}")


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    server = Tmux(tmp_path)
    yield server
    subprocess.run([*server._command, "kill-server"], capture_output=True, check=False)


def bars(lines: List[str]) -> List[str]:
    return [line for line in lines if "\u2501" in line or "\u2500" in line]


def midway(lines: List[str]) -> bool:
    """Return whether samples come in, at a rate that is known."""
    (found,) = bars(lines) or ("",)
    return "left" in found and " 0/" not in found


def test_a_calibration_at_80_and_40_columns(tmux: Tmux, tmp_path: Path) -> None:
    graph = graph_folder(tmp_path / "graph")
    for width in (80, 40):
        tmux.start(f"w{width}", width, SAMPLES, graph)
    for width in (80, 40):
        during = tmux.wait(f"w{width}", midway)
        (bar,) = bars(during)
        assert bar.startswith("measuring  ")
        assert f"/{SAMPLES}" in bar
        assert len(bar) < width
        assert ("samples/s" in bar) is (width == 80)
        assert [line for line in during if line.endswith("windows")] == during[-1:]
    for width in (80, 40):
        after = tmux.wait(f"w{width}", lambda lines: lines[-1:] == ["status 0"])
        assert not bars(after)
        assert not [line for line in after if "measuring" in line or "windows" in line]
        assert any(line.startswith("profile") for line in after)
        assert tmux.ask("display", "-p", "-t", f"w{width}", "#{cursor_flag}").strip() == "1"


def test_ctrl_c_in_a_calibration(tmux: Tmux, tmp_path: Path) -> None:
    graph = graph_folder(tmp_path / "graph")
    tmux.start("stopped", 60, 100_000, graph)
    tmux.wait("stopped", midway)
    tmux.ask("send-keys", "-t", "stopped", "C-c")
    after = tmux.wait("stopped", lambda lines: lines[-1:] == ["status 130"])
    said = "".join(after)
    assert "interrupted; what was saved is kept, give the same command to go on" in said
    assert not bars(after)
    assert "measuring" not in said
    assert "Traceback" not in said
    assert tmux.ask("display", "-p", "-t", "stopped", "#{cursor_flag}").strip() == "1"
