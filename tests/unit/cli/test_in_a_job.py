"""What commands do in a job of several processes, which only some of them join."""

from __future__ import annotations

import pytest

from edgeecc.cli.main import cli
from edgeecc.launch import processes
from tests.cli_runs import complaint, run

pytestmark = pytest.mark.device

ALONE = sorted(set(cli.commands) - {"prune"})


def join(monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    """Set what torchrun tells its processes."""
    told = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": size, "RANK": rank, "LOCAL_RANK": rank}
    for name, value in told.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("name", ALONE)
def test_what_works_in_one_process_says_so_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    join(monkeypatch, 0, 2)
    assert complaint(name) == (
        f"Error: {name} works in one process, and torchrun started 2; give the command without torchrun, which is for "
        "prune"
    )
    join(monkeypatch, 1, 2)
    left = run(
        name
    )  # without an error, or torchrun would end the first process before it has spoken
    assert (left.stdout, left.stderr) == ("", "")


def test_prune_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    join(monkeypatch, 0, 2)
    assert "no data to train on" in complaint("prune", "net.pth", "--budget", "50%", code=2)


def test_a_job_of_one_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    join(monkeypatch, 0, 1)
    assert processes() == 1
    assert "no data to train on" in complaint("compare", "net.pth", "--budget", "50%", code=2)


def test_what_torchrun_did_not_start_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedulers of clusters set such names too."""
    join(monkeypatch, 1, 2)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    assert processes() == 1
    assert "no data to train on" in complaint("compare", "net.pth", "--budget", "50%", code=2)
