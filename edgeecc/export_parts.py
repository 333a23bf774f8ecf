"""What every export does: rebuild the networks of a run, choose images to check on, and compare."""

from __future__ import annotations

import math
from typing import Mapping

import numpy as np
import torch
from torch import nn

from edgeecc.artifacts import read_tensors
from edgeecc.check_set import CheckSet
from edgeecc.config import VerifyConfig
from edgeecc.data.sources import DataBundle
from edgeecc.data.splits import Batch, Split, images_together
from edgeecc.errors import ArtifactError, GraphError
from edgeecc.graph.input_mask import attach, sizes_in
from edgeecc.graph.spec import NetworkSpec
from edgeecc.networks.weights import load_into
from edgeecc.run_folder import RunFolder
from edgeecc.sources import NetworkSource, load_images
from edgeecc.training.compute import device_of
from edgeecc.training.task import Task
from edgeecc.training.tasks import make_task

FloatArray = np.typing.NDArray[np.float32]


def network_of(folder: RunFolder, source: NetworkSource, which: str) -> nn.Module:
    """Return a network of a run: "dense" or "masked"."""
    arrays, _ = read_tensors(folder.file(f"{which}.safetensors"))
    model = source.build()
    attach(model, sizes_in(arrays))
    load_into(model, {name: torch.from_numpy(value.copy()) for name, value in arrays.items()})
    return model.eval()


def data_of(run: Mapping[str, object], source: NetworkSource) -> DataBundle:
    """Return the data set of a run.

    Raises: ArtifactError when run.json names none.
    """
    request = run.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("data"), str):
        raise ArtifactError("run.json names no data set; run edgeecc prune again")
    return load_images(source, request["data"])


def range_images(data: DataBundle, config: VerifyConfig) -> FloatArray:
    """Return training images, evenly from the whole split and as training sees them, for the ranges of int8.

    They take at most `check_bytes`; one image is always there.
    """
    one = data.train.take([0])[0]
    count = min(len(data.train), config.calibration_images, _fitting(config, one.nbytes))
    return _evenly(data.train, count)[0].numpy()


def make_check(data: DataBundle, masked: nn.Module, config: VerifyConfig) -> CheckSet:
    """Return validation images, evenly from the whole split, and the masked network's outputs on the first of them.

    Images with their labels take at most `check_bytes`, and so do the outputs; one image is always there.
    """
    task = make_task(data.task, data.classes)
    image, label = data.val.take([0])
    count = min(len(data.val), _fitting(config, image.nbytes + label.nbytes))
    images, labels = (tensor.numpy() for tensor in _evenly(data.val, count))
    one = outputs(masked, images[:1], task)
    reference = outputs(masked, images[: _fitting(config, one.nbytes)], task)
    return CheckSet(images, labels, reference, data.task, data.classes)


def _evenly(split: Split, count: int) -> Batch:
    places = np.linspace(0, len(split) - 1, count).astype(np.int64)
    return split.take(np.unique(places).tolist())


def _fitting(config: VerifyConfig, one_bytes: int) -> int:
    """Return how many things of this size `check_bytes` holds, at least one."""
    return max(1, config.check_bytes // one_bytes)


def outputs(model: nn.Module, images: FloatArray, task: Task) -> FloatArray:
    """Return what a task scores of a torch network's result on images, (n, ...)."""
    together = images_together(images.shape, 256)
    device = device_of(model)
    with torch.no_grad():
        parts = [
            task.output_of(model(torch.from_numpy(images[start : start + together]).to(device)))
            for start in range(0, len(images), together)
        ]
    return torch.cat(parts).cpu().numpy()


def agree(
    what: str, found: FloatArray, expected: FloatArray, config: VerifyConfig
) -> None:  # fmt: skip
    """Check that two networks give the same outputs.

    Raises: GraphError when they differ by more than `config` tolerates.
    """
    error = float(np.abs(found - expected).max()) if found.shape == expected.shape else math.inf
    if not error <= config.max_abs_error:
        raise GraphError(
            f"{what} differs from the masked one by {error:.3g}; nothing was exported, report the network"
        )


def mac_count(spec: NetworkSpec, widths: Mapping[str, int]) -> int:
    """Return the multiply-accumulates of an inference at the given widths."""
    total = 0.0
    for layer in spec.layers:
        share = math.prod(
            form.at(widths) / form.at(spec.dense_widths()) for form in layer.factors()
        )
        total += layer.dense_macs * share
    return round(total)
