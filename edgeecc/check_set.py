"""The validation images that export keeps in a run folder, so that the run can be verified anywhere, without torch.

check.safetensors holds images, their labels, and what the masked torch network returned for the first of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Mapping, Optional, Tuple

import numpy as np
import numpy.typing as npt
import onnx

from edgeecc.artifacts import file_sha256, read_tensors, write_tensors
from edgeecc.errors import ArtifactError
from edgeecc.run_folder import RunFolder
from edgeecc.runtimes.base import Runtime
from edgeecc.runtimes.onnxrt import OnnxRuntime
from edgeecc.training.scores import make_scores
from edgeecc.training.task import Array

NAME = "check.safetensors"


@dataclass(frozen=True)
class CheckSet:
    """Images to verify on.

    Args:
        images: float32 (n, ...), as the network takes them.
        labels: integers (n,) or (n, H, W).
        reference: float32 (m, ...), 1 <= m <= n: the first output of the masked torch network for the first m images.
        task: its name in the table of tasks.
        classes: of the data set, None where it does not say.
    Raises: ArtifactError when the tensors do not belong together.
    """

    images: npt.NDArray[np.float32]
    labels: Array
    reference: npt.NDArray[np.float32]
    task: str
    classes: Optional[int]

    def __post_init__(self) -> None:
        images, labels, outputs = (
            tensor.shape[0] if tensor.ndim else 0
            for tensor in (self.images, self.labels, self.reference)
        )
        if not images == labels >= outputs > 0 or self.labels.dtype.kind not in "iu":
            raise ArtifactError(
                f"{NAME} is damaged: {images} images, {labels} labels of type {self.labels.dtype} and {outputs} "
                "outputs do not belong together; run edgeecc export again"
            )


def write_check(folder: RunFolder, check: CheckSet) -> None:
    """Write check.safetensors for the slim.onnx that the run has; labels take the smallest type that holds them."""
    least, most = (
        np.min_scalar_type(int(label)) for label in (check.labels.min(), check.labels.max())
    )
    labels = check.labels.astype(np.promote_types(least, most))
    classes = {} if check.classes is None else {"classes": str(check.classes)}
    write_tensors(
        folder.file(NAME),
        {"input": check.images, "label": labels, "reference": check.reference},
        {"slim_sha256": _slim_digest(folder), "task": check.task, **classes},
    )


def read_check(folder: RunFolder) -> CheckSet:
    """Return what `write_check` wrote; a file that names no task is of a time that knew classifiers only.

    Raises: ArtifactError when it is damaged, or slim.onnx is another than then.
    """
    tensors, metadata = read_tensors(folder.file(NAME))
    if metadata.get("slim_sha256") != _slim_digest(folder):
        raise ArtifactError(
            f"slim.onnx in {folder.path} is not the exported one; run edgeecc export again"
        )
    task, classes = metadata.get("task", "classification"), metadata.get("classes")
    try:
        return CheckSet(
            tensors["input"].astype(np.float32, copy=False),
            tensors["label"],
            tensors["reference"].astype(np.float32, copy=False),
            task,
            None if classes is None else int(classes),
        )
    except (KeyError, ValueError) as error:
        raise ArtifactError(
            f"{folder.file(NAME)} is damaged: {error}; run edgeecc export again"
        ) from error


def compare(model: onnx.ModelProto, check: CheckSet) -> Tuple[Dict[str, float], float]:
    """Run a graph on the images in ONNX Runtime, one by one; see `compare_in`."""
    with OnnxRuntime(model) as runtime:
        return compare_in(runtime, check)


def compare_in(runtime: Runtime, check: CheckSet) -> Tuple[Dict[str, float], float]:
    """Run a network on the images, one by one.

    Returns: its scores, and the largest absolute difference of its first output to the reference.
    Raises: ArtifactError when its output has another shape than the reference; DataError when it cannot be scored.
    """
    scores = make_scores(check.task, check.classes)
    errors = []
    for place, image in enumerate(check.images):
        output = runtime.infer([image[None]])[0]
        if output.shape[1:] != check.reference.shape[1:]:
            raise ArtifactError(
                f"the graph returns {output.shape}, expected {(1, *check.reference.shape[1:])}; run edgeecc export "
                "again"
            )
        scores.add(output, check.labels[place : place + 1])
        if place < len(check.reference):
            errors.append(float(np.abs(output[0] - check.reference[place]).max()))
    return scores.result(), float(np.max(errors))


def scored(task: str, scores: Mapping[str, float]) -> Dict[str, object]:
    """Return how a network did, as every result says it: the deciding score's name and value, and all scores."""
    score, value = next(iter(scores.items()))
    return {"task": task, "score": score, "accuracy": value, "scores": dict(scores)}


def _slim_digest(folder: RunFolder) -> str:
    return file_sha256(folder.file("slim.onnx"))
