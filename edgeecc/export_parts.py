"""What every export does: rebuild the networks of a run, choose images to check on, and compare."""

from __future__ import annotations

import math
from typing import Mapping, Tuple

import numpy as np
import torch
from torch import nn

from edgeecc.artifacts import read_tensors, write_tensors
from edgeecc.config import VerifyConfig
from edgeecc.data.sources import load as load_data
from edgeecc.data.splits import Split
from edgeecc.errors import ArtifactError, GraphError
from edgeecc.graph.input_mask import attach, sizes_in
from edgeecc.graph.spec import IntArray, NetworkSpec
from edgeecc.networks.weights import load_into
from edgeecc.run_folder import RunFolder
from edgeecc.sources import NetworkSource
from edgeecc.verify import sha256

FloatArray = np.typing.NDArray[np.float32]


def network_of(folder: RunFolder, source: NetworkSource, which: str) -> nn.Module:
    """Return a network of a run: "dense" or "masked"."""
    arrays, _ = read_tensors(folder.file(f"{which}.safetensors"))
    model = source.build()
    attach(model, sizes_in(arrays))
    load_into(model, {name: torch.from_numpy(value.copy()) for name, value in arrays.items()})
    return model.eval()


def check_images(
    run: Mapping[str, object], source: NetworkSource, config: VerifyConfig
) -> Tuple[np.typing.NDArray[np.float32], IntArray]:  # fmt: skip
    """Return validation images and labels, evenly from the whole split, at most `check_bytes` of them."""
    request = run.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("data"), str):
        raise ArtifactError("run.json names no data set; run edgeecc prune again")
    split: Split = load_data(request["data"], input_shape=source.input_shape).val
    most = max(1, config.check_bytes // (4 * math.prod(source.input_shape)))
    places = np.unique(np.linspace(0, len(split) - 1, min(len(split), most)).astype(np.int64))
    images, labels = split.take(places.tolist())
    return images.numpy(), labels.numpy()


def outputs(
    model: nn.Module, images: np.typing.NDArray[np.float32]
) -> np.typing.NDArray[np.float32]:
    """Return the outputs of a torch network on images, (n, ...)."""
    with torch.no_grad():
        parts = [
            model(torch.from_numpy(images[start : start + 256]))
            for start in range(0, len(images), 256)
        ]
    return torch.cat(parts).numpy()


def agree(
    what: str, found: np.typing.NDArray[np.float32], expected: np.typing.NDArray[np.float32], config: VerifyConfig
) -> None:  # fmt: skip
    """Check that two networks give the same outputs.

    Raises: GraphError when they differ by more than `config` tolerates.
    """
    error = float(np.abs(found - expected).max()) if found.shape == expected.shape else math.inf
    if not error <= config.max_abs_error:
        raise GraphError(
            f"{what} differs from the masked one by {error:.3g}; nothing was exported, report the network"
        )


def write_check(
    folder: RunFolder, images: FloatArray, labels: IntArray, reference: FloatArray
) -> None:
    """Write check.safetensors: what `verify` needs to judge slim.onnx without torch."""
    write_tensors(
        folder.file("check.safetensors"),
        {"input": images, "label": labels, "reference": reference},
        {"slim_sha256": sha256(folder.file("slim.onnx").read_bytes())},
    )


def finished(folder: RunFolder) -> Mapping[str, object]:
    """Return run.json of a finished run.

    Raises: ArtifactError when it is not finished.
    """
    run = folder.read_run()
    if not folder.has("result.json"):
        raise ArtifactError(
            f"{folder.path} is not finished; give the edgeecc prune command again to go on"
        )
    return run


def parameter_count(spec: NetworkSpec, widths: Mapping[str, int]) -> int:
    """Return the number of trained parameters at the given widths."""
    trained = [parameter for parameter in spec.parameters if parameter.trained]
    return sum(
        math.prod(form.at(widths) for form in spec.parameter_form(parameter))
        for parameter in trained
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
