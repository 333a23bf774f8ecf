"""The images that a run keeps for verification: they come back, and what is damaged is told in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Dict

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeecc.artifacts import read_tensors, write_tensors
from edgeecc.check_set import CheckSet, compare, read_check, scored, write_check
from edgeecc.errors import ArtifactError, ConfigError, DataError
from edgeecc.run_folder import RunFolder

pytestmark = pytest.mark.device
LABELS = np.array([[[0, 2], [255, 1]], [[1, 1], [0, 0]]], dtype=np.int64)


def doubling(channels: int = 3) -> onnx.ModelProto:
    """Return a graph that gives its input, and twice its input beside it."""
    shape = [1, channels, 2, 2]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name in ("input", "output_0", "output_1")
    ]
    nodes = [
        helper.make_node("Identity", ["input"], ["output_0"]),
        helper.make_node("Add", ["input", "input"], ["output_1"]),
    ]
    graph = helper.make_graph(nodes, "doubling", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def logits() -> np.ndarray:
    """Return logits (2, 3, 2, 2) that are right in all labelled pixels but one."""
    told = np.where(LABELS == 255, 0, LABELS)
    told[1, 1, 1] = 2
    return np.ascontiguousarray(np.moveaxis(np.eye(3, dtype=np.float32)[told], -1, 1))


def check(**change: object) -> CheckSet:
    fields: Dict[str, object] = {
        "images": logits(), "labels": LABELS, "reference": logits()[:1], "task": "segmentation", "classes": 3,
    }  # fmt: skip
    return CheckSet(**{**fields, **change})


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "slim.onnx").write_bytes(doubling().SerializeToString())
    return RunFolder(tmp_path)


@pytest.mark.parametrize(
    ("labels", "kind"),
    [(LABELS, "uint8"), (np.array([3, 999]), "uint16"), (np.array([-1, 200]), "int16")],
)
@pytest.mark.parametrize("classes", [None, 1000])
def test_it_comes_back_and_labels_are_small(
    folder: RunFolder, labels: np.ndarray, kind: str, classes: int
) -> None:
    write_check(folder, check(labels=labels, classes=classes))
    found = read_check(folder)
    assert (found.task, found.classes, found.labels.dtype) == ("segmentation", classes, kind)
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.images, logits())
    np.testing.assert_array_equal(found.reference, logits()[:1])


def test_a_file_without_a_task_is_a_classifiers(folder: RunFolder) -> None:
    write_check(folder, check())
    path = folder.file("check.safetensors")
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, {"slim_sha256": metadata["slim_sha256"]})
    assert (read_check(folder).task, read_check(folder).classes) == ("classification", None)
    write_tensors(path, tensors, {**metadata, "classes": "many"})
    with pytest.raises(ArtifactError, match=r"check.safetensors is damaged: .*many.*export again"):
        read_check(folder)
    del tensors["label"]
    write_tensors(path, tensors, metadata)
    with pytest.raises(ArtifactError, match=r"check.safetensors is damaged: 'label'"):
        read_check(folder)
    folder.file("slim.onnx").write_bytes(b"another")
    with pytest.raises(ArtifactError, match="is not the exported one"):
        read_check(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": LABELS[:1]},
        {"labels": LABELS.astype(np.float32)},
        {"labels": np.array(3)},
        {"images": logits()[:0], "labels": LABELS[:0], "reference": logits()[:0]},
        {"reference": logits()[:0]},
        {"reference": np.concatenate([logits(), logits()])},
    ],
)
def test_tensors_that_do_not_belong_together_are_told(change: dict) -> None:
    with pytest.raises(ArtifactError, match="do not belong together; run edgeecc export again"):
        check(**change)


def test_a_graph_is_scored_and_compared_by_its_first_output() -> None:
    scores, error = compare(doubling(), check())
    assert scores == {
        "mean IoU": pytest.approx((2 / 3 + 3 / 3 + 1 / 2) / 3),
        "pixel accuracy": 6 / 7,
    }
    assert error == 0.0
    moved = logits()
    moved[1, 0, 0, 0] -= 0.25
    assert compare(doubling(), check(reference=moved))[1] == pytest.approx(0.25)
    assert scored("segmentation", scores) == {
        "task": "segmentation",
        "score": "mean IoU",
        "accuracy": scores["mean IoU"],
        "scores": scores,
    }


def test_what_a_graph_cannot_be_scored_by_is_told() -> None:
    with pytest.raises(ArtifactError, match=r"returns \(1, 3, 2, 2\), expected \(1, 3, 1, 1\)"):
        compare(doubling(), check(reference=logits()[:, :, :1, :1]))
    with pytest.raises(ConfigError, match="unknown task 'detection'"):
        compare(doubling(), check(task="detection"))
    with pytest.raises(DataError, match="label 7, the network tells 0..2"):
        compare(doubling(), check(labels=np.where(LABELS == 2, 7, LABELS)))
    with pytest.raises(DataError, match="has 11 classes, the network 3"):
        compare(doubling(), check(classes=11))
