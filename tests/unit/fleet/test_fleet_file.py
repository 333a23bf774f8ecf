"""Fleet files are untrusted: what they may say, what they may not, and the words that start a board."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.fleet.boards import Board, arguments, read_fleet
from edgeecc.fleet_config import FleetConfig

pytestmark = pytest.mark.device
GOOD = """
[fleet]
reference = "a"
canary_every = 10
rest_s = 5

[[board]]
name = "a"
kind = "virtual:tx2"

[[board]]
name = "b"
kind = "onnxruntime:cpu"
ssh = "me@10.0.0.7"
graph = "nets/my net"
command = ["/opt/edge/bin/edgeecc"]
env = { OMP_NUM_THREADS = "1" }
"""
TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)


def written(folder: Path, text: str) -> Path:
    (folder / "fleet.toml").write_text(text)
    return folder / "fleet.toml"


def test_a_file_is_read(tmp_path: Path) -> None:
    fleet = read_fleet(written(tmp_path, GOOD))
    assert fleet.config == FleetConfig(reference="a", canary_every=10, rest_s=5.0)
    one, other = fleet.boards
    assert one == Board("a", "virtual:tx2")
    assert other.env == (("OMP_NUM_THREADS", "1"),)
    assert fleet.of_kind("onnxruntime:cpu") == (other,)
    with pytest.raises(ConfigError, match="no board of kind jetson-tx2; its kinds are onnx"):
        fleet.of_kind("jetson-tx2")
    assert read_fleet(tmp_path / "fleet.toml", "tcp://h:1").config.scheduler == "tcp://h:1"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "a"', 'name = ""', "is no name of a board"),
        ('name = "a"', 'name = "../x"', "is no name of a board"),
        ('name = "a"', "", "has no name"),
        ('name = "b"', 'name = "a"', "names board a twice"),
        ('kind = "virtual:tx2"', 'kind = "toaster"', "unknown device 'toaster'"),
        ('ssh = "me@10.0.0.7"', 'ssh = "-oProxyCommand=x"', "is no host"),
        ('ssh = "me@10.0.0.7"', 'ssh = "me@-oProxyCommand=x"', "is no host"),
        ('ssh = "me@10.0.0.7"', 'ssh = "h; rm -r x"', "is no host"),
        ('graph = "nets/my net"', "", "needs graph"),
        ('["/opt/edge/bin/edgeecc"]', '"edgeecc"', "must be a list of words"),
        ('["/opt/edge/bin/edgeecc"]', '["-x"]', "starts with no program"),
        ('["/opt/edge/bin/edgeecc"]', '["a\\nb"]', "must be a list of words"),
        ("OMP_NUM_THREADS", '"A=B"', "is no variable"),
        ('{ OMP_NUM_THREADS = "1" }', "{ OMP_NUM_THREADS = 1 }", "must be a table of texts"),
        ("canary_every = 10", "canary_every = 1.5", "must be of type int, not 1.5"),
        ("canary_every = 10", "canary_every = 0", "must be at least 1"),
        ("canary_every = 10", "canaries = 10", "sets 'canaries'; known are scheduler"),
        ('reference = "a"', 'reference = "z"', "has no board z to take as reference"),
        ('reference = "a"', 'scheduler = "file:///x"', "is no address of a scheduler"),
        ("rest_s = 5", "rest_s = true", "must be of type float"),
        ("[fleet]", "[fleat]", "sets 'fleat'; known are fleet, board"),
        ("[[board]]", "[[boards]]", "sets 'boards'"),
    ],
)
def test_what_a_file_must_not_say(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_fleet(written(tmp_path, GOOD.replace(old, new)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["fleet = 3", "board = 3", "board = []", "board = [3]", ""])
def test_files_of_another_shape(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        read_fleet(written(tmp_path, text))


def test_a_file_that_is_not_there_or_no_toml(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="check the path"):
        read_fleet(tmp_path / "none.toml")
    with pytest.raises(ArtifactError, match="mend it"):
        read_fleet(written(tmp_path, "["))


def test_the_example_of_the_guide_is_a_fleet(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "fleet.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    fleet = read_fleet(written(tmp_path, example))
    assert [board.name for board in fleet.of_kind("onnxruntime:cpu")] == ["nano-1", "nano-2"]
    assert fleet.config == FleetConfig(reference="nano-1"), "the file shows the defaults"


def test_too_many_boards(tmp_path: Path) -> None:
    text = "".join(f'[[board]]\nname = "b{n}"\nkind = "virtual:tx2"\n' for n in range(257))
    with pytest.raises(ConfigError, match="names 257 boards; name 1 to 256"):
        read_fleet(written(tmp_path, text))


def test_a_local_board_is_started_by_its_words() -> None:
    assert arguments(Board("a", "k"), ["measure"], "py") == ["py", "-m", "edgeecc", "measure"]
    assert arguments(Board("a", "k", command=("x", "y")), ["m"], "py") == ["x", "y", "m"]


@given(st.lists(TEXT, min_size=1, max_size=4), TEXT)
def test_the_shell_over_there_gives_the_words_back(words: list, value: str) -> None:
    """Against the shell itself, which prints what ssh's one word comes to."""
    board = Board("a", "k", command=("printf", "%s\\0"), ssh="host", env=(("V", value),))
    *before, host, remote = arguments(board, words, "py")
    assert before[0] == "ssh"
    assert before[-1] == "--"
    assert host == "host"
    assert shlex.split(remote)[:2] == ["env", f"V={value}"]
    done = subprocess.run(["sh", "-c", remote], capture_output=True, check=True)
    assert done.stdout == b"".join(word.encode() + b"\0" for word in words)
