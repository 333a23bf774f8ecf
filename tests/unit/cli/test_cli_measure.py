"""`edgeecc measure`: one variant, a stream of them, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeecc.cli.main import cli
from tests.cli_runs import complaint, run, run_json
from tests.fake_nvml import installed
from tests.fleets import ROOT, graph_folder


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graph_folder(tmp_path_factory.mktemp("graph"))


@pytest.mark.device
def test_one_variant(graph: Path) -> None:
    by_number = run_json("measure", "--graph", graph, "--number", 3)
    widths = ",".join(map(str, by_number["widths"]))
    by_widths = run_json("measure", "--graph", graph, "--number", 3, "--widths", widths)
    assert by_widths == by_number
    other = run_json("measure", "--graph", graph, "--widths", widths)
    assert other["number"] == 0
    assert other["value"] == pytest.approx(by_number["value"], rel=0.2)  # another noise
    text = run("measure", "--graph", graph, "--number", -1).stdout
    assert "24,40" in text
    assert "virtual:tx2 (simulated)" in text


@pytest.mark.device
def test_auto_is_what_is_here(graph: Path) -> None:
    with installed(None):
        found = run_json(
            "measure", "--graph", graph, "--number", 0, "--device", "auto", "--tolerance", 0.5
        )
    assert "onnxruntime" in found["meter"]
    assert "latency_events_s" not in found, "a CPU has no clock of its own"


@pytest.mark.device
def test_a_stream_is_answered_line_by_line(graph: Path) -> None:
    """Each answer is read before the next variant is asked."""
    words = [sys.executable, "-m", "edgeecc", "measure", "--graph", str(graph)]
    process = subprocess.Popen(words, cwd=ROOT, stdin=-1, stdout=-1, text=True)
    assert set(json.loads(process.stdout.readline())) == {"edgeecc", "device", "fingerprint"}
    for number in (4, 9):
        process.stdin.write(json.dumps({"number": number, "widths": [number, 5]}) + "\n\n")
        process.stdin.flush()
        found = json.loads(process.stdout.readline())
        assert (found["number"], found["widths"]) == (number, [number, 5])
    assert process.communicate()[0] == ""
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--widths", "3"], "has 2 prunable groups, got 1 widths"),
        (["--widths", "3,99"], "width 99 of group c2 is outside 1..40"),
        (["--number", "0", "--device", "jetson-tx2"], "jetson-tx2"),
        (
            ["--number", "0", "--device", "nvidia-a40:torch:fp16", "--precision", "fp32"],
            "another precision",
        ),
        (["--number", "0", "--seed", "-1"], "seed -1 must lie in"),
        (["--number", "0", "--tolerance", "7"], "tolerance 7.0 must lie in (0, 1)"),
    ],
)
def test_what_it_refuses(graph: Path, arguments: list, message: str) -> None:
    assert message in complaint("measure", "--graph", graph, *arguments)


def test_what_is_wrong_usage(graph: Path, tmp_path: Path) -> None:
    assert "are no widths" in complaint("measure", "--graph", graph, "--widths", "3,x", code=2)
    assert "cannot read" in complaint("measure", "--graph", tmp_path, "--number", 0)


def test_a_bad_line_ends_the_stream_after_the_good_ones(graph: Path) -> None:
    lines = '{"number": 1, "widths": [2, 3]}\n{"number": 2}\n'
    done = CliRunner().invoke(cli, ["measure", "--graph", str(graph)], input=lines)
    assert done.exit_code == 1
    assert [json.loads(line).get("number") for line in done.stdout.splitlines()] == [None, 1]
    assert "is no variant; write" in done.stderr
