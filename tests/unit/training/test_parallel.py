"""Two processes do what one does: the same widths, masks and scores; one writes, and one says what failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest
import torch

from edgeecc.training.parallel import ALONE, World, job
from tests import parallel_work
from tests.parallel_work import Killed, pruned
from tests.processes import JobFailedError, run_job


@pytest.fixture(scope="module")
def whole() -> Dict[str, Any]:
    """Return what one process makes of batches that two cannot halve."""
    return pruned(ALONE, batch=33)


def check_same(found: Dict[str, Any], whole: Dict[str, Any]) -> None:
    assert found["keep"] == whole["keep"]
    for name, value in whole["weights"].items():
        np.testing.assert_allclose(found["weights"][name], value, rtol=1e-7, atol=1e-9)
    assert found["scores"] == whole["scores"]
    assert found["held_out"] == whole["held_out"]
    assert found["dense"] == whole["dense"]


def test_two_processes_prune_as_one_does(tmp_path: Path, whole: Dict[str, Any]) -> None:
    first, second = run_job(pruned, tmp_path, None, 33)
    check_same(first, whole)
    assert first["losses"] == second["losses"] == pytest.approx(whole["losses"], rel=1e-9)
    for name, value in first["weights"].items():
        assert np.array_equal(value, second["weights"][name])


def test_a_job_goes_on_with_more_or_fewer_processes(tmp_path: Path, whole: Dict[str, Any]) -> None:
    with pytest.raises(Killed):
        pruned(ALONE, tmp_path / "grown", 33, 6)
    for found in run_job(pruned, tmp_path, tmp_path / "grown", 33):
        assert len(found["losses"]) == len(whole["losses"]) - 5
        check_same(found, whole)
    with pytest.raises(JobFailedError, match="Killed"):
        run_job(pruned, tmp_path, tmp_path / "shrunk", 33, 6)
    found = pruned(ALONE, tmp_path / "shrunk", 33)
    assert len(found["losses"]) == len(whole["losses"]) - 5
    check_same(found, whole)


@pytest.mark.parametrize("fed", ["uneven", "even", "void"])
def test_means_over_pixels_are_those_of_the_whole_batch(tmp_path: Path, fed: str) -> None:
    whole = parallel_work.segmented(ALONE, fed)
    for found in run_job(parallel_work.segmented, tmp_path, fed):
        assert found["loss"] == pytest.approx(whole["loss"], rel=1e-12)
        for mine, true in zip(found["gradients"], whole["gradients"]):
            np.testing.assert_allclose(mine, true, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("together", [2, 256])
def test_scores_are_counted_over_all(tmp_path: Path, together: int) -> None:
    whole = parallel_work.scored(ALONE, together)
    assert run_job(parallel_work.scored, tmp_path, together, size=3) == [whole] * 3


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    first, second = run_job(parallel_work.written, tmp_path, tmp_path / "files")
    assert first == [".lock", "a.json", "a.safetensors", "journal", "keep.json", "phase"]
    assert second == []


def test_collectives_and_parameters_without_a_part(tmp_path: Path) -> None:
    first, second = run_job(parallel_work.shared, tmp_path)
    for found in (first, second):
        assert found["sum"] == [1.0, 2.0]
        assert found["max"] == [1.0, 1.0]
        assert found["first"] == [0.0, 1.0]
        assert found["unused"]
    assert np.array_equal(first["gradient"], second["gradient"])


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ("one", ["FailedElsewhereError", "ParallelError: process 1: no such thing"]),
        ("all", ["ConfigError: no such thing", "FailedElsewhereError"]),
        ("main", ["ConfigError: only here", "FailedElsewhereError"]),
        ("disk", ["FailedElsewhereError", "ParallelError: process 1: .*No space left"]),
        ("dies", ["LostProcessError: a process of this job is gone", "Gone"]),
        ("apart", ["ParallelError: the processes of the job have different", "FailedElsewhereError"]),
        ("small", ["ConfigError: a batch of 1 cannot be shared by 2 processes", "FailedElse"]),
    ],
)  # fmt: skip
def test_one_process_says_what_failed(tmp_path: Path, who: str, said: list) -> None:
    with pytest.raises(JobFailedError, match=rf"\A{said[0]}.*\n{said[1]}.*\Z"):
        run_job(parallel_work.fail, tmp_path, who)


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")  # of something else
    with job() as world:
        assert world == ALONE == World(0, 1)
        assert world.is_main
        assert world.broadcast(torch.tensor(3)) == 3
        world.barrier()


@pytest.mark.parametrize(("count", "size"), [(8, 2), (7, 3), (3, 3)])
def test_slices_share_all_evenly(count: int, size: int) -> None:
    parts = [list(range(count))[World(rank, size).slice_of(count)] for rank in range(size)]
    assert [place for part in parts for place in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all(parts)
