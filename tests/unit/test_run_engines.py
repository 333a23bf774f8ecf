"""What int8 finds its ranges on, and where the engines of a run are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.artifacts import write_json, write_tensors
from edgeecc.check_set import CheckSet
from edgeecc.device_names import parse_device
from edgeecc.errors import ArtifactError
from edgeecc.run_engines import (
    NAME,
    cache_folder,
    ranges_for,
    read_ranges,
    run_engines,
    write_ranges,
)
from edgeecc.run_folder import RESULT_SCHEMA, RunFolder

pytestmark = pytest.mark.device
INT8 = parse_device("nvidia-a40:tensorrt:int8")


def check_of(images: int, outputs: int) -> CheckSet:
    """Return a check set whose images, labels and outputs hold their own number."""
    numbers = np.arange(images)
    whole = np.zeros((images, 1, 2, 2), np.float32) + numbers[:, None, None, None]
    return CheckSet(whole, numbers, whole[:outputs, 0, 0], "classification", None)


@given(st.data())
def test_no_image_both_gives_ranges_and_is_scored(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = data.draw(st.integers(2, 300))
    check = check_of(whole, data.draw(st.integers(1, whole)))
    ranges, left = ranges_for(RunFolder(tmp_path_factory.mktemp("run")), INT8, check)
    taken = {int(image[0, 0, 0]) for image in ranges.images}
    scored = {int(image[0, 0, 0]) for image in left.images}
    assert ranges.split == "check"
    assert taken | scored == set(range(whole))
    assert not taken & scored
    assert len(taken) == min(64, whole // 2)
    assert list(left.labels) == sorted(scored), "labels stay with their images"
    assert np.array_equal(left.reference[:, 0], left.images[: len(left.reference), 0, 0, 0])
    assert len(left.reference) == len([one for one in scored if one < len(check.reference)])


def test_training_images_are_taken_where_the_run_has_them(tmp_path: Path) -> None:
    folder, check = RunFolder(tmp_path), check_of(5, 2)
    images = np.random.default_rng(0).standard_normal((7, 1, 2, 2)).astype(np.float32)
    assert read_ranges(folder) is None
    write_ranges(folder, images)
    ranges, left = ranges_for(folder, INT8, check)
    assert left is check
    assert ranges.split == "train"
    assert np.array_equal(np.concatenate(ranges.batches), images)
    engines = run_engines(folder, INT8)
    assert np.array_equal(np.concatenate(engines.calibration), images)
    for precision in ("fp32", "fp16"):
        name = parse_device(f"nvidia-a40:tensorrt:{precision}")
        assert ranges_for(folder, name, check)[0].batches == ()
        assert run_engines(folder, name).calibration == ()


def test_a_pattern_gives_leave_for_sparse_kernels(tmp_path: Path) -> None:
    folder, name = RunFolder(tmp_path), parse_device("nvidia-a40:tensorrt:fp16")
    assert not run_engines(folder, name).sparse, "no result"
    for pattern, sparse in ((None, False), ({"text": "2:4", "layers": {}}, True)):
        write_json(tmp_path / "result.json", RESULT_SCHEMA, {"pattern": pattern})
        assert run_engines(folder, name).sparse is sparse
    write_json(tmp_path / "result.json", RESULT_SCHEMA, {"pattern": {"text": "3:4"}})
    with pytest.raises(ArtifactError, match="is damaged: its pattern is"):
        run_engines(folder, name)


@pytest.mark.parametrize(
    "tensors",
    [
        {"other": np.zeros((3, 1, 2, 2), np.float32)},
        {"input": np.zeros((0, 1, 2, 2), np.float32)},
        {"input": np.zeros(3, np.float32)},
        {"input": np.zeros((3, 1, 2, 2), np.int64)},
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, tensors: dict) -> None:
    write_tensors(tmp_path / NAME, tensors, {})
    with pytest.raises(
        ArtifactError, match="is damaged: .* are no images; run edgeecc export again"
    ):
        read_ranges(RunFolder(tmp_path))


def test_one_check_image_cannot_do_both(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="one check image cannot both"):
        ranges_for(RunFolder(tmp_path), INT8, check_of(1, 1))


def test_engines_lie_in_the_workspace_or_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs" / "net-ecc-60%"
    run.mkdir(parents=True)
    assert cache_folder(RunFolder(run)) == tmp_path / "cache" / "engines"
    monkeypatch.chdir(run)
    assert cache_folder(RunFolder(Path())) == tmp_path / "cache" / "engines"
    copied = tmp_path / "copied"
    assert cache_folder(RunFolder(copied)) == copied / "cache" / "engines"
