"""Make the profiles that edgeecc ships: two calibrated on virtual:tx2, and one published by the authors of ECC.

Needs the host extra. Samples are made in a temporary folder and dropped; the profiles and their protocols stay.

    python calibration/make_shipped.py
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Tuple

import numpy as np
import onnx

from edgeecc.artifacts import write_bytes
from edgeecc.calibrate import Job, calibrate
from edgeecc.calibration_folder import network_folder
from edgeecc.config import CalibrateConfig, MeasureProtocol
from edgeecc.cost.product import ProductModel
from edgeecc.cost.profile import Profile
from edgeecc.cost.terms import layer_terms, spec_groups
from edgeecc.errors import ArtifactError
from edgeecc.graph.spec import NetworkSpec
from edgeecc.sources import open_network, trace_source
from edgeecc.units import Metric

ROOT = Path(__file__).resolve().parents[1]
VIRTUAL = ("alexnet", "mobilenet_v1")
SAMPLES = 2_000  # ours: twice the default, for what every user starts from

#: The float32 values of the authors' fitted model for AlexNet on a Jetson TX2, joules, widths over dense widths.
PUBLISHED_WIDTHS = (64, 192, 384, 256, 256, 4096, 4096)
PUBLISHED_CONSTANT_J = 0.0024820673279464245
PUBLISHED_LAYERS_J = (
    0.0022337078116834164, 0.0075399503111839294, 0.003909255377948284, 0.004940669517964125,
    0.0033930998761206865, 0.0161565151065588, 0.00721406377851963, 0.0019541799556463957,
)  # fmt: skip
PUBLISHED_METER = "Jetson TX2 GPU rail, PyTorch"
PUBLISHED_SOURCE = (
    "fitted by the authors of ECC (CVPR 2019) on a Jetson TX2 with PyTorch, GPU rail; "
    "published with their code"
)
#: Why the profile has no held-out error, hence no margin.
PUBLISHED_NOTE = f"{PUBLISHED_SOURCE}. The held-out error of this very file is not published; the paper says about 3 %."


def open_traced(name: str) -> Tuple[NetworkSpec, onnx.ModelProto]:
    """Return the spec and the dense graph of a table network, fresh weights: neither cost nor profile sees them."""
    model, source = open_network(name, None, None)
    traced = trace_source(model, source)
    return traced.spec, traced.graph


def published_profile(spec: NetworkSpec) -> Profile:
    """Return the authors' AlexNet profile for our AlexNet.

    Their file knows only widths in order, so it is tied to `spec` here, once, by its dense widths and number
    of layers; from then on the fingerprint guards it like any other.

    Raises: ArtifactError when `spec` is not the network that they fitted.
    """
    widths = tuple(spec.dense_widths().values())
    if widths != PUBLISHED_WIDTHS or len(spec.layers) != len(PUBLISHED_LAYERS_J):
        raise ArtifactError(
            f"the published model has widths {PUBLISHED_WIDTHS} and {len(PUBLISHED_LAYERS_J)} layers, {spec.network} "
            f"has {widths} and {len(spec.layers)}; it does not fit"
        )
    model = ProductModel(
        Metric.ENERGY,
        f"published model of {PUBLISHED_METER}",
        groups=spec_groups(spec),
        terms=layer_terms(spec),
        coefficients=np.array(PUBLISHED_LAYERS_J),
        constant=PUBLISHED_CONSTANT_J,
    )
    return Profile(
        network=spec.network,
        device="jetson-tx2",
        fingerprint=spec.fingerprint(),
        model=model,
        form="bilinear",
        fit="published",
        meter=PUBLISHED_METER,
        heldout=None,
        samples={},
        note=PUBLISHED_NOTE,
    )


def make_published(spec: NetworkSpec, root: Path) -> Path:
    """Write the authors' profile; return its path."""
    profile = published_profile(spec)
    folder = network_folder(root, profile.device, profile.network)
    profile.save(folder / "profile.json")
    protocol = "Widths uniform on 1..c, 10,000 samples, batch 1, 224x224."
    text = f"# AlexNet on {profile.device}\n\n{profile.note} {protocol}\n"
    write_bytes(folder / "PROTOCOL.md", text.encode())
    return folder / "profile.json"


def make_virtual(spec: NetworkSpec, graph: onnx.ModelProto, root: Path) -> Path:
    """Calibrate on virtual:tx2 and keep profile and protocol; return the profile's path."""
    kept = network_folder(root, "virtual:tx2", spec.network)
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(spec, graph, "virtual:tx2", Path(folder))
        calibrate(job, CalibrateConfig(samples=SAMPLES, target_error=0.0), MeasureProtocol())
        for name in ("profile.json", "PROTOCOL.md"):
            shutil.copyfile(Path(folder) / name, kept / name)
    return kept / "profile.json"


def main() -> None:
    """Make all of them and say what they hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT, help="folder that holds calibration/")
    root = parser.parse_args().out
    for name in VIRTUAL:
        spec, graph = open_traced(name)
        paths = [make_virtual(spec, graph, root)]
        if name == "alexnet":
            paths.append(make_published(spec, root))
        for path in paths:
            profile = Profile.load(path)
            dense = profile.cost_for(spec).predict(spec.vector(spec.dense_widths()))
            error = "unknown" if profile.heldout is None else f"{profile.heldout.mean:.2%}"
            where = path.relative_to(root)
            sys.stdout.write(
                f"{where}: dense {dense:.6g} J ({profile.meter}), held-out error {error}\n"
            )


if __name__ == "__main__":
    main()
